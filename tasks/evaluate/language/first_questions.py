"""A first verdict on 30 questions: a candidate that is shown to be worse than the champion answers no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.evaluate.config import AnswerGate
from tasks.evaluate.language.inference import stratified_sample
from tasks.evaluate.language.metrics import answer_losses, clusters_of
from tasks.evaluate.results import Criterion
from tasks.statistics.confidence_sequence import BinomialSequence

if TYPE_CHECKING:
    import pandas as pd

FIRST = 30
TITLE = "judge the first questions"  # the step whose figure is the first verdict


def first_questions(ordinary: pd.DataFrame) -> pd.DataFrame:
    """30 questions, each of another wording; none where there are fewer."""
    different = ordinary[~ordinary.assign(cluster=clusters_of(ordinary))["cluster"].duplicated()]
    return stratified_sample(different, FIRST) if len(different) >= FIRST else ordinary.head(0)


def first_verdict(gate: AnswerGate, served: pd.DataFrame, champion: pd.DataFrame) -> Criterion:
    """Whether the answers to the first questions show that the candidate is worse.

    A sequential sign test: of the questions whose losses differ, an equal candidate is worse in half. It may be looked
    at before all questions are answered; it then rejects an equal candidate in at most half of (1 - confidence).
    """
    differences = answer_losses(served, gate.loss) - answer_losses(champion, gate.loss)
    worse, better = int((differences > 0).sum()), int((differences < 0).sum())
    low, _ = BinomialSequence(worse, worse + better).interval(1 - gate.confidence)
    passed = low <= 0.5 or float(differences.mean()) <= gate.margin
    counts = f"{better} better, {worse} worse, {len(differences) - better - worse} equal of {len(differences)}"
    return Criterion(
        name=f"first_questions_{gate.loss}",
        observed=low,
        required="<= 0.5 of the differing ones worse than the champion",
        passed=passed,
        note=f"{'not shown to be worse' if passed else 'worse, so no other question was answered'}: {counts}",
    )
