"""Process helpers: garbage collection, death with the parent, the current user."""

from __future__ import annotations

import gc
import os
import pwd
import sys

# The kernel ends the command when its parent dies, even by kill -9, so no server is left behind. One line, since
# supervisord's configuration allows no more.
PARENT_DEATH_SCRIPT = (
    "import ctypes,os,signal,sys;p=int(sys.argv[1])or os.getppid();ctypes.CDLL(None).prctl(1,signal.SIGTERM);"
    "os.getppid()==p or sys.exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)


def tune_gc() -> None:
    """Raise the thresholds of the garbage collector, at the start of a process.

    Imports create millions of objects that stay; scanning them at the default rate took a fifth of each start.
    """
    gc.set_threshold(20_000, 10, 10)


def with_parent_death_signal(command: list[str], parent_pid: int | None = None) -> list[str]:
    """Wrap a command so that it ends with its parent process (on Linux; unchanged on other systems).

    parent_pid: the parent, which may end before the command starts; None: this process; 0: any parent.
    """
    parent = str(os.getpid() if parent_pid is None else parent_pid)
    return [sys.executable, "-c", PARENT_DEATH_SCRIPT, parent, *command] if sys.platform == "linux" else command


def current_user() -> str:
    """The user of this process by the system's record, since environment variables can be forged."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
