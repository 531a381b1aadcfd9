"""The local stack: Prefect's and MLflow's servers and the served releases, under one supervisor, on loopback."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from services.runtime.prefect_database import seed
from services.runtime.process_specs import (
    FORKS,
    USES_FORKS,
    current_form,
    fork_server_program,
    release_program,
    release_program_name,
    release_socket,
)
from services.runtime.results import Service
from services.runtime.supervision import Program, Supervisor
from services.serving.process import wait_until_ready
from tasks.core.errors import Unavailable
from tasks.core.files import lock, tail
from tasks.core.permissions import make_all_private
from tasks.core.settings import Settings, create_login, environment
from tasks.core.sockets import http_client, make_socket_folder
from tasks.release.results import Release

OnReady = Callable[[Service], None]
Servers = Sequence[tuple[Program, str]]  # with the setting of each one's port


def up(
    settings: Settings, servers: Servers, on_ready: OnReady = lambda service: None, timeout: float = 120
) -> list[Service]:
    """Start what does not run yet, tell of each service once it is ready, and give them all.

    Raises: Unavailable when a port is taken by somebody else, or a service does not get ready.
    """
    start(settings, servers)
    return wait(settings, on_ready, timeout)


def start(settings: Settings, servers: Servers) -> None:
    """Start what does not run yet of these servers and the served releases, without waiting for it.

    Raises: Unavailable when a port is taken by somebody else.
    """
    supervisor = Supervisor(settings.state)
    create_login(settings)
    with _stack_lock(settings):
        running = supervisor.processes()
        held = {program.port for name, program in supervisor.programs().items() if _is_live(running, name)}
        for program, setting in servers:
            if program.port not in held and _port_in_use(program.host, program.port):
                raise _port_taken(program, setting)
        for program in [p for p in supervisor.programs().values() if p.name.startswith("release-")]:
            make_socket_folder(release_socket(settings.state, program.name))
            if not running:
                supervisor.put(current_form(program, settings))
        if not settings.prefect_database and any(program.name == "prefect" for program, _ in servers):
            seed(settings.state / "prefect")
        if not running:
            for folder in settings.private_folders:
                make_all_private(folder)
        supervisor.start(_environment(settings))
        if any(name.startswith("release-") for name in supervisor.programs()):
            _run_fork_server(supervisor, settings)
        for name in supervisor.programs().keys() - {program.name for program, _ in servers}:
            if not name.startswith(("release-", FORKS)):  # a program of an earlier version
                supervisor.remove(name)
        for program, _ in servers:
            if supervisor.programs().get(program.name) != program:
                supervisor.put(program)
            supervisor.run(program.name)


def wait(settings: Settings, on_ready: OnReady = lambda service: None, timeout: float = 120) -> list[Service]:
    """Wait until everything that was started is ready.

    Raises: Unavailable with the end of the log of the one that is not.
    """
    told: set[str] = set()
    deadline = time.monotonic() + timeout
    while True:
        services = [service for service in list_services(settings) if service.state != "stopped"]
        for service in services:
            if service.state == "failed" or time.monotonic() > deadline:
                raise _not_ready(service)
            if service.state == "ready" and service.name not in told:
                told.add(service.name)
                on_ready(service)
        if len(told) == len(services):
            return services
        time.sleep(0.2)


def down(settings: Settings) -> bool:
    """Stop the supervisor of this state folder and all that it started; False when it did not run."""
    with _stack_lock(settings):
        return Supervisor(settings.state).stop()


def is_running(settings: Settings) -> bool:
    """Is the stack of this state folder up?"""
    return Supervisor(settings.state).pid() is not None


def list_services(settings: Settings) -> list[Service]:
    """Each service of the stack, whether it runs or not, asked just now."""
    supervisor = Supervisor(settings.state)
    running = supervisor.processes()
    programs = sorted(supervisor.programs().values(), key=lambda program: (program.name != "prefect", program.name))
    with ThreadPoolExecutor(8) as asking:  # at once: one that hangs takes 2 s to say nothing
        return list(asking.map(lambda program: _service(supervisor, program, running.get(program.name)), programs))


def serve_release(
    settings: Settings,
    release: Release,
    online_repository: Path | str | None = None,
    online_moment: datetime | None = None,
    timeout: float = 120,
) -> str:
    """Serve a release under the supervisor, beside those that are served already, and give its address once ready.

    `online_repository` is what materialise() gave: left-out features are looked up there, as of `online_moment` or
    now; without, where this release's last were. One that is served already keeps its process, unless these differ.

    Raises: Unavailable with the end of its log when it does not get ready; it is then stopped again.
    """
    supervisor = Supervisor(settings.state)
    name = release_program_name(release.case, release.digest)
    log = supervisor.log(name)
    with _stack_lock(settings):
        program = release_program(settings, release, online_repository, online_moment)
        since = log.stat().st_size if log.is_file() else 0
        make_socket_folder(Path(program.socket))
        if program != supervisor.programs().get(name):
            supervisor.put(program)
        supervisor.start(_environment(settings))
        _run_fork_server(supervisor, settings)
        supervisor.run(name)
    try:
        _wait_for(supervisor, program, timeout, since)
    except Unavailable:
        stop_release(settings, release)
        raise
    return program.address


def restart(settings: Settings, name: str, timeout: float = 120) -> None:
    """Start a program anew, and wait until it is ready; a release of an earlier version leaves its port for a socket.

    Raises: Unavailable with the end of its log when it does not get ready.
    """
    supervisor = Supervisor(settings.state)
    log = supervisor.log(name)
    since = log.stat().st_size if log.is_file() else 0
    program = supervisor.programs()[name]
    with _stack_lock(settings):
        if name.startswith("release-") and program != (current := current_form(program, settings)):
            supervisor.put(current)
            supervisor.run(name)
        else:
            supervisor.restart(name)
    _wait_for(supervisor, supervisor.programs()[name], timeout, since)


def stop_release(settings: Settings, release: Release) -> None:
    """Stop and forget a served release."""
    with _stack_lock(settings):
        Supervisor(settings.state).remove(release_program_name(release.case, release.digest))


def release_log(settings: Settings, release: Release) -> Path:
    """The log of a served release."""
    return Supervisor(settings.state).log(release_program_name(release.case, release.digest))


def release_address(settings: Settings, release: Release) -> str | None:
    """Where a release is served now, or None."""
    name = release_program_name(release.case, release.digest)
    return next((s.address for s in list_services(settings) if s.name == name and s.state == "ready"), None)


def retire_releases(settings: Settings, case: str, keep: Collection[str]) -> list[str]:
    """Stop the served releases of a case other than those of these digests, and give their names."""
    supervisor = Supervisor(settings.state)
    kept = {release_program_name(case, digest) for digest in keep}
    with _stack_lock(settings):
        names = [n for n in supervisor.programs() if n.rpartition("-")[0] == f"release-{case}" and n not in kept]
        for name in names:
            supervisor.remove(name)
    return names


def _run_fork_server(supervisor: Supervisor, settings: Settings) -> None:
    if USES_FORKS:
        supervisor.put(fork_server_program(settings))
        supervisor.run(FORKS)


def _environment(settings: Settings) -> dict[str, str]:
    """What supervisord and so all programs get; secrets are among it, and only in here."""
    return {**environment(settings), **settings.variables}


def _service(supervisor: Supervisor, program: Program, process: dict | None) -> Service:
    said = process["statename"] if process else "STOPPED"
    told = {"STARTING": "starting", "BACKOFF": "starting", "RUNNING": "starting", "FATAL": "failed", "EXITED": "failed"}
    now = told.get(said, "stopped")
    answers = _is_healthy(program) if program.address else said == "RUNNING"
    if said in ("STARTING", "RUNNING") and answers:
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


def _wait_for(supervisor: Supervisor, program: Program, timeout: float, since: int) -> None:
    if not program.address:
        return  # who needs it waits for it
    wait_until_ready(
        f"{program.address}{program.health}",
        program.name,
        supervisor.log(program.name),
        timeout,
        alive=lambda: supervisor.processes().get(program.name, {}).get("statename") in ("STARTING", "RUNNING"),
        since=since,
    )


def _is_healthy(program: Program) -> bool:
    import httpx

    try:
        with http_client(program.address, timeout=2) as client:
            return client.get(program.health).is_success
    except httpx.HTTPError:
        return False


def _is_live(processes: dict[str, dict], name: str) -> bool:
    return processes.get(name, {}).get("statename") in ("STARTING", "RUNNING", "BACKOFF")


def _port_in_use(host: str, port: int) -> bool:
    """Does anybody listen there? As servers do, we may use a port whose last connections are still closing."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _stack_lock(settings: Settings) -> Iterator[None]:
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


def _not_ready(service: Service) -> Unavailable:
    return Unavailable(
        f"{service.name} did not get ready ({service.state}).",
        where=f"{service.address}, log {service.log}",
        found=tail(Path(service.log)) or "an empty log",
        todo="Correct what the log names, and start again.",
    )
