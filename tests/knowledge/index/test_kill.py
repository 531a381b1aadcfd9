"""Promise: a build that is killed anywhere, and started again, ends with the same bytes and nothing old."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.files import file_digest
from tasks.core.settings import ROOT
from tasks.knowledge.config import Documents, Knowledge
from tests.knowledge_base import INT8, indexed, write_pages

KNOWLEDGE = Knowledge(documents={"pages": Documents(uri="file://pages/**/*")}, embedder=INT8)
PAGES: dict[str, str | bytes] = {
    f"page{n}.md": f"# Page {n}\n\nThe number {n} stands here. Its square is {n * n}.\n" for n in range(4)
}
OLD = "zanzibar"
# The process kills itself where a function is called for the nth time.
KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.knowledge.index import build
from tasks.language.embedder import Embedder
from tests.knowledge.index import test_kill as case
owner, name, count = {"build": build, "Embedder": Embedder}[sys.argv[2]], sys.argv[3], int(sys.argv[4])
original, calls = getattr(owner, name), []
def counted(*args, **more):
    calls.append(name)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **more)
setattr(owner, name, counted)
case.indexed(Path(sys.argv[1]), case.KNOWLEDGE)
"""
PLACES = {
    "while it embeds": ("Embedder", "encode", 3),
    "before it writes passages": ("build", "write_passages", 1),
    "between passages and vectors": ("build", "write_vectors", 1),
    "between vectors and manifest": ("build", "file_digest", 4),
    "before it removes the old index": ("build", "_remove_others", 1),
}


def contents(folder: Path) -> dict[str, str]:
    """The digest of each file of the indexes and of nothing else; the cache's bytes may differ, its rows not."""
    home = folder / "state" / "knowledge" / "pets"
    return {str(path.relative_to(home)): file_digest(path) for path in sorted(home.glob("*/*")) if path.is_file()}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case with an index of documents that have changed since."""
    folder = write_pages(tmp_path_factory.mktemp("case"), PAGES | {"old.md": f"# Old\n\nThe word is {OLD}.\n"})
    indexed(folder, KNOWLEDGE)
    (folder / "pages" / "old.md").unlink()
    write_pages(
        folder, {"new.md": "# New\n\nA new page. It has two sentences now.\n", "page1.md": "# Page 1\n\nOther.\n"}
    )
    return folder


@pytest.fixture(scope="module")
def rebuilt(changed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a build without a kill and without an earlier index ends with."""
    fresh = tmp_path_factory.mktemp("fresh")
    shutil.copytree(changed / "pages", fresh / "pages")
    indexed(fresh, KNOWLEDGE)
    return contents(fresh)


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_build_ends_with_the_same_bytes(changed, rebuilt, tmp_path, place):
    folder = shutil.copytree(changed, tmp_path / "case")
    owner, name, count = PLACES[place]
    command = [sys.executable, "-c", KILLED, str(folder), owner, name, str(count)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    indexed(folder, KNOWLEDGE)
    assert contents(folder) == rebuilt
    left = [path for path in (folder / "state").rglob("*") if path.is_file() and "knowledge" in path.parts]
    assert not [path for path in left if OLD.encode() in path.read_bytes()]
