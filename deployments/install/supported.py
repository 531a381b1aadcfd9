"""Says in one sentence why Driftline can't be installed with this Python, before anything is installed.

Python 2.7 and later can read this file, so that an old Python says what it lacks rather than `SyntaxError`.
"""

import os
import platform
import struct
import subprocess
import sys

OLDEST, NEWEST = (3, 11, 2), (3, 14)  # as in pyproject.toml and the locks
GLIBC, MACOS = (2, 28), (14, 0)  # torch's wheels need these
MACHINES = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64",)}
OTHER = "Use another one: make setup PYTHON=python3.13"


def refusal():
    """The sentence, or an empty text when this Python and this system are supported."""
    return _python() or _system() or _tools()


def _python():
    implementation = platform.python_implementation()
    if implementation != "CPython" or sys.version_info[:3] < OLDEST or sys.version_info[:2] > NEWEST:
        return "{} is {} {}; Driftline runs on CPython {} to {}. {}".format(
            sys.executable, implementation, platform.python_version(), _text(OLDEST), _text(NEWEST), OTHER
        )
    if "t" in getattr(sys, "abiflags", ""):
        return "{} is a free-threaded build, which Driftline's packages don't support. {}".format(sys.executable, OTHER)
    if struct.calcsize("P") != 8:
        return "{} is a 32-bit build, and torch needs a 64-bit one. {}".format(sys.executable, OTHER)
    return ""


def _system():
    system, machine = sys.platform, platform.machine()
    if machine not in MACHINES.get(system, ()):
        return "This Python is built for {} on {}; Driftline runs on Linux (x86_64, aarch64) and macOS (arm64).".format(
            platform.system() or system, machine or "an unknown processor"
        )
    if system == "darwin" and _version(platform.mac_ver()[0]) < MACOS:
        return "macOS {} is too old: torch needs macOS {}.".format(platform.mac_ver()[0], _text(MACOS))
    if system == "linux":
        name, version = _libc()
        if name != "glibc":
            return "This Python uses {} as C library; torch needs glibc {} or newer.".format(name, _text(GLIBC))
        if _version(version) < GLIBC:
            return "glibc {} is too old: torch needs glibc {} or newer.".format(version, _text(GLIBC))
    return ""


def _tools():
    import importlib.util

    if all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return ""
    return "{} can't make a virtual environment. On Debian and Ubuntu: apt-get install python{}.{}-venv".format(
        sys.executable, *sys.version_info[:2]
    )


def difference(python):
    """The sentence that this is another Python than that of an environment; empty when it is the same."""
    show = "import platform; print(platform.python_version())"
    version = subprocess.check_output([python, "-c", show]).decode().strip()
    if version == platform.python_version():
        return ""
    return "The virtual environment has Python {}, and {} is {}. To build it anew: make clean, then make setup.".format(
        version, sys.executable, platform.python_version()
    )


def _libc():
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):  # musl knows no such name
        return "musl or an unknown one", ""
    return name, version


def _version(text):
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _text(version):
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(refusal() or (difference(sys.argv[1]) if sys.argv[1:] else "") or 0)
