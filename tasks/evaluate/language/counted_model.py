"""A model whose calls a budget counts, and whose answers are remembered one by one."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from tasks.core.config import digest_of
from tasks.core.files import write_text
from tasks.evaluate.language.call_budget import CallBudget
from tasks.evaluate.language.responses import Conversation, EngineOptions
from tasks.language.engine import Completion, Engine
from tasks.language.open_engine import open_engine
from tasks.language.remote_engine import RemoteEngine
from tasks.language.token_count import count_tokens


class CountedModel:
    """One engine for all answers, started by the first call. Used in a `with` block, by several threads."""

    def __init__(self, model: Path, options: EngineOptions, budget: CallBudget, folder: Path) -> None:
        self._model = model
        self._options = options
        self._budget = budget
        self._folder = folder
        self._opened = ExitStack()
        self._engine: Engine | RemoteEngine | None = None
        self._lock = Lock()
        self._completions: list[Completion] = []

    def __enter__(self) -> CountedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        count_tokens(self._completions, sum(each.seconds for each in self._completions) / self._options.serving.slots)

    def answer(self, conversation: Conversation) -> dict[str, Any]:
        """The fields of a Completion; equal conversations call the model once.

        Raises: BudgetSpent; DataError when the conversation does not fit; Unavailable when the engine ends.
        """
        file = self._folder / f"{digest_of(conversation)[:32]}.json"
        if not file.is_file():
            engine = self._open()
            self._budget.spend_call()
            completion = engine.chat(conversation, **self._options.sampling)
            self._completions.append(completion)
            fields = {name: value for name, value in asdict(completion).items() if name != "logprobs"}
            write_text(file, json.dumps(fields))
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def _open(self) -> Engine | RemoteEngine:
        with self._lock:
            if self._engine is None:
                options = self._options
                opened = open_engine(
                    self._model, threads=options.threads, slots=options.serving.slots, context=options.context
                )
                self._engine = self._opened.enter_context(opened)
            return self._engine
