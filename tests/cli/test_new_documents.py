"""A case that is begun from documents answers from them, and is valid without a pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.new import create_case
from cli.new_options import TableOptions
from flows.case import LanguageCase, load_case
from tasks.core.errors import DataError, InputError
from tasks.core.settings import settings
from tests.knowledge_base import INT8


@pytest.fixture
def cases(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRIFTLINE_CASES", str(tmp_path / "repo" / "configs"))
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    settings.cache_clear()
    yield tmp_path / "repo" / "configs"
    monkeypatch.undo()
    settings.cache_clear()


def manual(folder: Path) -> Path:
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "pump.md").write_text("# Pump\n\nThe pump is in the cellar.\n")
    (folder / "valve.html").write_text("<h1>Valve</h1><p>The valve is red.</p>")
    (folder / "note.txt").write_text("Call the service on weekdays.")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.txt").write_text("secret")
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_becomes_a_knowledge_base(cases, tmp_path, inside):
    """The case has documents, an abstention and bounds that need no pair; a folder of the repository is relative."""
    folder = manual(tmp_path / ("repo" if inside else "elsewhere") / "manual")
    shown = create_case("help", str(folder), TableOptions())
    assert "3 documents (1 .md, 1 .txt, 1 .html)" in shown or "3 documents (" in shown
    assert "help is valid" in shown
    case = load_case("help", cases)
    assert isinstance(case, LanguageCase)
    assert case.knowledge is not None
    assert case.knowledge.embedder == INT8  # its extra is installed here
    assert case.pairs.none
    uri = str(case.knowledge.documents["pages"].uri)
    assert uri == ("file://../../manual/**/*" if inside else f"file://{folder}/**/*")
    assert case.answer.abstain
    assert case.traffic.source == "requests"


def test_unreadable_documents_are_named(cases, tmp_path):
    """Some are said in the summary; when all are, no case is written."""
    folder = manual(tmp_path / "manual")
    (folder / "picture.md").write_bytes(b"\x00\x01")
    assert "1 can't be read, such as picture.md" in create_case("help", str(folder), TableOptions())
    with pytest.raises(DataError, match="No document can be read") as caught:
        create_case("other", str(folder / "picture.md"), TableOptions())
    assert "picture.md: " in caught.value.found
    assert not (cases / "other").exists()


def test_tables_beside_a_readme_are_no_documents(cases, tmp_path):
    """A folder of tables still needs a target, whatever describes them."""
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "README.md").write_text("# Tables\n")
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "b.csv").write_text("x,y\n1,2\n")
    with pytest.raises((InputError, DataError)):
        create_case("tables", str(folder), TableOptions())
