"""The local stack: Prefect's and MLflow's servers and the served releases, under one supervisor, on loopback."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

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
SERVICE_STATES = {  # of supervisord's; a starting service is ready once it answers
    "STARTING": "starting",
    "BACKOFF": "starting",
    "RUNNING": "starting",
    "FATAL": "failed",
    "EXITED": "failed",
}
Servers = Sequence[tuple[Program, str]]  # each with the setting of its port


def up(
    settings: Settings, servers: Servers, on_ready: OnReady = lambda service: None, timeout: float = 120
) -> list[Service]:
    """Start what does not run yet, call `on_ready` for each service, and return all of them.

    Raises: Unavailable when another program uses a port, or a service does not get ready.
    """
    start(settings, servers)
    return wait(settings, on_ready, timeout)


def start(settings: Settings, servers: Servers) -> None:
    """Start these servers and the served releases unless they run, without waiting for them.

    Raises: Unavailable when another program uses a port.
    """
    supervisor = Supervisor(settings.state)
    create_login(settings)
    with _stack_lock(settings):
        running = supervisor.processes()
        own_ports = {program.port for name, program in supervisor.programs().items() if _is_live(running, name)}
        for program, setting in servers:
            if program.port not in own_ports and is_port_in_use(program.host, program.port):
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
    """Wait until all started services are ready.

    Raises: Unavailable with the end of the log of the one that is not.
    """
    ready: set[str] = set()
    deadline = time.monotonic() + timeout
    while True:
        services = [service for service in list_services(settings) if service.state != "stopped"]
        for service in services:
            if service.state == "failed" or time.monotonic() > deadline:
                raise _not_ready(service)
            if service.state == "ready" and service.name not in ready:
                ready.add(service.name)
                on_ready(service)
        if len(ready) == len(services):
            return services
        time.sleep(0.2)


def down(settings: Settings) -> bool:
    """Stop the supervisor of this state folder and its programs; False when it did not run."""
    with _stack_lock(settings):
        return Supervisor(settings.state).stop()


def is_running(settings: Settings) -> bool:
    """Is the stack of this state folder running?"""
    return Supervisor(settings.state).pid() is not None


def list_services(settings: Settings) -> list[Service]:
    """The current state of each service of the stack."""
    supervisor = Supervisor(settings.state)
    running = supervisor.processes()
    programs = sorted(supervisor.programs().values(), key=lambda program: (program.name != "prefect", program.name))
    with ThreadPoolExecutor(8) as pool:  # in parallel: one that hangs takes 2 s
        return list(pool.map(lambda program: _service(supervisor, program, running.get(program.name)), programs))


def serve_release(
    settings: Settings,
    release: Release,
    online_repository: Path | str | None = None,
    online_moment: datetime | None = None,
    timeout: float = 120,
) -> str:
    """Serve a release under the supervisor, beside the others, and return its address once it is ready.

    `online_repository` is the folder that materialise() returned: features that a request leaves out are looked up
    there, as of `online_moment` or now; without it, where this release looked them up before. A served release keeps
    its process, unless these differ.

    Raises: Unavailable with the end of its log when it does not get ready; it is then stopped.
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
    """Restart a program, and wait until it is ready; a release that an earlier version started on a port gets a socket.

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
    """Stop a served release, and remove its program."""
    with _stack_lock(settings):
        Supervisor(settings.state).remove(release_program_name(release.case, release.digest))


def release_log(settings: Settings, release: Release) -> Path:
    """The log of a served release."""
    return Supervisor(settings.state).log(release_program_name(release.case, release.digest))


def release_address(settings: Settings, release: Release) -> str | None:
    """The address of a release that is served now, or None."""
    name = release_program_name(release.case, release.digest)
    return next((s.address for s in list_services(settings) if s.name == name and s.state == "ready"), None)


def retire_releases(settings: Settings, case: str, keep: Collection[str]) -> list[str]:
    """Stop the served releases of a case except those of these digests; returns their names."""
    supervisor = Supervisor(settings.state)
    remaining = {release_program_name(case, digest) for digest in keep}
    with _stack_lock(settings):
        names = [n for n in supervisor.programs() if n.rpartition("-")[0] == f"release-{case}" and n not in remaining]
        for name in names:
            supervisor.remove(name)
    return names


def _run_fork_server(supervisor: Supervisor, settings: Settings) -> None:
    if USES_FORKS:
        supervisor.put(fork_server_program(settings))
        supervisor.run(FORKS)


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of supervisord and its programs; it is the only place of their secrets."""
    return {**environment(settings), **settings.variables}


def _service(supervisor: Supervisor, program: Program, process: dict[str, Any] | None) -> Service:
    status = process["statename"] if process else "STOPPED"
    state = SERVICE_STATES.get(status, "stopped")
    answers = _is_healthy(program) if program.address else status == "RUNNING"
    if status in ("STARTING", "RUNNING") and answers:
        state = "ready"
    lives = process is not None and process["pid"] > 0
    return Service(
        name=program.name,
        state=state,
        address=program.address,
        pid=process["pid"] if process and lives else None,
        uptime_s=float(process["now"] - process["start"]) if process and lives else None,
        log=str(supervisor.log(program.name)),
    )


def _wait_for(supervisor: Supervisor, program: Program, timeout: float, since: int) -> None:
    if not program.address:
        return  # its clients wait for it
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


def _is_live(processes: dict[str, dict[str, Any]], name: str) -> bool:
    return processes.get(name, {}).get("statename") in ("STARTING", "RUNNING", "BACKOFF")


def is_port_in_use(host: str, port: int) -> bool:
    """Does a program listen there? A port whose last connections are closing is free, as it is for servers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _stack_lock(settings: Settings) -> Iterator[None]:
    """Lock the stack for one change at a time."""
    with lock(settings.state / "supervisor" / "changing.lock", "The local stack", wait=True):
        yield


def _port_taken(program: Program, setting: str) -> Unavailable:
    return Unavailable(
        f"Port {program.port}, for {program.name}, is used by another program.",
        where=program.address,
        allowed="a free port",
        todo=f"Stop that program, or set {setting} to another port in .env or the environment.",
    )


def _not_ready(service: Service) -> Unavailable:
    return Unavailable(
        f"{service.name} did not get ready ({service.state}).",
        where=f"{service.address}, log {service.log}",
        found=tail(Path(service.log)) or "an empty log",
        todo="Correct what the log names, and restart.",
    )
