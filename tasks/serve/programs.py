"""What the local stack runs: the programs of its servers, and of a served release."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tasks.foundation.files import write_text
from tasks.foundation.settings import Settings
from tasks.foundation.sockets import socket_path
from tasks.release.package import bento_folder
from tasks.release.process import serve_command
from tasks.release.results import Release
from tasks.serve.service import ONLINE_MOMENT, ONLINE_REPOSITORY
from tasks.serve.supervision import Program

GATEWAY = "gateway"
FORKS = "forks"
FORKING = sys.platform == "linux"  # elsewhere a release and a run start from nothing


def program_name(case: str, digest: str) -> str:
    return f"release-{case}-{digest[:12]}"


def servers(settings: Settings) -> Sequence[tuple[Program, str]]:
    """The servers that are ours to run, with the setting of each one's port."""
    servers = []
    if not settings.prefect_url:
        root = f"http://{settings.host}:{settings.prefect_port}"
        program = Program(
            name="prefect",
            command=[sys.executable, "-m", "tasks.serve.prefect_server", settings.host, str(settings.prefect_port)],
            host=settings.host,
            port=settings.prefect_port,
            health="/api/health",
            # its pages ask whichever name they were opened by
            environment={"PREFECT_UI_API_URL": "/api", "PREFECT_API_URL": f"{root}/api"},
            starts_with_supervisor=False,
        )
        servers.append((program, "DRIFTLINE_PREFECT_PORT"))
    if not settings.tracking_url.startswith("http"):
        program = _own("mlflow", "tasks.serve.tracking_server", settings.host, settings.mlflow_port, "/health")
        servers.append((program, "DRIFTLINE_MLFLOW_PORT"))
    if settings.worker:
        program = _own("worker", "flows.deployed.worker", settings.host, settings.worker_port, "/health")
        servers.append((program, "DRIFTLINE_WORKER_PORT"))
    program = _own(GATEWAY, "tasks.gateway.program", settings.host, settings.gateway_port, "/readyz")
    program = program.model_copy(update={"command": [*program.command, str(settings.gateway_workers)]})
    servers.append((program, "DRIFTLINE_GATEWAY_PORT"))
    return servers


def _own(name: str, module: str, host: str, port: int, health: str) -> Program:
    """A server that is a module of ours, which takes its port."""
    command = [sys.executable, "-m", module, str(port)]
    return Program(name=name, command=command, host=host, port=port, health=health, starts_with_supervisor=False)


def release_program(
    settings: Settings, release: Release, online: Path | str | None, moment: datetime | None
) -> Program:
    """A release's process; features that requests leave out are looked up in `online` as of `moment`, or now."""
    name = program_name(release.case, release.digest)
    home = settings.state / "supervisor" / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENTOML_HOME": str(home),  # of its own: a starting server empties the metrics of all others in its home
        # one row is slower with more threads than one, a language model's answer faster
        "OMP_NUM_THREADS": str(settings.threads if release.kind == "llm" else 1),
        "PYTHONSAFEPATH": "1",  # the Bento's code answers, not that of the folder it is started in
    }
    looked_up = note_lookup(settings, release, online, moment)
    if looked_up.is_file():
        variables |= json.loads(looked_up.read_bytes())
    bento = bento_folder(settings.state / "bentoml", release.bento)
    path = release_socket(settings.state, name)
    return Program(
        name=name,
        command=_serving(bento, path),
        host=settings.host,
        socket=str(path),
        health="/readyz",
        environment=variables,
    )


def note_lookup(settings: Settings, release: Release, online: Path | str | None, moment: datetime | None) -> Path:
    """Write down where a release looks up features, and as of when; it holds whenever the release is served again."""
    path = settings.state / "supervisor" / "homes" / program_name(release.case, release.digest) / "online.json"
    if online:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = {ONLINE_REPOSITORY: str(online)} | ({ONLINE_MOMENT: moment.isoformat()} if moment else {})
        write_text(path, json.dumps(place))
    return path


def release_socket(state: Path, name: str) -> Path:
    """Where the release of a program's name listens: by its digest alone, since the path of a socket is short."""
    return socket_path(state / "sockets", f"{name.rpartition('-')[2]}.sock")


def on_socket(program: Program, settings: Settings) -> Program:
    """A release's program as it is now, from one of an earlier version, which listened on a port."""
    case, _, digest = program.name.removeprefix("release-").rpartition("-")
    path = release_socket(settings.state, program.name)
    command = _serving(bento_folder(settings.state / "bentoml", f"{case}:{digest}"), path)
    return program.model_copy(update={"port": 0, "socket": str(path), "command": command})


def _serving(bento: Path, path: Path) -> list[str]:
    if FORKING:  # a path within the repository, which restored programs may find elsewhere
        return [sys.executable, "-I", "-S", "tasks/serve/forks.py", str(bento), str(path)]
    return serve_command(bento, path)


def fork_server(settings: Settings) -> Program:
    """What the processes of releases are forks of; it has no port, since it answers programs beside it alone."""
    command = [sys.executable, "-m", "tasks.serve.fork_server"]
    return Program(name=FORKS, command=command, host=settings.host, environment={"OMP_NUM_THREADS": "1"})
