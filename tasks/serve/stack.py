"""The local stack: Prefect's and MLflow's servers and the served releases, under one supervisor, on loopback."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tasks.foundation.errors import Unavailable
from tasks.foundation.files import lock, tail
from tasks.foundation.settings import Settings, environment
from tasks.release.package import bento_folder
from tasks.release.process import free_port, serve_command, wait_until_ready
from tasks.release.results import Release
from tasks.serve.prefect_database import seed
from tasks.serve.results import Service
from tasks.serve.service import ONLINE_MOMENT, ONLINE_REPOSITORY, ONLINE_STORE
from tasks.serve.supervision import Program, Supervisor

Tell = Callable[[Service], None]


def up(settings: Settings, tell: Tell = lambda service: None, patience: float = 120) -> list[Service]:
    """Start what does not run yet, tell of each service once it is ready, and give them all.

    Raises: Unavailable when a port is taken by somebody else, or a service does not get ready.
    """
    start(settings)
    return wait(settings, tell, patience)


def start(settings: Settings) -> None:
    """Start what does not run yet, without waiting for it.

    Raises: Unavailable when a port is taken by somebody else.
    """
    supervisor = Supervisor(settings.state)
    with _changing(settings):
        running = supervisor.processes()
        servers = _servers(settings)
        for program, setting in servers:
            if not _runs(running, program.name) and _taken(program.host, program.port):
                raise _port_taken(program, setting)
        if not running:
            for program in supervisor.programs().values():
                if program.name.startswith("release-") and _taken(program.host, program.port):
                    supervisor.put(_on_port(program, free_port(program.host)))
        if any(program.name == "prefect" for program, _ in servers):
            seed(settings.state / "prefect")
        supervisor.start(_environment(settings))
        for program, _ in servers:
            if supervisor.programs().get(program.name) != program:
                supervisor.put(program)
            supervisor.run(program.name)


def wait(settings: Settings, tell: Tell = lambda service: None, patience: float = 120) -> list[Service]:
    """Wait until everything that was started is ready.

    Raises: Unavailable with the end of the log of the one that is not.
    """
    told: set[str] = set()
    deadline = time.monotonic() + patience
    while True:
        services = [service for service in state(settings) if service.state != "stopped"]
        for service in services:
            if service.state == "failed" or time.monotonic() > deadline:
                raise _did_not_start(service)
            if service.state == "ready" and service.name not in told:
                told.add(service.name)
                tell(service)
        if len(told) == len(services):
            return services
        time.sleep(0.2)


def down(settings: Settings) -> bool:
    """Stop the supervisor of this state folder and all that it started; False when it did not run."""
    with _changing(settings):
        return Supervisor(settings.state).stop()


def runs(settings: Settings) -> bool:
    """Is the stack of this state folder up?"""
    return Supervisor(settings.state).pid() is not None


def state(settings: Settings) -> list[Service]:
    """Each service of the stack, whether it runs or not, asked just now."""
    supervisor = Supervisor(settings.state)
    running = supervisor.processes()
    return [
        _service(supervisor, program, running.get(name))
        for name, program in sorted(supervisor.programs().items(), key=lambda item: (item[0] != "prefect", item[0]))
    ]


def serve_release(
    settings: Settings,
    release: Release,
    online_repository: Path | str | None = None,
    online_moment: datetime | None = None,
    patience: float = 120,
) -> str:
    """Serve a release under the supervisor, beside those that are served already, and give its address once ready.

    `online_repository` is what materialise() gave: left-out features are looked up there, as of `online_moment` or
    now. A release that is served already keeps its process, unless these differ.

    Raises: Unavailable with the end of its log when it does not get ready; it is then stopped again.
    """
    supervisor = Supervisor(settings.state)
    name = program_name(release.case, release.digest)
    log = supervisor.log(name)
    with _changing(settings):
        known = supervisor.programs().get(name)
        keeps = known is not None and (_runs(supervisor.processes(), name) or not _taken(known.host, known.port))
        port = known.port if known and keeps else free_port(settings.host)
        program = _release_program(settings, release, port, online_repository, online_moment)
        since = log.stat().st_size if log.is_file() else 0
        if program != known:
            supervisor.put(program)
        supervisor.start(_environment(settings))
        supervisor.run(name)
    try:
        wait_until_ready(
            f"{program.address}{program.health}",
            name,
            log,
            patience,
            alive=lambda: supervisor.processes().get(name, {}).get("statename") in ("STARTING", "RUNNING"),
            since=since,
        )
    except Unavailable:
        stop_release(settings, release)
        raise
    return program.address


def stop_release(settings: Settings, release: Release) -> None:
    """Stop and forget a served release."""
    with _changing(settings):
        Supervisor(settings.state).remove(program_name(release.case, release.digest))


def log_of(settings: Settings, release: Release) -> Path:
    """The log of a served release."""
    return Supervisor(settings.state).log(program_name(release.case, release.digest))


def address_of(settings: Settings, release: Release) -> str | None:
    """Where a release is served now, or None."""
    name = program_name(release.case, release.digest)
    return next((s.address for s in state(settings) if s.name == name and s.state == "ready"), None)


def retire(settings: Settings, case: str, keep_digest: str) -> list[str]:
    """Stop the served releases of a case other than one, and give their names."""
    supervisor = Supervisor(settings.state)
    kept = program_name(case, keep_digest)
    with _changing(settings):
        names = [n for n in supervisor.programs() if n.rpartition("-")[0] == f"release-{case}" and n != kept]
        for name in names:
            supervisor.remove(name)
    return names


def program_name(case: str, digest: str) -> str:
    return f"release-{case}-{digest[:12]}"


def _servers(settings: Settings) -> Sequence[tuple[Program, str]]:
    """The servers that are ours to run, with the setting of each one's port."""
    servers = []
    if not settings.prefect_url:
        root = f"http://{settings.host}:{settings.prefect_port}"
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", settings.host]
        program = Program(
            name="prefect",
            command=[*command, "--port", str(settings.prefect_port)],
            host=settings.host,
            port=settings.prefect_port,
            health="/api/health",
            environment={"PREFECT_UI_API_URL": f"{root}/api", "PREFECT_API_URL": f"{root}/api"},
            starts_with_supervisor=False,
        )
        servers.append((program, "DRIFTLINE_PREFECT_PORT"))
    if not settings.tracking_url.startswith("http"):
        program = Program(
            name="mlflow",
            command=[sys.executable, "-m", "tasks.serve.tracking_server", str(settings.mlflow_port)],
            host=settings.host,
            port=settings.mlflow_port,
            health="/health",
            starts_with_supervisor=False,
        )
        servers.append((program, "DRIFTLINE_MLFLOW_PORT"))
    return servers


def _environment(settings: Settings) -> dict[str, str]:
    """What supervisord and so all programs get; secrets are among it, and only in here."""
    ours = {
        "DRIFTLINE_STATE": str(settings.state),
        "DRIFTLINE_HOST": settings.host,
        "DRIFTLINE_TRACKING_URL": settings.tracking_url,
        "DRIFTLINE_ARTIFACTS_URL": settings.artifacts_url,
        ONLINE_STORE: settings.online_store,
    }
    return {**environment(settings), **ours}


def _release_program(
    settings: Settings, release: Release, port: int, online: Path | str | None, moment: datetime | None
) -> Program:
    name = program_name(release.case, release.digest)
    home = settings.state / "supervisor" / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENTOML_HOME": str(home),  # of its own: a starting server empties the metrics of all others in its home
        # one row is slower with more threads than one, a language model's answer faster
        "OMP_NUM_THREADS": str(settings.threads if release.kind == "llm" else 1),
        "PYTHONSAFEPATH": "1",  # the Bento's code answers, not that of the folder it is started in
    }
    if online:
        variables[ONLINE_REPOSITORY] = str(online)
    if moment:
        variables[ONLINE_MOMENT] = moment.isoformat()
    bento = bento_folder(settings.state / "bentoml", release.bento)
    return Program(
        name=name,
        command=serve_command(bento, settings.host, port),
        host=settings.host,
        port=port,
        health="/readyz",
        environment=variables,
    )


def _on_port(program: Program, port: int) -> Program:
    command = [*program.command[:-1], str(port)]
    return program.model_copy(update={"port": port, "command": command})


def _service(supervisor: Supervisor, program: Program, process: dict | None) -> Service:
    said = process["statename"] if process else "STOPPED"
    told = {"STARTING": "starting", "BACKOFF": "starting", "RUNNING": "starting", "FATAL": "failed", "EXITED": "failed"}
    now = told.get(said, "stopped")
    if said == "RUNNING" and _answers(f"{program.address}{program.health}"):
        now = "ready"
    lives = process is not None and process["pid"] > 0
    return Service(
        name=program.name,
        state=now,
        address=program.address,
        pid=process["pid"] if process and lives else None,
        uptime_s=float(process["now"] - process["start"]) if process and lives else None,
        log=str(supervisor.log(program.name)),
    )


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _runs(processes: dict[str, dict], name: str) -> bool:
    return processes.get(name, {}).get("statename") in ("STARTING", "RUNNING", "BACKOFF")


def _taken(host: str, port: int) -> bool:
    """Does anybody listen there? As servers do, we may use a port whose last connections are still closing."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _changing(settings: Settings) -> Iterator[None]:
    """One change of the stack at a time."""
    with lock(settings.state / "supervisor" / "changing.lock", "The local stack", wait=True):
        yield


def _port_taken(program: Program, setting: str) -> Unavailable:
    return Unavailable(
        f"Port {program.port}, for {program.name}, is taken by another program.",
        where=program.address,
        allowed="a free port",
        todo=f"Stop that program, or set {setting} to another port in .env or the environment.",
    )


def _did_not_start(service: Service) -> Unavailable:
    return Unavailable(
        f"{service.name} did not get ready ({service.state}).",
        where=f"{service.address}, log {service.log}",
        found=tail(Path(service.log)) or "an empty log",
        todo="Correct what the log names, and start again.",
    )
