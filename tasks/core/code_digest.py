"""Digests of the code that a result depends on, and the cache keys that contain them."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of

ROOT = Path(__file__).resolve().parents[2]  # a Bento has this module, and no settings
PACKAGES = ("tasks", "services")
# import names that differ from the name of the installed distribution
DISTRIBUTIONS = {
    "markdown_it": "markdown-it-py",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
    "_bentoml_impl": "bentoml",
    "dotenv": "python-dotenv",
    "bs4": "beautifulsoup4",
    "cyclonedx": "cyclonedx-python-lib",
    "fpdf": "fpdf2",
    "openlineage": "openlineage-python",
}
# Patterns, since parsing fifty files takes 0.1 s. A test compares them with Python's own parser.
FROM = re.compile(r"^[ \t]*from ([\w.]+) import (\([^)]*\)|[^\n(]+)", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*import ([\w., ]+?)(?:[ \t]*#.*)?$", re.MULTILINE)
FOR_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+.*\n|\n)+", re.MULTILINE)
# strings name modules for `python -m`, and for Feast and Great Expectations, which import by name
NAMED = re.compile(rf"""["']((?:{"|".join(PACKAGES)})(?:\.\w+)+)["']""")


def cache_key(module: str, inputs: Any) -> str:
    """The cache key of an output: SHA-256 over its JSON-serializable inputs and its code, hex.

    `module` is the entry point of that code: `__name__`, unless another module does the work.
    """
    return digest_of([module, code_digest(module), inputs])


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 over a module, its import closure within Driftline, and the versions of imported packages; hex."""
    return _tree().digest(module)


@functools.cache
def _tree() -> SourceTree:
    return SourceTree(ROOT)


@dataclass(frozen=True)
class Module:
    """A source file and its imports."""

    path: Path
    content: bytes
    own_modules: frozenset[str]  # names that may be modules of Driftline
    packages: frozenset[str]  # import names of installed packages


class SourceTree:
    """Driftline's modules under a folder, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, Module | None] = {}

    def closure(self, *entries: str, without: Iterable[str] = ()) -> list[Module]:
        """The transitive imports of the entries, in functions too, with their packages; sorted by path.

        Imports for type checking alone do not count. Raises: ValueError when an entry is not a module of Driftline.
        """
        if unknown := [name for name in entries if self._module(name) is None]:
            raise ValueError(f"No module under {self._root} is called {', '.join(unknown)}.")
        closure: dict[str, Module] = {}
        names = [*entries]
        while names:
            name = names.pop()
            module = self._module(name)
            if module is None or name in closure or name in without:
                continue
            closure[name] = module
            names.extend(name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))
            names.extend(module.own_modules)
        return sorted(closure.values(), key=lambda module: module.path)

    def digest(self, entry: str) -> str:
        """SHA-256 over the closure of an entry, and the versions of the packages that it imports; hex."""
        digest = hashlib.sha256()
        modules = self.closure(entry)
        for module in modules:
            digest.update(f"{module.path.relative_to(self._root)}\0{len(module.content)}\0".encode() + module.content)
        for package in sorted(frozenset().union(*(module.packages for module in modules))):
            digest.update(f"{package}=={installed_version(package)}\0".encode())
        return digest.hexdigest()

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            path = self._root.joinpath(*name.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            self._modules[name] = read_module(path) if path.is_file() else None
        return self._modules[name]


def read_module(path: Path) -> Module:
    """Read a file and its imports."""
    content = path.read_bytes()
    own_modules, packages = imports_of(content.decode())
    return Module(path, content, own_modules, packages)


def imports_of(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a source imports: modules or members of Driftline, and packages."""
    source = FOR_TYPES.sub("", source)
    names = {part.split()[0] for match in IMPORT.findall(source) for part in match.split(",") if part.strip()}
    for origin, imported in FROM.findall(source):
        parts = re.sub(r"#.*", "", imported).strip("() \t\n").split(",")
        names |= {origin, *(f"{origin}.{part.split()[0]}" for part in parts if part.strip())}
    for name in NAMED.findall(source):
        names |= {name, name.rpartition(".")[0]}  # the string may name a class of a module
    own_modules = frozenset(name for name in names if name.partition(".")[0] in PACKAGES)
    others = {name.partition(".")[0] for name in names - own_modules}
    return own_modules, frozenset(others - sys.stdlib_module_names)


@functools.cache
def installed_version(package: str) -> str:
    """The version of the distribution behind an import name; "none" when it is not installed."""
    try:
        about = distribution(DISTRIBUTIONS.get(package, package)).read_text("METADATA") or ""
    except PackageNotFoundError:
        return "none"
    match = re.search(r"^Version: *(\S+)", about, re.MULTILINE)  # parsing all metadata takes ten times as long
    return match[1] if match else "none"
