"""The knowledge base of a release: it checks its files, searches them, and finishes answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field

from services.serving.retrieval import MAX_PASSAGES, MAX_QUERY, Retrieval
from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.guard.files import open_guard
from tasks.knowledge.answers.answerer import INDEX, SETTINGS, Answer, Answerer, AnswerSettings, Prepared
from tasks.knowledge.index.guarded_search import GuardedSearch
from tasks.knowledge.labels import Labels
from tasks.knowledge.results import Hit
from tasks.language.chat_request import OpenAIRequest
from tasks.language.embedder import Embedder

if TYPE_CHECKING:
    from tasks.language.released_model import ReleasedModel

T = TypeVar("T")
Guarded: TypeAlias = Sequence[tuple[str, str, int]]  # rule, outcome and count of findings in passages
EMBEDDER = "embedder"  # folder in a release


def _not_blank(query: str) -> str:
    if not query.strip():
        raise ValueError("it is empty")
    return query


class SearchRequest(OpenAIRequest):
    """A request for passages."""

    query: Annotated[str, AfterValidator(_not_blank)] = Field(max_length=MAX_QUERY)
    count: int = Field(5, ge=1, le=MAX_PASSAGES)
    method: Literal["hybrid", "words", "vectors"] | None = None
    user: str | None = None


class KnowledgeBase:
    """Index, embedder and settings in the folder of a release. Its work runs in one thread, off the event loop."""

    def __init__(self, release: ReleasedModel) -> None:
        self._folder, self._files = release.folder, release.knowledge_files
        self._thread = ThreadPoolExecutor(1, "knowledge")  # an embedder is not thread-safe, and uses all cores

    @property
    def is_extractive(self) -> bool:
        """Whether answers are sentences of the passages, so that no model is needed."""
        return self._settings.knowledge.answer_by == "extract"

    @property
    def is_checked(self) -> bool:
        """Whether an answer of the model may be replaced by the abstention once it is complete."""
        return self._settings.knowledge.grounded

    def open(self) -> None:
        """Raises: DataError naming the part that differs from what was sealed, or an index of another embedder."""
        check_files(self._folder, self._files)
        self._settings = AnswerSettings.model_validate_json((self._folder / SETTINGS).read_bytes())
        self._embedder = Embedder(self._folder / EMBEDDER)
        knowledge, guard = self._settings.knowledge, open_guard(self._folder)
        self._search = GuardedSearch(self._folder / INDEX, self._embedder, guard, word_weight=knowledge.word_weight)
        if knowledge.method != "words":
            self._embedder.encode(["ready"])  # the first text loads the weights
        settings = self._settings
        self._answerer = Answerer(
            self._search, settings.knowledge, settings.abstain, settings.threshold, tokens=settings.tokens
        )

    async def search(self, request: SearchRequest, labels: Labels) -> tuple[list[Hit], int, Guarded]:
        """The passages of a query that these labels may see, the tokens of the query, and what rules found."""
        method = request.method or self._settings.knowledge.method

        def work() -> tuple[list[Hit], int, Guarded]:
            hits = self._search.search(request.query, count=request.count, method=method, labels=labels)
            return hits, self._embedder.tokens([request.query])[0], self._search.take_counts()

        return await self._run(work)

    async def prepare(self, messages: Sequence[Mapping[str, str]], labels: Labels) -> tuple[Prepared, int, Guarded]:
        """What the answerer prepares for a conversation, the tokens of its question, and what rules found."""

        def work() -> tuple[Prepared, int, Guarded]:
            prepared = self._answerer.prepare(messages, labels)
            return prepared, self._embedder.tokens([prepared.question])[0], self._search.take_counts()

        return await self._run(work)

    async def finish(self, prepared: Prepared, text: str = "") -> Answer:
        """The checked answer with its citations."""
        return await self._run(lambda: self._answerer.finish(prepared, text))

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises: DataError naming the first file that is not the sealed one."""
    for name, expected in digests.items():
        found = file_digest(folder / name) if (folder / name).is_file() else "no such file"
        if found != expected:
            raise DataError(
                f"The release does not start: its {_part(name)} differs from what was sealed.",
                where=str(folder / name),
                found=found,
                allowed=expected,
                todo="Release the case again, or restore the file from a copy. The champion goes on.",
            )


def _part(name: str) -> str:
    if name == SETTINGS:
        return "file of answer settings"
    return "embedder" if name.startswith(f"{EMBEDDER}/") else "knowledge index"


def citation(hit: Hit) -> dict[str, str]:
    """Where a passage stands."""
    passage = hit.passage
    return {name: getattr(passage, name) for name in ("document", "title", "heading", "url", "passage_id")}


def passage_result(hit: Hit) -> dict[str, Any]:
    """A passage with its scores."""
    scores = {"score": round(hit.score, 6), "similarity": round(hit.similarity, 6)}
    return {"text": hit.passage.text, **scores, **citation(hit)}


def retrieval_of(
    hits: Sequence[Hit], answer: Answer | None = None, *, by_model: bool = False, guarded: Guarded = ()
) -> Retrieval:
    """What to record of a search, or of an answer; `by_model`: the model wrote it; `guarded`: what rules found."""
    return Retrieval(
        passages=tuple(hit.passage.passage_id for hit in hits),
        similarity=max((round(hit.similarity, 4) for hit in hits), default=None),
        cited=tuple(hit.passage.passage_id for hit in answer.citations) if answer else (),
        guarded=tuple(guarded),
        abstained=answer.abstained if answer else False,
        grounded=answer.grounded if answer and by_model else None,
    )
