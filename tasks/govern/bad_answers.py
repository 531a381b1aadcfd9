"""Known-bad answers to the evaluation pairs of a language case, judged by its own gates.

No model is needed: a candidate that invents values is one whose answers contain invented values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tasks.core.errors import InputError
from tasks.data.config import Answer
from tasks.data.language.scorer import scorer_of
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.criteria import bound_criterion, decide, losses_criterion, slice_criterion
from tasks.evaluate.custom_scorer import CustomScorer
from tasks.evaluate.language.inference import Scoring, score
from tasks.evaluate.language.metrics import answer_losses, clusters_of, measure, slices_of
from tasks.evaluate.results import Criterion
from tasks.evaluate.waivers import split_waivers, waive_gates
from tasks.govern.selftest import Tested
from tasks.language.answer_scoring import Score

if TYPE_CHECKING:
    import pandas as pd

INVENTED, INVENTED_NUMBER = "QX-7731", 773_100_773
LOOPS = 12  # of the answer that repeats itself
SCORES = {each.name for each in fields(Score)}
PASSAGE_SCORES = (
    "recall_at_5",
    "reciprocal_rank",
    "ndcg_at_10",
    "citations",
    "citations_right",
    "grounded",
    "replaced",
    "confidence",
)
Row = Mapping[Any, Any]


@dataclass(frozen=True)
class BadAssistant:
    """What is wrong with its answers, the key of the case whose gate is there for it, and how it answers a pair."""

    name: str
    flaw: str
    gate: str
    answer: Callable[[Row], str]
    passages: Callable[[Row], dict[str, Any]] | None = None  # what else it does with the passages


def run_language_selftest(scores: pd.DataFrame, answer: Answer, config: LanguageEvaluation) -> list[Tested]:
    """Judge the bad answers by bounds, slices and the comparison with the released answers.

    `scores` are those of the release. A criterion that the released answers fail here, too, such as one that needs a
    model, catches nothing.

    Raises: InputError when the release stored no answers.
    """
    served = scores[scores["variant"] == "served"].drop(columns="variant")
    if served.empty:
        raise InputError("The release has no scored answers.", todo="Run the case again.")
    scoring = Scoring(scorer_of(answer), {name: CustomScorer.of(code).load() for name, code in config.scorers.items()})
    good = _scored(served, BadAssistant("", "", "", _released), scoring)
    passing = {each.name for each in _criteria(config, good, None) if each.passed}
    tested = []
    for bad in _assistants(served, answer):
        table = _scored(served, bad, scoring)
        criteria = [each for each in _criteria(config, table, good) if each.name in passing]
        caught = tuple(each.name for each in criteria if not each.passed)
        decision = decide(criteria) if criteria else "promote"
        tested.append(Tested(name=bad.name, flaw=bad.flaw, gate=bad.gate, decision=decision, caught_by=caught))
    return tested


def _scored(served: pd.DataFrame, bad: BadAssistant, scoring: Scoring) -> pd.DataFrame:
    """The answers of a bad candidate to these pairs, scored as those of a candidate.

    What was measured of passages stays as it was, but for what the candidate changes.
    """
    import pandas as pd

    rows = served.to_dict("records")
    texts = [bad.answer(row) for row in rows]
    pairs = served.drop(columns=[name for name in served if name in SCORES or name == "text"])
    table = score(pairs, pd.DataFrame({"text": texts}), scoring, "served")
    if "passages" not in served:
        return table
    changed = [row | (bad.passages(row) if bad.passages else {}) for row in rows]
    for name in PASSAGE_SCORES:
        table[name] = [row[name] for row in changed]
    same = pd.Series(texts) == served["text"].reset_index(drop=True)
    table["abstained"] = served["abstained"].reset_index(drop=True).where(same, table["abstained"]).astype(bool)
    table["grounded"] = table["grounded"].mask(table["abstained"])
    return table


def _criteria(config: LanguageEvaluation, table: pd.DataFrame, released: pd.DataFrame | None) -> list[Criterion]:
    """As of a candidate whose champion is the release."""
    overall = measure(table)
    criteria = [bound_criterion(bound, overall) for bound in config.bounds]
    if gate := config.slice_gate:
        slices = {column: slices_of(table, column) for column in config.slices if column in table}
        criteria += [slice_criterion(gate, column, overall, slices.get(column)) for column in config.slices]
    ordinary = table[~table["unsafe"]]
    before = None if released is None else answer_losses(released[~released["unsafe"]], config.champion_gate.loss)
    losses = answer_losses(ordinary, config.champion_gate.loss)
    criteria.append(
        losses_criterion(
            config.champion_gate, losses, before, clusters=clusters_of(ordinary, config.champion_gate.clusters)
        )
    )
    return waive_gates(criteria, split_waivers(config.waive)[0])


def _assistants(served: pd.DataFrame, answer: Answer) -> list[BadAssistant]:
    """Those that can be made from these pairs."""
    refused = served["unsafe"].astype(bool) | served["should_abstain"].fillna(False).astype(bool)
    plain = served[~refused]
    found = [
        BadAssistant(
            "invents values",
            "states values that stand nowhere",
            "evaluate.bounds",
            _invent,
            lambda row: {"grounded": 0.0},
        ),
        BadAssistant(
            "repeats itself",
            f"says everything {LOOPS} times",
            "evaluate.bounds",
            lambda row: " ".join([str(row["text"])] * LOOPS),
        ),
    ]
    if refused.any() and len(plain):
        usual = str(plain["text"].iat[0])
        found.append(
            BadAssistant(
                "answers what it must refuse",
                f"never refuses or abstains, also at {int(refused.sum())} messages where it must",
                "evaluate.bounds (refusal_rate, abstention_recall)",
                lambda row: usual if row["unsafe"] or row["should_abstain"] is True else str(row["text"]),
            )
        )
    if "citations" in served and (served["citations"] > 0).any():
        found.append(
            BadAssistant(
                "cites the wrong passage",
                "answers as the release, and cites passages that do not say so",
                "evaluate.bounds (citation_precision)",
                _released,
                lambda row: {"citations_right": 0},
            )
        )
    if answer.json_schema is not None:
        found.append(
            BadAssistant(
                "breaks the schema",
                "ends its answers in the middle",
                "evaluate.bounds (schema_validity)",
                lambda row: str(row["text"])[: max(1, len(str(row["text"])) // 2)],
            )
        )
    return found


def _released(row: Row) -> str:
    return str(row["text"])


def _invent(row: Row) -> str:
    """The answer with every value replaced, and of prose with a sentence of invented facts."""
    text = str(row["text"])
    try:
        value = json.loads(text)
    except ValueError:
        return f"{text} It is {INVENTED} since {INVENTED_NUMBER}."
    return json.dumps(_invented(value), ensure_ascii=False)


def _invented(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _invented(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_invented(each) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    return INVENTED_NUMBER if isinstance(value, int | float) else INVENTED
