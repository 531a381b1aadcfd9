"""The Bento of a release: what serving needs, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import SourceTree
from tasks.core.errors import DriftlineError
from tasks.core.files import lock, scratch_folder, write_text
from tasks.core.permissions import make_all_private
from tasks.core.pins import read_pins
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT
from tasks.guard.sealed_files import is_guard_file
from tasks.language.embedder import ONNX
from tasks.language.released_model import KNOWLEDGE_PARTS
from tasks.language.upstream import UPSTREAM
from tasks.release.seal import GOLDEN, MANIFEST, verify

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.utils import NormalizedName

# by kind: the module with `make_service`, the model file, and the required packages
ENTRY_MODULE = {"tabular": "services.serving.tabular", "llm": "services.serving.language"}
MODEL_FILE = {"tabular": "model.skops", "llm": "model.gguf"}
LOOKUP_MODULES = (
    "tasks.features.online",
    "tasks.features.online_store",
    "tasks.features.offline_store",
)  # Feast names two
REQUIREMENTS = {
    "tabular": ("bentoml", "numpy", "orjson", "pydantic", "scikit-learn", "scipy", "skops", "treelite"),
    "llm": ("aiohttp", "bentoml", "httpx", "pydantic", "xllamacpp"),
}
LANGUAGE_FILES = (UPSTREAM, "prompt.json", "system.txt", "schema.json")  # system.txt: of earlier releases
EMBEDDING_REQUIREMENTS = ("numpy", "tokenizers", "torch", "transformers")
ONNX_REQUIREMENTS = ("numpy", "onnxruntime", "tokenizers")  # of an embedder with such weights
OPTIONAL = ("onnxruntime",)  # of an extra, which the lock lacks: pinned as installed
LOOKUP_REQUIREMENTS = ("duckdb", "feast", "pandas", "pyarrow", "PyYAML", "redis")

# Run in a process of its own, since BentoML changes the working folder and imports the service.
BUILD = "import bentoml, json, sys; bentoml.bentos.build(**json.loads(sys.argv[1]))"
SERVICE = '''"""The service of the release beside this file."""

from pathlib import Path

from {entry} import make_service

Predictor = make_service(Path(__file__).parent)
'''


def package(folder: Path, bentoml_home: Path, requirements_lock: Path) -> str:
    """Build the Bento of a sealed release into `<bentoml_home>/bentos/` unless it exists; returns its tag.

    It is built in a temporary folder and renamed, so a killed build leaves no partial Bento.
    Raises: DriftlineError with BentoML's message.
    """
    manifest = verify(folder)
    case, version = manifest["sealed"]["case"], manifest["digest"][:12]
    store = bentoml_home / "bentos" / case
    with lock(bentoml_home / "build.lock", "The building of Bentos", wait=True):
        shutil.rmtree(bentoml_home / "building", ignore_errors=True)
        if not (store / version).exists():
            with scratch_folder(bentoml_home / "building") as work:
                built = _build(Path(work), folder, case, version, requirements_lock)
                store.mkdir(parents=True, exist_ok=True)
                built.rename(store / version)
        write_text(store / "latest", version)
    return f"{case}:{version}"


def bento_folder(bentoml_home: Path, tag: str) -> Path:
    return bentoml_home / "bentos" / Path(*tag.split(":"))


def _build(work: Path, folder: Path, case: str, version: str, requirements_lock: Path) -> Path:
    context, home = work / "context", work / "home"
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    kind = manifest["sealed"]["kind"]
    looks_up = any(column["origin"] != "request" for column in manifest["sealed"].get("columns", ()))
    is_remote = manifest["sealed"].get("serving", {}).get("engine") == "vllm"  # the weights are at that server
    parts = [name for name in manifest["sealed"]["files"] if name.split("/")[0] in KNOWLEDGE_PARTS]
    is_remote |= UPSTREAM in manifest["sealed"]["files"]
    guard = [name for name in manifest["sealed"]["files"] if is_guard_file(name)]
    for name in (MANIFEST, *guard, *(() if is_remote else (MODEL_FILE[kind],)), GOLDEN, *LANGUAGE_FILES, *parts):
        if (folder / name).is_file():
            _copy(folder / name, context / name)
    tree = SourceTree(ROOT)
    modules = (
        tree.closure(ENTRY_MODULE[kind], *LOOKUP_MODULES)
        if looks_up
        else tree.closure(ENTRY_MODULE[kind], without=LOOKUP_MODULES)
    )
    for module in modules:
        _copy(module.path, context / module.path.relative_to(ROOT))
    write_text(context / "service.py", SERVICE.format(entry=ENTRY_MODULE[kind]))
    direct = (
        *REQUIREMENTS[kind],
        *(LOOKUP_REQUIREMENTS if looks_up else ()),
        *_embedding_requirements(parts),
    )
    arguments = {
        "service": "service:Predictor",
        "name": case,
        "version": version,
        "build_ctx": str(context),
        "include": ["*"],
        "labels": {"case": case, "release": manifest["digest"], "as_of": manifest["sealed"]["as_of"][:10]},
        "description": f"# {case}\n\nRelease `{manifest['digest']}`, as of {manifest['sealed']['as_of']}.\n",
        "python": {
            "lock_packages": False,  # they are already locked
            "packages": locked_requirements(direct, requirements_lock),
        },
    }
    environment = {
        **os.environ,
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        # BentoML finds uv there, which it would otherwise install from the network
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    done = subprocess.run(
        # an orphan of a killed run would write into the folder of the next build
        with_parent_death_signal([sys.executable, "-c", BUILD, json.dumps(arguments)]),
        cwd=context,  # so that the service is imported from the Bento's files
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    built = home / "bentos" / case / version
    if done.returncode != 0 or not (built / "bento.yaml").is_file():
        raise DriftlineError(
            "BentoML could not build the Bento.",
            where=f"{case}:{version}",
            found="\n".join((done.stderr or done.stdout).strip().splitlines()[-12:]),
            todo="Correct what it names, and run the release again.",
        )
    make_all_private(built)  # BentoML makes its scripts readable for all users
    return built


def _embedding_requirements(parts: Iterable[str]) -> tuple[str, ...]:
    """What the embedder among the parts of a knowledge base needs."""
    names = {Path(part).name for part in parts}
    return () if not names else ONNX_REQUIREMENTS if ONNX in names else EMBEDDING_REQUIREMENTS


def locked_requirements(direct: Iterable[str], requirements_lock: Path) -> list[str]:
    """The lock's pins of some distributions and of their dependencies, without index or file host.

    Raises: DriftlineError when the lock lacks one of `direct`.
    """
    from packaging.utils import canonicalize_name

    pins = read_pins(requirements_lock)
    pending = [canonicalize_name(name) for name in direct]
    for name in set(OPTIONAL) & {*pending}:
        _pin_installed(name, pins)
    if lacking := [name for name in pending if name not in pins]:
        raise DriftlineError(
            "The lock lacks packages that the service needs.",
            where=str(requirements_lock),
            found=f"no {', '.join(lacking)}",
            todo="Run `make lock`.",
        )
    chosen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in chosen or name not in pins:
            continue
        chosen.add(name)
        pending.extend(_dependencies(name))
    return [str(pins[name]) for name in sorted(chosen - {"bentoml"})]  # BentoML adds its own pin


def _pin_installed(name: str, pins: dict[str, Requirement]) -> None:
    """Add the installed versions of a distribution and its dependencies, where there is no pin."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    if name not in pins:
        with contextlib.suppress(PackageNotFoundError):
            pins[name] = Requirement(f"{name}=={version(name)}")
            for each in _dependencies(name):
                _pin_installed(each, pins)


def _dependencies(name: str) -> list[NormalizedName]:
    """What an installed distribution needs on this system, without extras."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        needs = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    return [canonicalize_name(r.name) for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
