"""The first verdict of a changed prompt comes after 30 questions, and rarely rejects an equal one."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd

from tasks.evaluate.config import AnswerGate
from tasks.evaluate.criteria import decide, losses_criterion
from tasks.evaluate.language.first_questions import FIRST, first_questions, first_verdict
from tasks.language.text_scoring import TextScorer

RUNS = 250
GATE = AnswerGate(loss="missing_facts", margin=0.1, min_rows=30)


def scored(missing: np.ndarray) -> pd.DataFrame:
    """Answers, of which some lack their only required fact."""
    scorer = TextScorer()
    scores = [asdict(scorer.score("no" if each else "yes", "", "", ["yes"])) for each in missing]
    return pd.DataFrame(scores)


def rejected(worse_by: float, questions: int = 120) -> tuple[float, float, float]:
    """How often a candidate whose answers are worse is rejected at the first look, in the end, and promoted."""
    first = last = promoted = 0
    for run in range(RUNS):
        random = np.random.default_rng(run)
        rates = random.beta(1.5, 3, questions)  # of failing a question, which both share
        champion = random.random(questions) < rates
        candidate = random.random(questions) < np.clip(rates + worse_by, 0, 1)
        early = first_verdict(GATE, scored(candidate[:FIRST]), scored(champion[:FIRST]))
        final = losses_criterion(GATE, candidate.astype(float), champion.astype(float))
        final = final.model_copy(update={"conclusive": not final.note.startswith("not shown")})
        first += not early.passed
        last += not early.passed or decide([final]) == "reject"
        promoted += early.passed and decide([final]) == "promote"
    return first / RUNS, last / RUNS, promoted / RUNS


def test_equal_prompts_are_rarely_rejected() -> None:
    """Over both looks together at most as often as 1 - confidence; most are promoted as not worse."""
    first, last, promoted = rejected(0.0)
    assert first <= 0.025
    assert last <= 0.05
    assert promoted > 0.4


def test_a_much_worse_prompt_is_rejected_at_the_first_look() -> None:
    """And never promoted."""
    first, last, promoted = rejected(0.5)
    assert first > 0.8
    assert last > 0.99
    assert promoted == 0


def test_each_first_question_has_another_wording() -> None:
    """Fillings of one template count once; fewer than 30 wordings give no first verdict."""
    rows = [
        {"pair_id": f"p{at}", "template": f"t{at // 2}", "intent": "a", "messages": json.dumps([])} for at in range(80)
    ]
    chosen = first_questions(pd.DataFrame(rows))
    assert (len(chosen), chosen["template"].nunique()) == (FIRST, FIRST)
    assert first_questions(pd.DataFrame(rows[:40])).empty
