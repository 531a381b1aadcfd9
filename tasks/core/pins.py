"""The pins of a lock file: one version of each package, with environment markers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def read_pins(lock: Path) -> dict[str, Requirement]:
    """The requirements of a lock file by normalized name, with markers and without hashes."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    pins: dict[str, Requirement] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        try:
            pin = Requirement(line.split("#")[0].rstrip("\\ "))
        except InvalidRequirement:
            continue  # a comment, a hash, an option or an empty line
        pins[canonicalize_name(pin.name)] = pin
    return pins


def lock_mismatches(lock: Path) -> list[str]:
    """Installed packages that differ from the lock for this Python and system, as `name version` or `name none`."""
    from importlib.metadata import PackageNotFoundError, version

    differing = []
    for name, pin in read_pins(lock).items():
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "none"
        if installed == "none" or not pin.specifier.contains(installed, prereleases=True):
            differing.append(f"{name} {installed}")
    return differing
