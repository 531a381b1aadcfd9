"""`driftline knowledge`: the documents of a case, their index, and where a text is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import AsJson, CaseName

if TYPE_CHECKING:
    from flows.case import LanguageCase
    from tasks.knowledge.config import Knowledge
    from tasks.knowledge.results import KnowledgeIndex

app = typer.Typer(no_args_is_help=True, help="Build and search the knowledge base of a case.")
MAX_SHOWN = 300  # characters of a passage


@app.command()
def build(case: CaseName) -> None:
    """Read and validate the documents of a case, and index what changed."""
    index = _build(case)
    typer.echo(f"{index.passages:,} passages of {index.documents:,} documents, digest {index.digest[:12]}")


@app.command()
def search(
    case: CaseName,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="A question.")],
    count: Annotated[int, typer.Option(min=1, max=50, help="Number of passages.")] = 5,
    method: Annotated[
        Literal["hybrid", "words", "vectors"] | None, typer.Option(help="Method. Default: the case's own.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Labels, as a key has them: a,b. Default: all passages.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the passages of the newest index that answer a question best."""
    from tasks.data.language.embedder_files import find_embedder
    from tasks.knowledge.index.search import KnowledgeSearch
    from tasks.knowledge.labels import parse_labels
    from tasks.language.embedder import Embedder

    chosen, knowledge = _case(case)
    index = _newest(case)
    files = find_embedder(knowledge.embedder, chosen.folder)
    embedder = Embedder(files.folder, files.tokenizer)
    opened = KnowledgeSearch(index.folder, embedder, word_weight=knowledge.word_weight)
    allowed = None if labels is None else parse_labels(labels)
    hits = opened.search(question, count=count, method=method or knowledge.method, labels=allowed)
    rows = [
        {
            "score": round(hit.score, 4),
            "similarity": round(hit.similarity, 3),
            "document": hit.passage.document,
            "heading": hit.passage.heading,
            "url": hit.passage.url,
            "passage_id": hit.passage.passage_id,
            "text": hit.passage.text,
        }
        for hit in hits
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for hit in hits:
        place = " > ".join(filter(None, (hit.passage.document, hit.passage.heading)))
        typer.echo(f"{hit.score:.4f}  {hit.similarity:.2f}  {_line(place)}")
        typer.echo(f"    {_line(hit.passage.text)}")


@app.command()
def find(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words of a passage.")], as_json: AsJson = False
) -> None:
    """Show in which cases, documents and releases a text is used."""
    from tasks.core.settings import settings
    from tasks.knowledge.index.find import find_passages

    places = find_passages(text, settings().state)
    rows = [place.model_dump() for place in places]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(f"{_line(row['case'])}  {row['where']}  {_line(row['document'])}  {_line(row['heading'])}")
    count = f"{len(rows)} passage{'s' if len(rows) != 1 else ''}"
    typer.echo(count if rows else "No index or release uses this text.")


@app.command()
def status(case: CaseName, as_json: AsJson = False) -> None:
    """Show the newest index of a case."""
    from tasks.core.settings import settings

    _case(case)
    index, config = _newest(case), settings()
    about: dict[str, Any] = {
        "digest": index.digest,
        "documents": index.documents,
        "passages": index.passages,
        "bytes": sum(path.stat().st_size for path in index.folder.iterdir()),
        "folder": str(index.folder.relative_to(config.state)),
    }
    if as_json:
        typer.echo(json.dumps(about, indent=1))
        return
    for name, value in about.items():
        typer.echo(f"{name:<10}{value:,}" if isinstance(value, int) else f"{name:<10}{value}")


def _build(case: str) -> KnowledgeIndex:
    from flows.run_context import Request, run_context
    from flows.steps import build_knowledge

    chosen, knowledge = _case(case)
    with run_context(Request(case=case)) as run:
        return build_knowledge(run, chosen, knowledge)


def _case(name: str) -> tuple[LanguageCase, Knowledge]:
    """The case and its knowledge base. Raises: CaseError when it has no knowledge base."""
    from flows.case import LanguageCase, load_case
    from tasks.core.errors import CaseError
    from tasks.core.settings import settings

    case = load_case(name, settings().cases)
    if not isinstance(case, LanguageCase) or case.knowledge is None:
        raise CaseError(
            f"Case {name} has no knowledge base.",
            where=str(case.folder / "case.yaml"),
            todo="Add knowledge with documents and an embedder; see docs/guides/knowledge.md.",
        )
    return case, case.knowledge


def _newest(case: str) -> KnowledgeIndex:
    """The index of the last build. Raises: NoDataYet when there is none."""
    from tasks.core.errors import NoDataYet
    from tasks.core.settings import settings
    from tasks.knowledge.index.build import newest_index

    if (index := newest_index(case, settings().state)) is None:
        raise NoDataYet(f"Case {case} has no index yet.", todo=f"Build it: driftline knowledge build {case}")
    return index


def _line(text: str) -> str:
    from tasks.core.display import escape_terminal

    shown = " ".join(text.split())
    return escape_terminal(shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + " ...")
