"""An optimizer for MLflow's `optimize_prompts` that needs no language model beside the one that answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow.genai.optimize.optimizers import BasePromptOptimizer
from mlflow.genai.optimize.types import EvaluationResultRecord, PromptOptimizerOutput

from tasks.core.config import Result
from tasks.evaluate.language.call_budget import BudgetSpent
from tasks.evaluate.language.prompt_space import PromptSpace, Variant
from tasks.statistics.bootstrap import PairedDifference, paired_bootstrap

BLOCK = 8  # questions between two looks at a challenger
DROPPED_AT = 0.9  # confidence of being worse with which a challenger is dropped

Evaluate = Callable[[dict[str, str], list[dict[str, Any]]], list[EvaluationResultRecord]]


class Trial(Result):
    """A challenger of the best prompt at its time."""

    change: str
    answered: int
    loss: float
    best: float  # loss of the best prompt on the same questions
    outcome: str  # better, no better, dropped (shown to be worse), or unfinished


@dataclass
class Contender:
    """A variant with the losses of its answers to the first questions."""

    variant: Variant
    losses: list[float] = field(default_factory=list)

    def mean(self, count: int | None = None) -> float:
        losses = self.losses[:count]
        return sum(losses) / len(losses)


class PairedRacing(BasePromptOptimizer):
    """Local search with paired comparisons.

    A neighbour of the best prompt answers the same questions in blocks. It is dropped as soon as the paired bootstrap
    shows it to be worse, and takes the best prompt's place when its mean loss over all questions is lower. The search
    ends with the budget, with the last neighbour, or where no loss is left.
    """

    def __init__(self, space: PromptSpace, clusters: Sequence[str], failure: Callable[[], Exception | None]) -> None:
        """`clusters` groups the questions; `failure` is what stopped the model, since MLflow scores it as an answer."""
        self.trials: list[Trial] = []
        self.stopped = "no untried prompt is left beside the best"
        self.start, self.best = Contender(space.start), Contender(space.start)
        self._space = space
        self._clusters = clusters
        self._failure = failure
        self._seen = {json.dumps(space.messages(space.start))}

    @property
    def difference(self) -> PairedDifference | None:
        """The best prompt compared with that at the start; None when it is that one."""
        if self.best is self.start:
            return None
        count = len(self.best.losses)
        return self._compare(self.best, self.start, count, 0.95)

    def optimize(
        self,
        eval_fn: Evaluate,
        train_data: list[dict[str, Any]],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """Search from the prompt in `target_prompts`. A prompt that is no better is not returned."""
        (name,) = target_prompts
        self.best = self.start

        def answer(contender: Contender, count: int) -> None:
            """Answer those of the first questions that it has not answered. Raises: what stopped the model."""
            if rest := train_data[len(contender.losses) : count]:
                records = eval_fn({name: json.dumps(self._space.messages(contender.variant))}, rest)
                if failure := self._failure():
                    raise failure
                contender.losses += [1.0 - float(record.score or 0.0) for record in records]

        try:
            while challenger := self._next():
                self._race(*challenger, answer)
                if len(self.best.losses) == len(train_data) and not any(self.best.losses):
                    self.stopped = "no loss is left"
                    break
        except BudgetSpent as spent:
            self.stopped = str(spent)
        text = json.dumps(self._space.messages(self.best.variant))
        scores = [1 - each.mean() if each.losses else None for each in (self.start, self.best)]
        better = {} if self.best is self.start else {name: text}
        return PromptOptimizerOutput(better, initial_eval_score=scores[0], final_eval_score=scores[1])

    def _next(self) -> tuple[str, Contender] | None:
        for change, variant in self._space.neighbours(self.best.variant):
            key = json.dumps(self._space.messages(variant))
            if key not in self._seen:
                self._seen.add(key)
                return change, Contender(variant)
        return None

    def _race(self, change: str, challenger: Contender, answer: Callable[[Contender, int], None]) -> None:
        """Let a challenger answer until it is dropped, or all questions are answered. Raises: BudgetSpent."""
        total, outcome = len(self._clusters), "unfinished"
        try:
            for count in [*range(BLOCK, total, BLOCK), total]:
                answer(self.best, count)
                answer(challenger, count)
                if self._compare(challenger, self.best, count, DROPPED_AT).is_worse(0.0):
                    outcome = "dropped"
                    return
            outcome = "better" if challenger.mean() < self.best.mean(total) else "no better"
        finally:
            if answered := len(challenger.losses):
                losses = {"loss": challenger.mean(), "best": self.best.mean(answered)}
                self.trials.append(Trial(change=change, answered=answered, outcome=outcome, **losses))
            if outcome == "better":
                self.best = challenger

    def _compare(self, challenger: Contender, best: Contender, count: int, confidence: float) -> PairedDifference:
        import numpy as np

        losses = [np.array(each.losses[:count]) for each in (challenger, best)]
        return paired_bootstrap(*losses, confidence=confidence, clusters=self._clusters[:count])
