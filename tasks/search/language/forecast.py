"""What an arm will take, before it starts: an upper guess, which the search corrects by what it then measures."""

from __future__ import annotations

from tasks.core.errors import DriftlineError
from tasks.search.language.arm import Arm
from tasks.search.language.bench import LanguageTask, changed_tuning, engine_answers, practice_of
from tasks.search.problem import Cost
from tasks.train.config import Tuning
from tasks.train.language.preflight import GB, Estimate, TuningPlan, check_fit

START_SECONDS = 3.0  # of an engine
SEARCH_SECONDS = 0.2  # of a search and an extract
READ, WRITTEN = 150.0, 25.0  # tokens a second, of a small model on two cores
REMOTE_SECONDS = 3.0  # of an answer from another machine
CHARACTERS = 3.0  # of a token
INDEX_SECONDS = 60.0  # for splitting, embedding and indexing the documents anew
MERGE_SECONDS = 30.0  # for the served weights of an adapter
SPENT = 1.3  # of a tuning's estimate


class Forecast:
    """Estimates of a case's arms."""

    def __init__(self, task: LanguageTask) -> None:
        self._task = task
        self._tunings: dict[str, dict[str, Estimate] | str] = {}

    def cost(self, arm: Arm, questions: int, *, first: bool, exists: bool) -> Cost:
        """Of answers to so many questions; the `first` ones also make what the arm needs, unless it is made."""
        calls = questions if engine_answers(self._task, arm) else 0
        seconds = START_SECONDS + (questions * SEARCH_SECONDS if arm.passages else 0.0)
        tokens_in, tokens_out = self._tokens(arm)
        if calls:
            remote = self._task.base_of(arm).upstream is not None
            seconds += calls * (REMOTE_SECONDS if remote else tokens_in / READ + tokens_out / WRITTEN)
        memory = GB
        if arm.model and (base := self._task.base_of(arm)).upstream is None:
            memory += base.served.stat().st_size
        if first and "split" in arm.knowledge:
            seconds += INDEX_SECONDS
        if first and arm.is_tuned and not exists:
            tuning = self._tuning(arm)
            if not isinstance(tuning, str):
                seconds += MERGE_SECONDS + SPENT * 60 * sum(each.minutes for each in tuning.values())
                memory = round(GB * max(each.memory_gb for each in tuning.values()))
        money = calls * self._task.price_of(arm).of(round(tokens_in), 0, round(tokens_out), 0.0) / 1_000_000_000
        return Cost(seconds=seconds, memory=memory, calls=calls, money=money)

    def shortage(self, arm: Arm) -> str:
        """Why an arm that tunes can't be tuned on this machine; empty when it can."""
        tuning = self._tuning(arm)
        return tuning if isinstance(tuning, str) else ""

    def _tokens(self, arm: Arm) -> tuple[float, float]:
        """Of a prompt and an answer."""
        spec, task = self._task.spec, self._task
        tokens = sum(len(each["content"]) for each in arm.messages) / CHARACTERS + 40
        if arm.passages and spec.knowledge is not None:
            settings = spec.knowledge.settings
            split = arm.knowledge.get("split", {}).get("tokens", settings.split.tokens)
            tokens += 1.3 * split * arm.knowledge.get("passages", settings.passages)
        return min(tokens, float(spec.chat.context)), float(task.spec.serving.answer_tokens)

    def _tuning(self, arm: Arm) -> dict[str, Estimate] | str:
        """The estimate of each stage, or why they can't run; one layer of the base is run for it."""
        tuning = changed_tuning(self._task, arm)
        if tuning.digest not in self._tunings:
            try:
                self._tunings[tuning.digest] = self._estimates(tuning)
            except DriftlineError as error:
                self._tunings[tuning.digest] = f"{error.what} {error.found}".strip()
        return self._tunings[tuning.digest]

    def _estimates(self, tuning: Tuning) -> dict[str, Estimate]:
        from tasks.language.prompts import render
        from tasks.train.language.model import encode, open_tokenizer, read_pairs, supported_precision

        spec = self._task.spec
        rows, tokenizer = read_pairs(practice_of(self._task) / "train.parquet"), open_tokenizer(spec.base)
        examples = [encode(tokenizer, render(spec.chat.prompt, row["messages"]), row["answer"]) for row in rows]
        plan = TuningPlan(spec.base, tuning, supported_precision(tuning.precision), examples)
        return check_fit(plan, spec.serving.answer_tokens, sum(row["rejected"] is not None for row in rows))
