from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from services.serving.package import ENTRY_MODULE, LOOKUP_MODULES, bento_folder, locked_requirements, package
from services.serving.process import free_port, serve_bento
from services.serving.smoke import smoke, smoke_bento
from tasks.core.code_digest import SourceTree
from tasks.core.errors import DriftlineError, Unavailable
from tasks.core.files import write_text
from tasks.core.settings import ROOT
from tests.knowledge_base import INT8
from tests.knowledge_release import knowledge_release

pytestmark = pytest.mark.xdist_group("bento")


def test_a_bento_holds_what_it_needs_and_no_more(state: Path, bento: str, folder: Path) -> None:
    """Service, model, manifest and the modules they import: no training, no Prefect, no host in its requirements."""
    built = bento_folder(state / "bentoml", bento)
    files = {str(path.relative_to(built / "src")) for path in (built / "src").rglob("*") if path.is_file()}
    assert {"service.py", "manifest.json", "model.skops", "golden.json", "services/serving/tabular.py"} <= files
    assert not {name for name in files if re.search(r"task\.py|fit\.py|evaluate|registry|stack|settings", name)}
    assert (built / "src" / "model.skops").read_bytes() == (folder / "model.skops").read_bytes()
    pins = (built / "env/python/requirements.txt").read_text()
    assert "scikit-learn==" in pins
    assert "torch" not in pins
    assert not re.search(r"--|https?:|@", pins)


def test_a_bento_names_the_runtime_of_its_embedder(tmp_path: Path) -> None:
    """Weights in ONNX need onnxruntime, which is of an extra and not in the lock; and no torch."""
    folder = knowledge_release(tmp_path, answer_by="extract", embedder=INT8)
    built = bento_folder(tmp_path, package(folder, tmp_path, ROOT / "requirements.lock"))
    assert (built / "src/embedder/model.onnx").is_file()
    pins = (built / "env/python/requirements.txt").read_text()
    assert {f"onnxruntime=={version('onnxruntime')}", f"flatbuffers=={version('flatbuffers')}"} <= {*pins.split()}
    assert "tokenizers==" in pins
    assert not re.search("torch|transformers", pins)


def test_packaging_again_builds_nothing(state: Path, bento: str, folder: Path) -> None:
    """The tag names the content, so what is there is kept."""
    before = bento_folder(state / "bentoml", bento).stat().st_mtime_ns
    assert package(folder, state / "bentoml", ROOT / "requirements.lock") == bento
    assert bento_folder(state / "bentoml", bento).stat().st_mtime_ns == before


def test_a_killed_build_does_no_harm(folder: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of a build: no half Bento is in the store, and the next build is whole."""
    home = tmp_path / "bentoml"
    code = f"""
from pathlib import Path
from services.serving.package import package
package(Path({str(folder)!r}), Path({str(home)!r}), Path({str(ROOT / "requirements.lock")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not list(home.glob("building/*/home/tmp/*/src")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(home.glob("bentos/*/*"))
    built = bento_folder(home, package(folder, home, ROOT / "requirements.lock"))
    assert (built / "bento.yaml").is_file()
    assert (built / "src/services/serving/tabular.py").is_file()
    assert not list((home / "building").iterdir())


def test_a_broken_release_is_not_packaged(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / folder.name)
    (copy / "model.skops").write_bytes(b"other")
    with pytest.raises(DriftlineError, match="digest does not match"):
        package(copy, tmp_path / "bentoml", ROOT / "requirements.lock")


def test_requirements_are_pins_of_the_lock(tmp_path: Path) -> None:
    """All that the direct ones need, and nothing the lock does not name."""
    lock = write_text(
        tmp_path / "lock", "# made by hand\nscikit_learn==1.9.1\nnumpy==2.4.6  # via x\njoblib==1.6.0\nprefect==3.8\n"
    )
    assert locked_requirements(["scikit-learn"], lock) == ["joblib==1.6.0", "numpy==2.4.6", "scikit_learn==1.9.1"]
    with pytest.raises(DriftlineError, match="no feast"):
        locked_requirements(["feast"], lock)


def test_modules_are_followed_into_functions() -> None:
    names = {
        str(path.relative_to(ROOT)) for path in (m.path for m in SourceTree(ROOT).closure("services.serving.tabular"))
    }
    assert {"tasks/__init__.py", "tasks/train/tabular/model_file.py", "tasks/train/tabular/scoring.py"} <= names


@pytest.mark.parametrize("kind", ENTRY_MODULE)
def test_no_service_needs_the_settings(kind: str) -> None:
    """They read this machine's files and need a package that a Bento does not have; with lookup and without."""
    modules = SourceTree(ROOT).closure(ENTRY_MODULE[kind], *LOOKUP_MODULES)
    assert not [module.path for module in modules if module.path.stem == "settings"]
    assert "pydantic_settings" not in set().union(*(module.packages for module in modules))


def test_smoke(state: Path, bento: str, folder: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """A real process answers the golden examples as the offline predictions say, and is gone after."""
    figures = smoke_bento(folder, bento, environment, tmp_path / "serve.log")
    assert figures["examples"] >= 20
    assert not _processes(str(bento_folder(state / "bentoml", bento)))


def test_a_model_that_answers_otherwise_does_not_start(
    state: Path, bento: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """A service compares itself with the golden examples before it is ready, and its log's end is the error."""
    broken = shutil.copytree(bento_folder(state / "bentoml", bento), tmp_path / "broken")
    golden = (broken / "src/golden.json").read_text()
    (broken / "src/golden.json").write_text(golden.replace('"prediction": 0.', '"prediction": 1.', 1))
    with (
        pytest.raises(Unavailable, match="predictions differ from those at sealing"),
        serve_bento(broken, environment, tmp_path / "broken.log"),
    ):
        pass
    assert not _processes(str(tmp_path))


def test_smoke_without_a_server_is_an_error(folder: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        smoke(folder, f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("ready", [True, False])
def test_a_server_ends_with_its_starter(
    state: Path, bento: str, environment: dict[str, str], tmp_path: Path, ready: bool
) -> None:
    """kill -9 of a smoke test leaves no server behind, neither one that answers nor one that only starts."""
    built = bento_folder(state / "bentoml", bento)
    code = f"""
import os, signal
from pathlib import Path
from services.serving.process import serve_bento
with serve_bento(Path({str(built)!r}), {environment!r}, Path({str(tmp_path / "serve.log")!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not ready and not _processes(str(built)):
        time.sleep(0.02)
    if not ready:
        starter.kill()
    assert starter.wait(60) == -9
    deadline = time.monotonic() + 15
    while _processes(str(built)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _processes(str(built))


def _processes(text: str) -> list[str]:
    """Command lines of Bentos' servers with a text in them."""
    import psutil

    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if text in line and ("forks.py" in line or "release_server.py" in line)]
