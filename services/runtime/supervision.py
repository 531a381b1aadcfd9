"""Supervisord for one state folder: its configuration, start, stop and programs."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from pydantic import Field

from tasks.core.config import Result
from tasks.core.errors import Unavailable
from tasks.core.files import is_alive, tail, write_text
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT
from tasks.core.sockets import UNIX_SCHEME, make_socket_folder, short_socket_path


class Program(Result):
    """A supervised process; one with a port or a socket answers 2xx at `health` when it is ready."""

    name: str
    command: list[str]
    host: str
    port: int = 0
    socket: str = ""  # path of a Unix socket
    health: str = ""
    environment: dict[str, str] = Field(
        default_factory=dict
    )  # without secrets, which supervisord's own environment has
    starts_with_supervisor: bool = True

    @property
    def address(self) -> str:
        if self.socket:
            return f"{UNIX_SCHEME}{self.socket}"
        return f"http://{self.host}:{self.port}" if self.port else ""


class Supervisor:
    """The supervisord of a state folder, whether it runs or not."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "supervisor"
        self.logs = state / "logs"

    @property
    def socket(self) -> Path:
        """In the folder, or, where that path is too long for a socket, in a short one that only this user can enter."""
        return short_socket_path(self.folder, "supervisor.sock")

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @contextlib.contextmanager
    def rpc(self) -> Any:
        """Supervisor's XML-RPC interface, over its socket.

        Raises: Unavailable when it does not answer.
        """
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        try:
            yield ServerProxy("http://127.0.0.1", transport=transport).supervisor
        except OSError as error:
            raise Unavailable(
                "The local stack is not running.", where=str(self.socket), found=str(error), todo="driftline up"
            ) from error
        finally:
            transport.close()

    def pid(self) -> int | None:
        """The process id of supervisord; None when it does not run."""
        try:
            with self.rpc() as supervisor:
                return int(supervisor.getPID())
        except Unavailable:
            return None

    def start(self, environment: Mapping[str, str], timeout: float = 20) -> None:
        """Start supervisord in the background unless it runs, with the programs that start with it.

        Raises: Unavailable when it does not start.
        """
        if self.pid() is not None:
            return
        (self.folder / "programs").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.logs.mkdir(parents=True, exist_ok=True)
        make_socket_folder(self.socket)
        template = (ROOT / "deployments" / "local" / "supervisord.conf").read_text(encoding="utf-8")
        places = {"directory": self.folder, "logs": self.logs, "socket": self.socket}
        values = {name: str(path).replace("%", "%%") for name, path in places.items()}
        configuration = write_text(self.folder / "supervisord.conf", template.format(**values))
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + timeout
        while self.pid() is None:
            if done.returncode != 0 or time.monotonic() > deadline:
                raise Unavailable(
                    "The supervisor of the local stack did not start.",
                    where=str(self.logs / "supervisord.log"),
                    found=(done.stderr or done.stdout).strip() or tail(self.logs / "supervisord.log", 5),
                    todo="Correct what it names, and restart.",
                )
            time.sleep(0.05)

    def stop(self, timeout: float = 60) -> bool:
        """Stop supervisord and its programs, and wait for their end; False when it did not run.

        Raises: Unavailable when they don't end.
        """
        pid = self.pid()
        if pid is None:
            return False
        with contextlib.suppress(Fault), self.rpc() as supervisor:  # a fault: it is already shutting down
            supervisor.shutdown()
        deadline = time.monotonic() + timeout
        pidfile = self.folder / "supervisord.pid"  # a container without an init keeps ended processes as zombies
        while pidfile.exists() and is_alive(pid):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The local stack did not end in {timeout:.0f} s.",
                    where=f"process {pid}",
                    todo=f"Look at {self.logs / 'supervisord.log'}.",
                )
            time.sleep(0.05)
        return True

    def put(self, program: Program) -> None:
        """Write a program's configuration, which `run` or the next start reads."""
        environment = ",".join(f'{name}="{value}"' for name, value in sorted(program.environment.items()))
        values = {
            "command": " ".join(shlex.quote(part) for part in with_parent_death_signal(program.command, 0)),
            "directory": str(ROOT),
            "environment": environment,
            "autostart": str(program.starts_with_supervisor).lower(),
            "autorestart": "true",
            "startsecs": "3",  # an earlier end counts as failed; after a few of those supervisord gives up
            "startretries": "3",
            "stopwaitsecs": "15",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(self.log(program.name)).replace("%", "%%"),  # supervisor expands this one twice
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
        lines = [f"{name}={value.replace('%', '%%')}" for name, value in values.items()]
        write_text(self._file(program.name, "json"), program.model_dump_json(indent=1))
        write_text(self._file(program.name), "\n".join([f"[program:{program.name}]", *lines, ""]))

    def programs(self) -> dict[str, Program]:
        """The configured programs by name."""
        files = sorted((self.folder / "programs").glob("*.json"))
        return {path.stem: Program.model_validate_json(path.read_bytes()) for path in files}

    def run(self, name: str) -> None:
        """Have the supervisor read a program's configuration, and start the program unless it runs."""
        with self.rpc() as supervisor:
            _, changed, _ = supervisor.reloadConfig()[0]
            if name in changed:
                _remove(supervisor, name)
            with _ignore_faults("ALREADY_ADDED"):
                supervisor.addProcessGroup(name)
            with _ignore_faults("ALREADY_STARTED"):
                supervisor.startProcess(name, False)

    def restart(self, name: str) -> None:
        """Stop a program, once it has finished its requests, and start it."""
        with self.rpc() as supervisor:
            with _ignore_faults("NOT_RUNNING"):
                supervisor.stopProcess(name, True)
            supervisor.startProcess(name, False)

    def signal(self, name: str, signal: str) -> None:
        """Send a program's process a signal, such as HUP."""
        with self.rpc() as supervisor:
            supervisor.signalProcess(name, signal)

    def remove(self, name: str) -> None:
        """Stop a program, and remove its configuration."""
        self._file(name).unlink(missing_ok=True)
        self._file(name, "json").unlink(missing_ok=True)
        if self.pid() is not None:
            with self.rpc() as supervisor:
                _remove(supervisor, name)

    def processes(self) -> dict[str, dict[str, Any]]:
        """Supervisord's information on each program; empty when it does not run."""
        try:
            with self.rpc() as supervisor:
                return {info["name"]: info for info in supervisor.getAllProcessInfo()}
        except Unavailable:
            return {}

    def _file(self, name: str, kind: str = "conf") -> Path:
        return self.folder / "programs" / f"{name}.{kind}"


def _remove(supervisor: Any, name: str) -> None:
    with _ignore_faults("NOT_RUNNING", "BAD_NAME"):
        supervisor.stopProcess(name, True)
    with _ignore_faults("BAD_NAME"):
        supervisor.removeProcessGroup(name)


@contextlib.contextmanager
def _ignore_faults(*names: str) -> Any:
    """Ignore faults by name: they mean that there is nothing to do."""
    from supervisor.xmlrpc import Faults

    try:
        yield
    except Fault as fault:
        if fault.faultCode not in {getattr(Faults, name) for name in names}:
            raise
