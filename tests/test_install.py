"""Promise: one sentence says what can't be installed, before anything is, and one line what a broken setup lacks."""

from __future__ import annotations

import ast
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.install import supported

ROOT = Path(__file__).resolve().parents[1]
INSTALL = ROOT / "deployments" / "install"
OTHER = """#!/bin/sh
exec {python} -c 'import platform, runpy, sys
sys.version_info = ({numbers}, "final", 0); platform.python_version = lambda: "{version}"
if sys.argv[1] == "-c": exec(sys.argv[2])
else: sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
"""


def other_python(path: Path, version: str) -> Path:
    """This Python under another version's name, as far as the check can see."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OTHER.format(python=sys.executable, numbers=version.replace(".", ", "), version=version))
    path.chmod(0o755)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What `make setup` needs of the repository, with an old `.venv/ready`, so that only the check could stop it."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(INSTALL, tmp_path / "deployments" / "install", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", *arguments], cwd=tree, env=others, capture_output=True, text=True, timeout=60)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line besides make's own. Asserts that it is one."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith("make: ***")]
    assert done.returncode != 0
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("version", ["3.8.18", "3.10.13", "3.11.0", "3.11.1", "3.15.0", "4.0.0"])
@pytest.mark.parametrize("target", ["setup", "demo", "test"])
def test_an_unsupported_python_is_refused_before_anything_is_installed(tree: Path, version: str, target: str):
    python = other_python(tree / "bin" / "python", version)
    found = sentence(make(tree, target, f"PYTHON={python}"))
    assert f"CPython {version}; Driftline runs on CPython 3.11.2 to 3.14. " in found
    assert "make setup PYTHON=" in found
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize("version", ["3.11.2", "3.11.14", "3.12.0", "3.13.9", "3.14.0"])
def test_every_promised_python_is_taken(tree: Path, version: str):
    python = other_python(tree / "bin" / "python", version)
    done = subprocess.run([python, INSTALL / "supported.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_python_that_is_not_there_is_named(tree: Path):
    assert "There is no python9.9; name one that is installed" in sentence(make(tree, "setup", "PYTHON=python9.9"))


def test_another_python_than_the_environments_is_refused(tree: Path):
    """The environment is not rebuilt behind anybody's back; without PYTHON= its own Python serves."""
    other_python(tree / ".venv" / "bin" / "python", "3.12.1")
    (tree / ".venv" / "bin" / "pip").touch(0o755)
    found = sentence(make(tree, "setup", f"PYTHON={sys.executable}"))
    assert f"has Python 3.12.1, and {sys.executable} is {platform.python_version()}" in found
    assert "make clean" in found
    (tree / ".venv" / "ready").touch()
    same = other_python(tree / "bin" / "python3.12", "3.12.1")
    for arguments in ((), (f"PYTHON={same}",)):
        done = make(tree, "setup", *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done


@pytest.mark.parametrize(
    ("system", "machine", "libc", "found"),
    [
        ("win32", "AMD64", "", "Driftline runs on Linux (x86_64, aarch64) and macOS (arm64)"),
        ("darwin", "x86_64", "", "Driftline runs on Linux (x86_64, aarch64) and macOS (arm64)"),
        ("linux", "armv7l", "glibc 2.36", "armv7l; Driftline runs on Linux"),
        ("linux", "riscv64", "glibc 2.41", "riscv64; Driftline runs on Linux"),
        ("linux", "x86_64", None, "torch needs glibc 2.28 or newer"),
        ("linux", "x86_64", "glibc 2.17", "glibc 2.17 is too old"),
        ("linux", "aarch64", "glibc 2.27", "glibc 2.27 is too old"),
        ("linux", "aarch64", "glibc 2.28", ""),
        ("linux", "x86_64", "glibc 2.100", ""),
    ],
)
def test_an_unsupported_system_is_named(monkeypatch, system: str, machine: str, libc: str | None, found: str):
    def confstr(name: str) -> str | None:
        if libc is None:
            raise ValueError("unrecognized configuration name")  # as on musl
        return libc

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(os, "confstr", confstr)
    refusal = supported.refusal()
    assert found in refusal if found else refusal == ""
    assert refusal.count("\n") == 0


@pytest.mark.parametrize(("version", "found"), [("13.6", "macOS 13.6 is too old"), ("14.0", ""), ("26.1.1", "")])
def test_macos_is_new_enough_for_torch(monkeypatch, version: str, found: str):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "mac_ver", lambda: (version, ("", "", ""), "arm64"))
    assert found in supported.refusal()
    assert bool(found) == bool(supported.refusal())


def test_other_builds_are_refused(monkeypatch):
    """A free-threaded build, a 32-bit one, and PyPy."""
    for where, name, value, found in (
        (sys, "abiflags", "t", "free-threaded"),
        (struct, "calcsize", lambda kind: 4, "32-bit"),
        (platform, "python_implementation", lambda: "PyPy", "PyPy"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            assert found in supported.refusal()
    assert supported.refusal() == ""


def test_a_python_without_venv_says_which_package_has_it():
    """Debian splits ensurepip off; a folder that hides it stands for that."""
    hide = (
        "import sys, importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == 'ensurepip' else f(n)"
    )
    run = f"{hide}; import runpy; runpy.run_path({str(INSTALL / 'supported.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_old_python_can_read_the_check():
    ast.parse((INSTALL / "supported.py").read_text(encoding="utf-8"), feature_version=(3, 4))


@pytest.mark.parametrize(
    ("package", "source", "module"),
    [
        ("redis", "raise ModuleNotFoundError(\"No module named 'async_timeout'\")", "prefect.server.api.server"),
        ("whole", "raise OSError('libgomp.so.1: cannot open\\nshared object file')", "whole"),
        ("whole", "def f(:", "whole"),
        ("whole", "import nowhere_at_all", "whole"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_in_one_line(tmp_path: Path, package: str, source: str, module: str):
    (tmp_path / f"{package}.py").write_text(source)
    done = subprocess.run(
        [sys.executable, INSTALL / "imports.py", module],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{module} can't be imported: ")
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_the_twelve_are_what_is_imported():
    """Each of the twelve packages is imported at the end of `make setup`, before anything else runs."""
    from deployments.install.imports import TWELVE

    twelve = "prefect dvc mlflow great_expectations feast torch transformers peft trl sklearn bentoml evidently"
    assert [name.partition(".")[0] for name in TWELVE] == twelve.split()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.index("install/imports.py") < makefile.index("services.runtime.prefect_database")


def test_uv_trusts_what_the_system_trusts():
    """The Makefile exports the name that the locked uv takes; pip trusts the system by itself."""
    uv = Path(sys.executable).with_name("uv")
    help_text = subprocess.run([uv, "pip", "install", "--help"], capture_output=True, text=True, check=True).stdout
    assert "UV_SYSTEM_CERTS=" in help_text
    assert "\nexport UV_SYSTEM_CERTS = 1\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
