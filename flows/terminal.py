"""A run as the terminal sees it: each step with its seconds and its key figure, alive while it lasts."""

from __future__ import annotations

import contextlib
import importlib
import os
import pwd
import secrets
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.table import Table
from rich.text import Text

from flows.case import load
from tasks.foundation.errors import Unavailable
from tasks.foundation.peer import socket_user
from tasks.foundation.progress import Step, listening
from tasks.foundation.settings import AUTH_STRINGS, USER, settings
from tasks.foundation.shown import one_line, visible

TAG = "driftline"  # of each of our runs
PATIENCE = 20.0  # seconds that a busy server may take to say that it is there


class Terminal(Console):
    """A console to which every string is a text and never markup: styles come as rich's Text, see `styled`."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def status(self, status: RenderableType, **options: Any) -> Status:
        return super().status(Text(one_line(status)) if isinstance(status, str) else status, **options)


class Lines(Table):
    """A table without lines around it, whose cells have one line each."""

    def __init__(self, *columns: str, **options: Any) -> None:
        super().__init__(*columns, **{"box": None, "pad_edge": False, "header_style": "dim", **options})

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(one_line(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def styled(text: str, style: str) -> Text:
    return Text(visible(text), style)


console = Terminal(highlight=False, soft_wrap=True, markup=False, emoji=False)
if not console.is_terminal:
    console.width = 160  # in a file or a pipe nothing need be cut


def run_told(
    flow: str,
    case: str,
    as_of: datetime | None,
    profile: str | None,
    steps: Steps | None = None,
    model: Path | None = None,
) -> Any:
    """Run flows.FLOW as of a moment, as `play` does."""
    return play(flow, {"case": case, "as_of": as_of, "profile": profile, "by": person(), "model": model}, steps)


def person() -> str:
    """Who runs this process, as the system knows them: variables can say anything."""
    return pwd.getpwuid(os.getuid()).pw_name


def play(flow: str, request: dict[str, Any], steps: Steps | None = None) -> Any:
    """Run flows.FLOW in this process and give its result; on our Prefect server when it is up, else on one of its own.

    Raises: whatever the flow raises; a wrong case before anything is imported.
    """
    case, profile = request["case"], request["profile"]
    load(case, settings().cases, profile)
    server = contextlib.nullcontext() if reach_prefect() else guarding_own_server()
    told = steps or Steps()
    with told, listening(told):
        told.say("starting")
        from prefect import tags

        made = getattr(importlib.import_module(f"flows.{flow}"), flow)
        with server, tags(TAG, case, *([profile] if profile else [])):
            result = made(request)
    console.print(_ending(result))
    return result


def reach_prefect() -> bool:
    """Point this process at the Prefect server of the settings when it answers; without one, Prefect starts its own.

    Where nobody listens that is known at once; one that is busy is waited for, as a server of our own takes longer.

    Raises: Unavailable when the server demands another auth string than ours.
    """
    here = settings()
    if not here.prefect_url and here.prefect_auth:
        require_own_server(here.host, here.prefect_port)
    asked = urllib.request.Request(f"{here.prefect_api}/admin/version", headers=here.prefect_headers)
    try:
        urllib.request.urlopen(asked, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise Unavailable(
                "Prefect's server refuses us.",
                where=here.prefect_api,
                found="another auth string" if here.prefect_headers else "no auth string",
                todo="Set PREFECT_SERVER_API_AUTH_STRING (of a server elsewhere: PREFECT_API_AUTH_STRING) in .env.",
            ) from error
        return False
    except OSError:
        return False
    os.environ["PREFECT_API_URL"] = here.prefect_api
    if here.prefect_auth:  # it may be newer than this process
        os.environ["PREFECT_API_AUTH_STRING"] = here.prefect_auth
    return True


def require_own_server(host: str, port: int) -> None:
    """Look who listens there before our login is sent: while the stack is down, another user may take its port.

    Raises: Unavailable when it is not a program of this user's. Systems other than Linux don't tell.
    """
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=PATIENCE) as probe:
        probe.sendall(f"GET /api/health HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        probe.recv(1)  # from here on, the connection has an owner
        user = socket_user(probe.getpeername()[:2], probe.getsockname()[:2])
        if sys.platform == "linux" and user != os.getuid():
            raise Unavailable(
                "Another user's program listens at the port of our Prefect server.",
                where=f"{host}:{port}",
                found="a program of nobody known" if user is None else f"a program of user {user}",
                allowed=f"one of user {os.getuid()}, which `driftline up` starts",
                todo="End that program, or set DRIFTLINE_PREFECT_PORT to another port.",
            )


@contextlib.contextmanager
def guarding_own_server() -> Iterator[None]:
    """Have the server that Prefect starts for this run ask for a login, which nobody else knows."""
    from prefect.context import refresh_global_settings_context

    before = {name: os.environ[name] for name in AUTH_STRINGS if name in os.environ}
    login = settings().prefect_auth or f"{USER}:{secrets.token_urlsafe(32)}"
    os.environ.update(dict.fromkeys(AUTH_STRINGS, login))
    refresh_global_settings_context()
    try:
        yield
    finally:
        for name in AUTH_STRINGS:
            os.environ.pop(name)
        os.environ.update(before)


class Steps:
    """Prints each step as it ends; says what runs meanwhile: a spinner on a terminal, a line now and then elsewhere."""

    def __init__(self, patience: float = 5.0, deepest: int = 9) -> None:
        self.done: list[Step] = []
        self._deepest = deepest  # what lies deeper is said while it runs, and leaves no line
        self._spinner = Status("", console=console)
        self._patience = patience
        self._running, self._since = "", 0.0
        self._over = threading.Event()

    def __enter__(self) -> Steps:
        if console.is_terminal:
            self._spinner.start()
        else:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._spinner.stop()

    def __call__(self, step: Step) -> None:
        if step.seconds is None:
            self.say(step.title)
            return
        self.done.append(step)
        self._running = ""
        if step.depth > self._deepest and not step.failed:
            return
        seconds = f"{step.seconds:5.1f} s"
        mark = styled("failed", "red") if step.failed else styled("cached", "dim") if step.cached else Text(seconds)
        title = f"  {'  ' * step.depth + one_line(step.title):<34} "
        console.print(Text.assemble("  ", " " * (7 - len(mark)), mark, title, styled(one_line(step.figure), "dim")))

    def say(self, text: str) -> None:
        self._running, self._since = text, self._since if text == self._running else time.monotonic()
        self._spinner.update(Text(f"{one_line(text)} ..."))

    def _tick(self) -> None:
        """Say what runs and for how long, ever more rarely as long as it is the same."""
        said, due, wait = "", 0.0, self._patience
        while not self._over.wait(self._patience):
            due = due - self._patience if self._running == said else 0.0
            if self._running and due <= 0:
                wait = min(2 * wait, 60.0) if self._running == said else self._patience
                said, due = self._running, wait
                console.print(f"           {said} ... {time.monotonic() - self._since:.0f} s")


def _ending(result: Any) -> str:
    """A result in a line or a small table."""
    from tasks.monitor.results import Decision
    from tasks.replay.results import Replayed

    given = result
    if isinstance(given, Replayed):
        from tasks.replay.report import lines as table

        return f"{table(given.figures)}\nreport: {given.page}"
    if hasattr(given, "verdict"):
        from tasks.evaluate.report import lines

        return lines(given.verdict)
    if isinstance(given, Decision):
        return f"decision: {given.action}\n" + "\n".join(f"  - {reason}" for reason in given.reasons)
    if getattr(given, "decision", None) is not None:
        return _ending(given.decision) + (f"\n{_ending(given.release)}" if given.release else "")
    if hasattr(given, "bento"):
        return f"release {given.digest[:12]} is champion of {given.case}: driftline show {given.case}"
    if hasattr(given, "folder"):
        return f"predictions: {given.folder}"
    return f"snapshot {given.digest}: {given.path}"
