"""Documents are validated like any source: bad ones are quarantined with reasons, too many stop the run."""

import pyarrow.parquet as pq
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.data.config import Expectation, Source
from tasks.knowledge.config import Documents, Knowledge
from tasks.knowledge.documents.collect import Origins
from tasks.knowledge.documents.curate import curate
from tasks.knowledge.documents.document import load_documents
from tests.knowledge_base import AS_OF, EMBEDDER, curated, knowledge_of, write_pages

GOOD = {f"page{n}.md": f"# Page {n}\n\nThe weather of day {n} was fine, and nobody got wet.\n" for n in range(6)}


def ids(validated):
    return [document.document_id for document in load_documents(validated.files)]


def test_bad_documents_are_quarantined_with_reasons(tmp_path):
    """Binary, empty and repeated ones, each named; what is neither text, HTML nor PDF is left out."""
    bad = {"binary.md": b"\x00\x01", "empty.md": "<!-- nothing -->\n", "page9.md": GOOD["page1.md"], "photo.png": b"x"}
    validated = curated(write_pages(tmp_path, {**GOOD, **bad}), knowledge_of(tolerance=0.4))
    assert ids(validated) == [f"pages/{name}" for name in GOOD]
    assert (validated.rows, validated.quarantined) == (6, 3)
    rows = pq.read_table(validated.validation.quarantine, columns=["document_id", "problem"]).to_pylist()
    reasons = {row["document_id"]: row["problem"] for row in rows}
    assert reasons == {
        "pages/binary.md": "it is binary: it has zero bytes",
        "pages/empty.md": "it is empty",
        "pages/page9.md": "its text is that of pages/page1.md",
    }
    card = (validated.files["pages"].parent / "card.md").read_text()
    assert "3 of pages" in card
    assert "1 .png" in card


def test_too_many_bad_documents_stop_the_run(tmp_path):
    with pytest.raises(DataError, match="nothing was changed") as caught:
        curated(write_pages(tmp_path, {**GOOD, "binary.md": b"\x00"}), knowledge_of())
    assert "pages/binary.md: it is binary" in caught.value.found


@pytest.mark.parametrize(
    ("expectation", "page"),
    [
        (
            {"column": "age_days", "max_value": 365},
            "---\nupdated: 2020-01-01\n---\n# Old\n\nThis was written long ago.\n",
        ),
        ({"column": "personal", "max_value": 0}, "# Who\n\nWrite to anna.smith@example.com about the weather.\n"),
        ({"column": "characters", "max_value": 200}, "# Long\n\n" + "The weather was fine. " * 20),
    ],
    ids=["old", "personal", "long"],
)
def test_a_case_expects_more_of_its_documents(tmp_path, expectation, page):
    """Stale ones, ones with personal data, and long ones are quarantined where the case says so."""
    expected = Expectation.model_validate({"expect": "column_values_to_be_between", **expectation})
    folder = write_pages(tmp_path, {**GOOD, "other.md": page})
    validated = curated(folder, knowledge_of(tolerance=0.2, expectations=(expected,)))
    assert ids(validated) == [f"pages/{name}" for name in GOOD]


def test_another_language_is_found(tmp_path):
    expected = Expectation.model_validate(
        {"expect": "column_values_to_be_in_set", "column": "language", "value_set": ["en"]}
    )
    german = "# Wetter\n\nDas Wetter war gestern sehr schön, und niemand wurde auf dem Weg nach Hause nass.\n"
    folder = write_pages(tmp_path, {**GOOD, "other.md": german})
    assert "pages/other.md" not in ids(curated(folder, knowledge_of(tolerance=0.2, expectations=(expected,))))


def test_personal_data_is_named_and_masked(tmp_path):
    folder = write_pages(tmp_path, {**GOOD, "who.md": "# Who\n\nWrite to anna.smith@example.com.\n"})
    plain, masked = curated(folder, knowledge_of()), curated(folder, knowledge_of(mask=("email",)))
    assert any("pages/who.md: 1 places look like personal data" in each for each in plain.validation.warnings)
    assert not any("who.md" in each for each in masked.validation.warnings)
    texts = {document.document_id: document.text for document in load_documents(masked.files)}
    assert "Write to [EMAIL]." in texts["pages/who.md"]


def test_equal_documents_are_written_once(tmp_path):
    folder = write_pages(tmp_path, GOOD)
    first = curated(folder, knowledge_of())
    times = {path: path.stat().st_mtime_ns for path in first.files.values()}
    assert curated(folder, knowledge_of()) == first
    assert times == {path: path.stat().st_mtime_ns for path in first.files.values()}


def test_links_in_circles_are_left_out(tmp_path):
    """A folder that links to itself, and files that link to each other."""
    folder = write_pages(tmp_path, GOOD)
    (folder / "pages" / "again").symlink_to(folder / "pages")
    (folder / "pages" / "a.md").symlink_to(folder / "pages" / "b.md")
    (folder / "pages" / "b.md").symlink_to(folder / "pages" / "a.md")
    assert ids(curated(folder, knowledge_of())) == [f"pages/{name}" for name in GOOD]


def of_rows(tmp_path, template):
    import pyarrow as pa

    path = tmp_path / "airports.parquet"
    table = {"code": ["JFK", "LGA"], "name": ["Kennedy", "{{ code }}"], "feet": [13, None]}
    pq.write_table(pa.table(table), path)
    documents = Documents(rows_of="airports", template=template, title="{{ name }}", url="https://x.org/{path}")
    knowledge = Knowledge(documents={"fields": documents}, embedder=EMBEDDER)
    source = Source(uri="file://airports.csv", key=("code",))
    origins = Origins({}, {"airports": [path]}, {"airports": source})
    return list(load_documents(curate("pets", knowledge, origins, as_of=AS_OF, state=tmp_path).files))


def test_each_row_is_a_document(tmp_path):
    """A value that looks like a template stays a value; a missing one is empty."""
    first, second = of_rows(tmp_path, "{{ name }} ({{ code }}) lies at {{ feet }} feet.")
    assert (first.document_id, first.title, first.url) == ("fields/JFK", "Kennedy", "https://x.org/JFK")
    assert (first.text, second.text) == (
        "Kennedy (JFK) lies at 13 feet.",
        "{{ code }} (LGA) lies at  feet.",
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ nmae }}", "unknown variable nmae"),
        ("{{ name ", "unexpected end of template"),
        ("{{ name.__class__.__mro__ }}", "SecurityError"),
        ("{{ feet + name }}", "TypeError"),
    ],
)
def test_a_wrong_template_is_named(tmp_path, template, problem):
    with pytest.raises(CaseError) as caught:
        of_rows(tmp_path, template)
    assert problem in caught.value.found
    assert caught.value.where == "knowledge.documents.fields.template"
    assert "code, feet, name" in caught.value.allowed
