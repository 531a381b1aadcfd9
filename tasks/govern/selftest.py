"""Proof that the gates of a case can fail: each known-bad candidate must be refused by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from tasks.core.config import Result
from tasks.core.errors import GateFailed, InputError
from tasks.evaluate.config import Evaluate
from tasks.evaluate.criteria import decide
from tasks.evaluate.tabular.baselines import fit_baselines
from tasks.evaluate.tabular.gates import gate_criteria, score_holdout
from tasks.evaluate.tabular.rows import read_rows
from tasks.evaluate.tabular.scores import Scores
from tasks.evaluate.waivers import split_waivers
from tasks.govern.known_bad import BadCandidate, bad_candidates
from tasks.train.classes import encode_target, predictions_in
from tasks.train.config import Target, Train
from tasks.train.results import Candidate
from tasks.train.tabular.model_file import load, predict

CANDIDATE = "candidate.json"


class Tested(Result):
    """What the gates made of one known-bad candidate."""

    __test__ = False  # no test of pytest, which takes the name for one

    name: str
    flaw: str
    gate: str  # the key of the case whose gate is there for it
    decision: str
    caught_by: tuple[str, ...]  # criteria that failed

    @property
    def caught(self) -> bool:
        return self.decision != "promote"


def require_caught(case: str, tested: Sequence[Tested]) -> None:
    """Raises: GateFailed when a known-bad candidate would be released."""
    if missed := [each for each in tested if not each.caught]:
        raise GateFailed(
            f"{len(missed)} of {len(tested)} known-bad candidates would be released.",
            where=case,
            found=", ".join(each.name for each in missed),
            allowed="none",
            todo=f"Set {', '.join(dict.fromkeys(each.gate for each in missed))} in the case.",
        )


def sealed_result(tested: Sequence[Tested]) -> str:
    """The result as a release carries it; equal gates and candidates give equal text."""
    return json.dumps([each.model_dump(mode="json") for each in tested], indent=1, ensure_ascii=False) + "\n"


def find_candidate(state: Path, case: str, weights: str) -> Candidate:
    """The candidate that a release was made of.

    Raises: InputError when its files are gone.
    """
    for path in sorted((state / "candidates" / case).glob(f"*/{CANDIDATE}")):
        try:
            candidate = Candidate.model_validate_json(path.read_bytes())
        except ValidationError:
            continue
        if candidate.weights_digest == weights and candidate.frame.exists():
            return candidate.model_copy(update={"folder": path.parent})
    raise InputError(
        "The candidate that this release was made of is gone.",
        where=str(state / "candidates" / case),
        found=f"no candidate with the weights {weights[:12]}",
        todo=f"Train it again: driftline train {case}",
    )


def run_selftest(candidate: Candidate, target: Target, train: Train, config: Evaluate) -> list[Tested]:
    """Judge every known-bad candidate by the case's own gates, as a first candidate.

    Beside a champion most would fail for being worse; so the gates stand alone.

    Raises: DataError when the candidate's model or frame can't be read.
    """
    config = config.model_copy(update={"waive": split_waivers(config.waive)[0]})
    model = load(candidate.folder / "model.skops")
    rows = read_rows(candidate, target, train, model)
    baselines = fit_baselines(rows)
    return [_judge(bad, config, baselines) for bad in bad_candidates(rows, config, partial(predict, model))]


def _judge(bad: BadCandidate, config: Evaluate, baselines: dict) -> Tested:  # type: ignore[type-arg]
    rows = bad.rows
    scored, single = score_holdout(bad.score, bad.score(rows.holdout), rows, bad.single_rows)
    paired = encode_target(scored[rows.target.column], rows.classes), predictions_in(scored, rows.classes), None
    criteria, _, _ = gate_criteria(config, rows, Scores(scored, paired, "", baselines), single, {})
    criteria = [each for each in criteria if each.repeatable or bad.is_slow]
    caught = tuple(each.name for each in criteria if each.blocking and not each.passed)
    return Tested(name=bad.name, flaw=bad.flaw, gate=bad.gate, decision=decide(criteria), caught_by=caught)
