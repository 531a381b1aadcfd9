"""Answers conversations as a release's service does: with its model, and from its passages if it has some."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tasks.guard.files import open_guard
from tasks.guard.offline import guard_answer, guard_messages
from tasks.knowledge.answers.answerer import SETTINGS, Answerer, Prepared, open_answerer
from tasks.language.messages import Messages
from tasks.language.open_engine import open_engine
from tasks.language.prompts import render
from tasks.language.released_model import ReleasedModel
from tasks.release.seal import EMBEDDER

if TYPE_CHECKING:
    from tasks.language.engine import Engine
    from tasks.language.remote_engine import RemoteEngine


REFUSED = {"tokens_in": 0, "tokens_out": 0, "seconds": 0.0}  # without a model


class Responder:
    """The engine and the knowledge base of a release folder, each opened when it is first needed."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._release = ReleasedModel(folder)
        self._stack, self._guard = ExitStack(), open_guard(folder)

    def __enter__(self) -> Responder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def reply(self, conversations: Sequence[Messages]) -> list[dict[str, Any]]:
        """The answer of each conversation as `prediction`, with its tokens and seconds.

        Raises: DataError for a message that does not fit the context; Unavailable when the engine ends.
        """
        passed = [guard_messages(self._guard, messages) for messages in conversations]
        replies = iter(self._reply([messages for messages, refusal in passed if not refusal]))
        return [REFUSED | {"prediction": refusal} if refusal else self._checked(next(replies)) for _, refusal in passed]

    def _checked(self, reply: dict[str, Any]) -> dict[str, Any]:
        passages, cited = reply.pop("passages", ()), reply.pop("cited", 0)
        return {**reply, "prediction": guard_answer(self._guard, reply["prediction"], passages, cited)}

    def _reply(self, conversations: Sequence[Messages]) -> list[dict[str, Any]]:
        if self._answerer is None:
            return self._complete(conversations)
        prepared, seconds = [], []
        for messages in conversations:
            started = perf_counter()
            prepared.append(self._answerer.prepare(messages))
            seconds.append(perf_counter() - started)
        replies = iter(self._complete([each.messages for each in prepared if each.messages and each.answer is None]))
        return [
            self._finished(self._answerer, each, next(replies) if each.answer is None else {}, spent)
            for each, spent in zip(prepared, seconds, strict=True)
        ]

    @staticmethod
    def _finished(answerer: Answerer, prepared: Prepared, reply: dict[str, Any], seconds: float) -> dict[str, Any]:
        answer = answerer.finish(prepared, reply.get("prediction", ""))
        return {
            **REFUSED,
            **reply,
            "prediction": answer.text,
            "seconds": seconds + reply.get("seconds", 0.0),
            "passages": [hit.passage.text for hit in prepared.hits],
            "cited": len(answer.citations),
        }

    def _complete(self, conversations: Sequence[Messages]) -> list[dict[str, Any]]:
        if not conversations:
            return []
        release = self._release
        completions = self._engine.chat_batch(
            [render(release.prompt, each) for each in conversations],
            max_tokens=release.answer_tokens,
            schema=release.schema,
            **release.prompt.parameters.overrides,
        )
        return [
            {"prediction": c.text, "tokens_in": c.tokens_in, "tokens_out": c.tokens_out, "seconds": c.seconds}
            for c in completions
        ]

    @cached_property
    def _engine(self) -> Engine | RemoteEngine:
        release = self._release
        return self._stack.enter_context(
            open_engine(release.model, threads=self._threads, slots=release.slots, context=release.context)
        )

    @cached_property
    def _answerer(self) -> Answerer | None:
        if not (self._folder / SETTINGS).is_file():
            return None
        from tasks.language.embedder import Embedder

        return open_answerer(self._folder, Embedder(self._folder / EMBEDDER))
