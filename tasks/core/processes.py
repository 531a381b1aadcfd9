"""What the processes that we start have in common."""

from __future__ import annotations

import gc
import os
import pwd
import sys

# The system ends the command when its starter is gone, even by kill -9: no server is ever left behind. One line, since
# a supervisor's configuration takes no more.
PARENT_DEATH_SCRIPT = (
    "import ctypes,os,signal,sys;p=int(sys.argv[1])or os.getppid();ctypes.CDLL(None).prctl(1,signal.SIGTERM);"
    "os.getppid()==p or sys.exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)


def tune_gc() -> None:
    """For the begin of a process: what it imports are objects by the million, and they stay.

    To look through them as often as Python does by default took a fifth of every start.
    """
    gc.set_threshold(20_000, 10, 10)


def with_parent_death_signal(command: list[str], starter: int | None = None) -> list[str]:
    """The command, such that it ends with the process that starts it (on Linux; elsewhere as it is).

    starter: id of that process, which may be gone before the command begins; None: this one; 0: whoever it then is.
    """
    by = str(os.getpid() if starter is None else starter)
    return [sys.executable, "-c", PARENT_DEATH_SCRIPT, by, *command] if sys.platform == "linux" else command


def current_user() -> str:
    """Who runs this process, as the system knows them: variables can say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
