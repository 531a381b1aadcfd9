"""Files become Markdown texts; what can't be read says why."""

import io
from datetime import UTC, datetime

import pytest

from tasks.core.errors import DataError
from tasks.knowledge.documents.reading import MAX_BYTES, read_file

HTML = """<html><head><title>Shop</title><meta property="article:modified_time" content="2026-03-01T10:00:00Z">
<script>var x = 1</script></head><body><nav><a href="/">Menu</a></nav><main><!-- hidden -->
<h1 id="top">Returns<a class="headerlink" href="#top">¶</a></h1><p>You may <b>return</b> goods
within <code>30  days</code>.</p><section id="fees"><h2>Fees</h2><table><tr><th>item</th><th>fee</th></tr>
<tr><td>book</td><td>1 | 2</td></tr></table><ul><li>one</li><li>two<ol><li>inner</li></ol></li></ul>
<pre>a = 1
  b = 2</pre></section></main><footer>Imprint</footer></body></html>"""


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pdf(text, password=""):
    """A PDF of one page, written by hand, so that its text is known."""
    from pypdf import PdfReader, PdfWriter

    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, content in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj%s endobj\n" % (number, content))
    table = out.tell()
    out.write(b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % table)
    if not password:
        return out.getvalue()
    writer = PdfWriter(clone_from=PdfReader(out))
    writer.add_metadata({"/Title": "Terms"})
    writer.encrypt(password)
    sealed = io.BytesIO()
    writer.write(sealed)
    return sealed.getvalue()


def test_markdown_loses_front_matter_and_comments(tmp_path):
    """The front matter names title and date; a comment within code stays."""
    text = "---\ntitle: Trains\nupdated: 2026-02-03\n---\n<!-- hidden\n-->\n# H\n\n```\n<!-- code -->\n```\n"
    read = read_file(write(tmp_path, "a.md", text))
    assert (read.title, read.modified) == ("Trains", datetime(2026, 2, 3, tzinfo=UTC))
    assert read.text == "# H\n\n```\n<!-- code -->\n```\n"


def test_html_becomes_markdown(tmp_path):
    """Headings with anchors, lists, tables and code of the main part; no menu, script, comment or footer."""
    read = read_file(write(tmp_path, "a.html", HTML))
    assert (read.title, read.modified) == ("Returns", datetime(2026, 3, 1, 10, tzinfo=UTC))
    assert read.text == (
        "# Returns {#top}\n\nYou may return goods within `30 days`.\n\n## Fees {#fees}\n\n"
        "| item | fee |\n|---|---|\n| book | 1 \\| 2 |\n\n- one\n- two\n  1. inner\n\n```\na = 1\n  b = 2\n```\n"
    )


def test_pdf_pages_have_anchors(tmp_path):
    assert read_file(write(tmp_path, "a.pdf", pdf("Deliver on Monday"))).text == (
        "## Page 1 {#page=1}\n\nDeliver on Monday\n\n"
    )


BAD = {
    "zero bytes": ("a.md", b"# A\x00\x01"),
    "not UTF-8: byte 0xff": ("a.txt", b"caf\xff"),
    "encrypted with a password": ("a.pdf", pdf("secret", "word")),
    "no text on its 1 pages": ("a.pdf", pdf("")),
    "PdfStreamError|PdfReadError": ("a.pdf", b"%PDF-1.4 nothing else"),
    "50.0 MB; at most 20 MB": ("a.md", b"a" * (50 << 20)),
    "characters; at most": ("b.md", b"a" * (3 << 20)),
}


@pytest.mark.parametrize("problem", BAD)
def test_unreadable_files_say_why(tmp_path, problem):
    with pytest.raises(DataError) as caught:
        read_file(write(tmp_path, *BAD[problem]))
    assert any(each in caught.value.found for each in problem.split("|"))
    assert MAX_BYTES == 20 << 20


def test_deeply_nested_html_is_an_error(tmp_path):
    """Not a crash: tags nested a hundred thousand times."""
    with pytest.raises(DataError, match="can't be read"):
        read_file(write(tmp_path, "a.html", "<div>" * 100_000 + "x"))
