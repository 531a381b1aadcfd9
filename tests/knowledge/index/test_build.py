"""An index is a function of documents, splitter and embedder; a refresh embeds only what changed."""

import shutil
import sqlite3

import numpy as np
import pytest
import torch

from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.knowledge.config import Splitter
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.language.embedder import Embedder
from tests.knowledge_base import embedder, indexed, knowledge_of, write_pages

PAGES = {
    f"page{n}.md": f"# Page {n}\n\nThe number {n} is here.\n\n## More\n\nIts square is {n * n}.\n" for n in range(4)
}
SECRET = "zanzibar"


@pytest.fixture
def folder(tmp_path):
    return write_pages(tmp_path / "case", PAGES)


@pytest.fixture
def encoded(monkeypatch):
    """The texts that were embedded, in order."""
    texts, encode = [], Embedder.encode

    def record(self, batch):
        texts.extend(batch)
        return encode(self, batch)

    monkeypatch.setattr(Embedder, "encode", record)
    return texts


def files_of(index):
    return {path.name: file_digest(path) for path in sorted(index.folder.iterdir())}


def rebuilt(folder, tmp_path):
    """The index of the same documents, built anew in a place of its own."""
    return indexed(
        shutil.copytree(folder, tmp_path / "anew", ignore=shutil.ignore_patterns("state", "raw")), knowledge_of()
    )


def test_a_refresh_equals_a_rebuild_byte_for_byte(folder, tmp_path, encoded):
    """After a page was changed, one removed and one added; and embeds just the new passages."""
    first = indexed(folder, knowledge_of())
    assert (first.documents, first.passages, len(encoded)) == (4, 8, 8)
    encoded.clear()
    (folder / "pages" / "page1.md").unlink()
    write_pages(folder, {"page2.md": PAGES["page2.md"].replace("here", "there"), "aa.md": "# A\n\nIn front.\n"})
    refreshed = indexed(folder, knowledge_of())
    assert [text.split()[-1] for text in encoded] == ["front.", "there."]
    assert refreshed.digest != first.digest
    assert files_of(refreshed) == files_of(rebuilt(folder, tmp_path))


def test_equal_documents_are_indexed_once(folder, encoded):
    index = indexed(folder, knowledge_of())
    encoded.clear()
    assert indexed(folder, knowledge_of()) == index
    assert not encoded
    assert indexed(folder, knowledge_of(split=Splitter(tokens=16))).digest != index.digest


def test_threads_do_not_change_the_vectors(folder, tmp_path):
    """Nor does the setting of the process change."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = files_of(indexed(folder, knowledge_of()))
        torch.set_num_threads(2)
        assert files_of(rebuilt(folder, tmp_path)) == one
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_stopped_build_goes_on_where_it_was(folder, tmp_path, monkeypatch, encoded):
    """What was embedded before is not embedded again, and the result is the same."""
    encode = Embedder.encode

    def stop(self, batch):
        if len(encoded) == 5:
            raise KeyboardInterrupt
        return encode(self, batch)

    with monkeypatch.context() as stopped:
        stopped.setattr(Embedder, "encode", stop)
        with pytest.raises(KeyboardInterrupt):
            indexed(folder, knowledge_of())
    assert len(encoded) == 5
    index = indexed(folder, knowledge_of())
    assert len(encoded) == 8
    assert files_of(index) == files_of(rebuilt(folder, tmp_path))


def test_a_deleted_document_is_gone(folder):
    """From index and cache: no file of them has its words or its vector."""
    write_pages(folder, {"gone.md": f"# Gone\n\nThe code word is {SECRET}.\n"})
    knowledge = knowledge_of()
    index = indexed(folder, knowledge)
    hit = KnowledgeSearch(index.folder, embedder()).search(SECRET)[0]
    assert SECRET in hit.passage.text
    vector = np.load(index.folder / "vectors.npy")[0].tobytes()
    (folder / "pages" / "gone.md").unlink()
    index = indexed(folder, knowledge)
    assert all(SECRET not in p.text for p in KnowledgeSearch(index.folder, embedder()).passages())
    for path in (folder / "state" / "knowledge").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in content, path
        assert vector not in content, path


def test_a_damaged_index_is_refused_and_built_anew(folder):
    index = indexed(folder, knowledge_of())
    good = files_of(index)
    with sqlite3.connect(index.folder / "passages.sqlite") as db:
        db.execute("UPDATE passages SET text = 'other' WHERE id = 0")
    with pytest.raises(DataError, match="differs") as caught:
        KnowledgeSearch(index.folder, embedder())
    assert "passages.sqlite" in caught.value.where
    assert files_of(indexed(folder, knowledge_of())) == good


def test_another_embedder_is_refused(folder, tmp_path):
    """Also one with vectors of the same length: by its digest."""
    index = indexed(folder, knowledge_of())
    other = shutil.copytree(embedder().folder, tmp_path / "other")
    with (other / "config.json").open("a") as stream:
        stream.write("\n")
    with pytest.raises(DataError, match="another embedder"):
        KnowledgeSearch(index.folder, Embedder(other))
