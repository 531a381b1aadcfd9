"""What the local stack runs: the programs of its servers, and of a served release."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from services.runtime.supervision import Program
from services.serving.package import bento_folder
from services.serving.process import serve_command
from services.serving.tabular import ONLINE_MOMENT, ONLINE_REPOSITORY
from tasks.core.files import write_text
from tasks.core.settings import Settings
from tasks.core.sockets import short_socket_path
from tasks.release.results import Release

GATEWAY = "gateway"
FORKS = "forks"
USES_FORKS = sys.platform == "linux"  # elsewhere a release and a run start from nothing


def release_program_name(case: str, digest: str) -> str:
    return f"release-{case}-{digest[:12]}"


def release_program(
    settings: Settings, release: Release, online: Path | str | None, moment: datetime | None
) -> Program:
    """A release's process; features that requests leave out are looked up in `online` as of `moment`, or now."""
    name = release_program_name(release.case, release.digest)
    home = settings.state / "supervisor" / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENTOML_HOME": str(home),  # of its own: a starting server empties the metrics of all others in its home
        # one row is slower with more threads than one, a language model's answer faster
        "OMP_NUM_THREADS": str(settings.threads if release.kind == "llm" else 1),
        "PYTHONSAFEPATH": "1",  # the Bento's code answers, not that of the folder it is started in
    }
    looked_up = store_lookup(settings, release, online, moment)
    if looked_up.is_file():
        variables |= json.loads(looked_up.read_bytes())
    bento = bento_folder(settings.state / "bentoml", release.bento)
    path = release_socket(settings.state, name)
    return Program(
        name=name,
        command=_release_command(bento, path),
        host=settings.host,
        socket=str(path),
        health="/readyz",
        environment=variables,
    )


def store_lookup(settings: Settings, release: Release, online: Path | str | None, moment: datetime | None) -> Path:
    """Write down where a release looks up features, and as of when; it holds whenever the release is served again."""
    path = settings.state / "supervisor" / "homes" / release_program_name(release.case, release.digest) / "online.json"
    if online:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = {ONLINE_REPOSITORY: str(online)} | ({ONLINE_MOMENT: moment.isoformat()} if moment else {})
        write_text(path, json.dumps(place))
    return path


def release_socket(state: Path, name: str) -> Path:
    """Where the release of a program's name listens: by its digest alone, since the path of a socket is short."""
    return short_socket_path(state / "sockets", f"{name.rpartition('-')[2]}.sock")


def current_form(program: Program, settings: Settings) -> Program:
    """A release's program as this version starts it, from one that an earlier version may have written."""
    case, _, digest = program.name.removeprefix("release-").rpartition("-")
    path = release_socket(settings.state, program.name)
    command = _release_command(bento_folder(settings.state / "bentoml", f"{case}:{digest}"), path)
    return program.model_copy(update={"port": 0, "socket": str(path), "command": command})


def _release_command(bento: Path, path: Path) -> list[str]:
    if USES_FORKS:  # a path within the repository, which restored programs may find elsewhere
        return [sys.executable, "-I", "-S", "services/serving/fork_client.py", str(bento), str(path)]
    return serve_command(bento, path)


def fork_server_program(settings: Settings) -> Program:
    """What the processes of releases are forks of; it has no port, since it answers programs beside it alone."""
    command = [sys.executable, "-m", "services.serving.fork_server"]
    return Program(name=FORKS, command=command, host=settings.host, environment={"OMP_NUM_THREADS": "1"})
