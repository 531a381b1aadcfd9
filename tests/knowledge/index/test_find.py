"""Where a text is used is found, in the index of a case and in its releases."""

import shutil

from tasks.knowledge.index.find import find_passages
from tests.knowledge_base import indexed, knowledge_of, write_pages

PAGES = {"a.md": "# A\n\n## B\n\nThe fee is\n30 euros.\n", "c.md": "# C\n\nNothing.\n"}


def test_passages_are_found_in_index_and_release(tmp_path):
    """After the document is gone, just in the release that was sealed with it."""
    folder, state = write_pages(tmp_path, PAGES), tmp_path / "state"
    index = indexed(folder, knowledge_of())
    shutil.copytree(index.folder, state / "releases" / "pets" / "abc123" / "knowledge")
    found = find_passages("the FEE is 30 euros", state)
    assert [(p.case, p.where, p.document, p.heading) for p in found] == [
        ("pets", "index", "pages/a.md", "B"),
        ("pets", "abc123", "pages/a.md", "B"),
    ]
    (folder / "pages" / "a.md").unlink()
    indexed(folder, knowledge_of())
    assert [p.where for p in find_passages("30 euros", state)] == ["abc123"]
    assert find_passages("40 euros", state) == find_passages(" ", state) == []
