"""Answer questions by an arm: what it needs is made first, and no model is sent the same conversation twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tasks.core.config import Result
from tasks.core.errors import CaseError
from tasks.data.config import Model
from tasks.data.language.splits import DEVELOPMENT
from tasks.data.results import BaseModelFiles, Snapshot
from tasks.evaluate.language.arms import RememberingEmbedder
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.inference import build_conversation, message_in, score
from tasks.evaluate.language.metrics import answer_losses
from tasks.evaluate.language.response_cache import cached_responses
from tasks.evaluate.language.responses import Conversation, EngineOptions
from tasks.knowledge.answers.answerer import Answerer, Prepared
from tasks.knowledge.config import DOCUMENTS, Knowledge
from tasks.knowledge.index.build import build_index
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import KnowledgeSpec
from tasks.language.open_engine import model_file
from tasks.language.prompts import NO_PROMPT, Prompt
from tasks.language.token_count import token_count
from tasks.release.config import Price
from tasks.search.language.arm import Arm
from tasks.train.config import Tuning
from tasks.train.language.knowledge import abstention_text, fit_abstention
from tasks.train.language.practice import write_practice
from tasks.train.language.tune import TuningPairs, find_tuned, tune
from tasks.train.results import LanguageSpec, Origin

if TYPE_CHECKING:
    import pandas as pd


class OtherBase(Result):
    """Another base model that an arm may use."""

    model: Model
    files: BaseModelFiles
    price: Price


class LanguageTask(Result):
    """What all arms of a search share."""

    origin: Origin
    snapshot: Snapshot
    spec: LanguageSpec
    threads: int
    loss: str
    price: Price
    scorers: dict[str, str] = Field({})
    others: dict[str, OtherBase] = Field({})  # by name
    tuning: Tuning | None = None
    practises: bool = False  # a tuned model learns from documents instead of pairs

    def base_of(self, arm: Arm) -> BaseModelFiles:
        return self.others[arm.model].files if arm.model else self.spec.base

    def price_of(self, arm: Arm) -> Price:
        return self.others[arm.model].price if arm.model else self.price

    @property
    def pairs(self) -> Path:
        return self.snapshot.path / "pairs"

    @property
    def run(self) -> EvaluationRun:
        return EvaluationRun(self.pairs, self.spec, self.threads, self.origin.state, self.scorers)


@dataclass(frozen=True)
class Answered:
    """The answers of an arm to some questions."""

    losses: list[float]
    seconds: float  # of a call alone, mean
    price: float  # of a call, in the currency of the budgets
    calls: int  # that a model was sent; the others were answered before

    @property
    def money(self) -> float:
        return self.calls * self.price


@cache
def _open_embedder(folder: Path, tokenizer: Path | None) -> RememberingEmbedder:
    """One a process: measurements are forks of the one that has embedded the questions."""
    return RememberingEmbedder(folder, tokenizer)


def embed_questions(task: LanguageTask, questions: pd.DataFrame) -> None:
    """Embed the questions once, for all searches of this process and its forks."""
    import pandas as pd

    if (knowledge := task.spec.knowledge) is None:
        return
    embedder = _open_embedder(knowledge.embedder.folder, knowledge.embedder.tokenizer)
    development = task.pairs / f"{DEVELOPMENT}.parquet"  # the abstention is fitted on these
    others = list(pd.read_parquet(development, columns=["messages"])["messages"]) if development.is_file() else []
    for messages in [*questions["messages"], *others]:
        embedder.encode([message_in(messages)])


def engine_answers(task: LanguageTask, arm: Arm) -> bool:
    """Whether a model answers; without, sentences of passages do."""
    knowledge = task.spec.knowledge
    if not arm.passages or knowledge is None:
        return True
    return bool(arm.knowledge.get("answer_by", knowledge.settings.answer_by) == "model")


def changed_tuning(task: LanguageTask, arm: Arm) -> Tuning:
    """The case's `train` section with what the arm changes. Raises: CaseError when the case has none."""
    if task.tuning is None:
        raise CaseError("The case has no train section.", where=task.origin.case, todo="Declare train.")
    return Tuning.model_validate(merged(task.tuning.model_dump(mode="json", exclude_none=True), arm.train))


def practice_of(task: LanguageTask) -> Path:
    """The folder of pairs that a tuning learns from."""
    knowledge, snapshot = task.spec.knowledge, task.snapshot
    if not task.practises or knowledge is None:
        return task.pairs
    documents = [snapshot.path / DOCUMENTS / f"{name}.parquet" for name in knowledge.settings.practice]
    origin = task.origin
    return write_practice(origin.case, task.pairs, documents, spec=knowledge, chat=task.spec.chat, state=origin.state)


def find_model(task: LanguageTask) -> Path | None:
    """The model of a candidate that was tuned as the case says; None before it was."""
    assert task.tuning is not None
    pairs = TuningPairs(task.pairs, practice_of(task))
    found = find_tuned(task.origin, pairs, data_digest=task.snapshot.digest, spec=task.spec, tuning=task.tuning)
    return None if found is None else model_file(found.folder)


class Bench:
    """An arm that is made ready, and answers."""

    def __init__(self, task: LanguageTask, arm: Arm, existing: Path | None = None) -> None:
        """`existing` is the model of an arm that tunes, where it exists. Raises: what keeps the arm from being made."""
        self.task, self.arm = task, arm
        started = perf_counter()
        self._spec = self._changed_spec()
        self._model = existing or self._make_model()
        self._answerer = self._make_answerer()
        self.seconds_to_make = perf_counter() - started

    @property
    def size(self) -> int:
        """Bytes of the model that answers; 0 without one on this machine."""
        if self.task.base_of(self.arm).upstream or not engine_answers(self.task, self.arm):
            return 0
        return self._model.stat().st_size

    def answer(self, questions: pd.DataFrame) -> Answered:
        """Losses and costs of its answers to these pairs.

        Raises: DataError when a conversation does not fit the context; Unavailable when the engine ends.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        waiting: list[tuple[int, Prepared | None, float]] = []
        conversations = []
        for messages in questions["messages"]:
            turns, begun, prepared = json.loads(messages), perf_counter(), None
            if self._answerer is not None:
                prepared = self._answerer.prepare(turns)
                if prepared.messages is None:
                    text = self._answerer.finish(prepared).text
                    rows.append({"text": text, "seconds": perf_counter() - begun})
                    continue
                turns = list(prepared.messages)
            waiting.append((len(rows), prepared, perf_counter() - begun))
            rows.append({})
            conversations.append(build_conversation(json.dumps(turns), self._prompt))
        with token_count() as count:
            for (at, prepared, spent), reply in zip(waiting, self._replies(conversations), strict=True):
                text = str(reply["text"])
                if self._answerer is not None and prepared is not None:
                    text = self._answerer.finish(prepared, text).text
                rows[at] = {**reply, "text": text, "seconds": spent + float(reply["seconds"])}
        scored = score(questions, pd.DataFrame({"text": [row["text"] for row in rows]}), self.task.run.scoring, "")
        prices = [_price(self.task.price_of(self.arm), row) for row in rows]
        return Answered(
            losses=answer_losses(scored, self.task.loss).tolist(),
            seconds=fmean(float(row["seconds"]) for row in rows),
            price=fmean(prices),
            calls=count.calls,
        )

    def _replies(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        if not conversations:
            return []
        state = self.task.origin.state
        table, _ = cached_responses(self._model, conversations, self._options, state, schema=self._schema)
        return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]

    @cached_property
    def _prompt(self) -> Prompt:
        if not self.arm.messages:
            return NO_PROMPT
        own = self.task.spec.chat.prompt
        values = own.model_dump(exclude={"system", "messages", "tests", "name", "notes"})
        prompt = Prompt.model_validate({**values, "messages": list(self.arm.messages)})
        return prompt.bound(**self.task.spec.chat.answer.texts)

    @property
    def _options(self) -> EngineOptions:
        spec = self._spec
        return EngineOptions(spec.serving, spec.chat.context, self.task.threads, self._prompt.parameters)

    @property
    def _schema(self) -> dict[str, Any] | None:
        return self.task.spec.chat.answer.json_schema if self.arm.constrained else None

    def _changed_spec(self) -> LanguageSpec:
        """The spec of a candidate of this arm; its index is built where the case's would differ."""
        task, spec = self.task, self.task.spec
        changes: dict[str, Any] = {}
        if other := task.others.get(self.arm.model):
            chat = spec.chat.model_copy(update={"context": other.model.context})
            changes |= {"base": other.files, "chat": chat}
        if self.arm.weights:
            changes["serving"] = spec.serving.model_copy(update={"weights": self.arm.weights})
        if self.arm.passages and spec.knowledge is not None:
            knowledge = _changed(spec.knowledge.settings, self.arm.knowledge)
            index = spec.knowledge.index
            if "split" in self.arm.knowledge:
                names = sorted(set(knowledge.documents) - set(knowledge.practice))
                files = {name: task.snapshot.path / DOCUMENTS / f"{name}.parquet" for name in names}
                origin, own = task.origin, spec.knowledge.embedder
                folder = origin.state / "searches" / origin.case / "indexes"  # beside the case's, which stays
                index = build_index(f"tokens-{knowledge.split.tokens}", files, knowledge, own, folder)
            changes["knowledge"] = KnowledgeSpec(settings=knowledge, index=index, embedder=spec.knowledge.embedder)
        return spec.model_copy(update=changes)

    def _make_model(self) -> Path:
        task, spec = self.task, self._spec
        if not self.arm.is_tuned:
            return spec.base.served
        pairs = TuningPairs(task.pairs, practice_of(task))
        tuning = changed_tuning(task, self.arm)
        return model_file(tune(task.origin, pairs, data_digest=task.snapshot.digest, spec=spec, tuning=tuning).folder)

    def _make_answerer(self) -> Answerer | None:
        knowledge = self._spec.knowledge
        if not self.arm.passages or knowledge is None:
            return None
        abstain = abstention_text(self._spec)
        embedder = _open_embedder(knowledge.embedder.folder, knowledge.embedder.tokenizer)
        rule = fit_abstention(knowledge, abstain, self.task.pairs, embedder)
        tokens = self._spec.chat.context - self._spec.serving.answer_tokens
        search = KnowledgeSearch(knowledge.index.folder, embedder, word_weight=knowledge.settings.word_weight)
        return Answerer(search, knowledge.settings, abstain, rule, tokens=tokens)


def _changed(knowledge: Knowledge, changes: dict[str, Any]) -> Knowledge:
    return Knowledge.model_validate(merged(knowledge.model_dump(mode="json", exclude_unset=True), changes))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The values of a section with changes at any depth; None stands for a part that goes."""
    both = {
        name: merged(values[name], new)
        for name, new in changes.items()
        if isinstance(new, dict) and isinstance(values.get(name), dict)
    }
    return {**values, **changes, **both}


def _price(price: Price, row: dict[str, Any]) -> float:
    cached = int(row.get("tokens_cached") or 0)
    fresh, out = int(row.get("tokens_in") or 0) - cached, int(row.get("tokens_out") or 0)
    return price.of(fresh, cached, out, float(row["seconds"])) / 1_000_000_000
