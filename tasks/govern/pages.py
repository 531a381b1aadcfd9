"""Markdown that Driftline writes, as an HTML page that needs no other file, and as PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.html_page import html_page

if TYPE_CHECKING:
    from fpdf import FPDF
    from markdown_it.token import Token

FRONT = "---\n"  # around the metadata of a model card
SIZES = {"h1": 16, "h2": 13, "h3": 11}  # points
TEXT, TABLE = 9, 7
FONT = "DejaVu"  # that of matplotlib: the standard fonts of PDF have Western European letters only


def markdown_page(title: str, text: str, plots: Sequence[str] = ()) -> str:
    """HTML of a Markdown text, without its first heading, which becomes the page's; `plots` are SVG."""
    parser = _parser()
    body = _without_front(text)
    first, _, rest = body.partition("\n")
    body = rest if first.startswith("# ") else body
    return html_page(title, parser.render(body), *plots)


def markdown_pdf(text: str) -> bytes:
    """PDF of a Markdown text: headings, paragraphs, lists and tables."""
    pdf = _document()
    tokens = _parser().parse(_without_front(text))
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "table_open":
            end = next(i for i in range(position, len(tokens)) if tokens[i].type == "table_close")
            _table(pdf, tokens[position:end])
            position = end
        elif token.type == "inline":
            before = tokens[position - 1]
            bullet = "\u2022 " if position > 1 and tokens[position - 2].type == "list_item_open" else ""
            _paragraph(pdf, bullet + plain(token), SIZES.get(before.tag, TEXT))
        position += 1
    return bytes(pdf.output())


def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _without_front(text: str) -> str:
    return text.split(FRONT, 2)[2] if text.startswith(FRONT) else text


def plain(token: Token) -> str:
    """The text of an inline token without its marks."""
    breaks = ("softbreak", "hardbreak")
    return "".join(" " if each.type in breaks else each.content for each in token.children or [])


def _document() -> FPDF:
    import matplotlib
    from fpdf import FPDF

    pdf = FPDF(format="A4")
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pdf.add_font(FONT, "", fonts / "DejaVuSans.ttf")
    pdf.add_font(FONT, "B", fonts / "DejaVuSans-Bold.ttf")
    pdf.set_auto_page_break(True, margin=15)
    pdf.add_page()
    return pdf


def _paragraph(pdf: FPDF, text: str, size: int) -> None:
    pdf.set_font(FONT, "B" if size > TEXT else "", size)
    pdf.multi_cell(0, size * 0.5, text, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(1.5)


def _table(pdf: FPDF, tokens: Sequence[Token]) -> None:
    """Columns as wide as their texts need, within the page."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(plain(token))
    longest = [max(6, *(min(60, len(row[i])) for row in rows)) for i in range(len(rows[0]))]
    pdf.set_font(FONT, "", TABLE)
    with pdf.table(col_widths=tuple(longest), line_height=TABLE * 0.55, text_align="LEFT", padding=0.6) as table:
        for cells in rows:
            row = table.row()
            for cell in cells:
                row.cell(cell)
    pdf.ln(2)
