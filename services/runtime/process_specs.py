"""Programs of the local stack: served releases and their fork server."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from services.runtime.supervision import Program
from services.serving.package import bento_folder
from services.serving.process import serve_command
from services.serving.tabular_release import ONLINE_MOMENT, ONLINE_REPOSITORY
from tasks.core.files import write_text
from tasks.core.settings import Settings
from tasks.core.sockets import short_socket_path
from tasks.release.results import Release

GATEWAY = "gateway"
FORKS = "forks"
USES_FORKS = sys.platform == "linux"  # on other systems a release starts without a fork server


def release_program_name(case: str, digest: str) -> str:
    return f"release-{case}-{digest[:12]}"


def release_program(
    settings: Settings, release: Release, online: Path | str | None, moment: datetime | None
) -> Program:
    """The program of a release; features that requests leave out are looked up in `online` as of `moment`, or now."""
    name = release_program_name(release.case, release.digest)
    home = settings.state / "supervisor" / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENTOML_HOME": str(home),  # its own: a server deletes the metrics in its home when it starts
        # more threads make one row slower, and a language model faster
        "OMP_NUM_THREADS": str(settings.threads if release.kind == "llm" else 1),
        "PYTHONSAFEPATH": "1",  # imports come from the Bento, not from the working folder
    }
    lookup = store_lookup(settings, release, online, moment)
    if lookup.is_file():
        variables |= json.loads(lookup.read_bytes())
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
    """Store where and as of when a release looks up features, for each time that it is served."""
    path = settings.state / "supervisor" / "homes" / release_program_name(release.case, release.digest) / "online.json"
    if online:
        path.parent.mkdir(parents=True, exist_ok=True)
        variables = {ONLINE_REPOSITORY: str(online)} | ({ONLINE_MOMENT: moment.isoformat()} if moment else {})
        write_text(path, json.dumps(variables))
    return path


def release_socket(state: Path, name: str) -> Path:
    """The socket of a release's program: its name is the digest alone, since a socket's path must be short."""
    return short_socket_path(state / "sockets", f"{name.rpartition('-')[2]}.sock")


def current_form(program: Program, settings: Settings) -> Program:
    """A release's program as this version starts it, from one that an earlier version wrote."""
    case, _, digest = program.name.removeprefix("release-").rpartition("-")
    path = release_socket(settings.state, program.name)
    command = _release_command(bento_folder(settings.state / "bentoml", f"{case}:{digest}"), path)
    return program.model_copy(update={"port": 0, "socket": str(path), "command": command})


def _release_command(bento: Path, path: Path) -> list[str]:
    if USES_FORKS:  # a relative path: after a restore the repository may have another one
        return [sys.executable, "-I", "-S", "services/serving/fork_client.py", str(bento), str(path)]
    return serve_command(bento, path)


def fork_server_program(settings: Settings) -> Program:
    """The program whose forks serve the releases; it has no port, since only they use it."""
    command = [sys.executable, "-m", "services.serving.fork_server"]
    return Program(name=FORKS, command=command, host=settings.host, environment={"OMP_NUM_THREADS": "1"})
