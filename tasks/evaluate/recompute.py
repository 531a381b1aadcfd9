"""A verdict computed again from its stored scores: equal bit for bit, or the criteria that differ are named."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tasks.core.config import Result
from tasks.core.errors import InputError
from tasks.evaluate.criteria import decide
from tasks.evaluate.results import Criterion
from tasks.evaluate.verdicts import EVIDENCE, SCORES, verdict_digest


class Recomputed(Result):
    """A verdict computed again from the stored scores."""

    decision: str
    digest: str
    stored_digest: str
    recomputed: tuple[str, ...]  # criteria that were computed again
    taken: tuple[str, ...]  # criteria that rest on more than scores, as they were recorded
    different: tuple[str, ...]  # of those computed again
    criteria: tuple[Criterion, ...]

    @property
    def is_same(self) -> bool:
        return self.digest == self.stored_digest and not self.different


def recompute(folder: Path, digest: str) -> Recomputed:
    """Compute the verdict in a folder again, from its scores; `digest` is that of the stored verdict.

    Raises: InputError when the folder has no scores to compute it from.
    """
    try:
        evidence: dict[str, Any] = json.loads((folder / EVIDENCE).read_bytes())
        criteria, computed, fresh = _criteria(folder, evidence)
    except (OSError, ValueError) as error:
        raise InputError(
            "This verdict can't be computed again: its scores were not stored.",
            where=str(folder),
            found=str(error).splitlines()[0],
            allowed=f"{EVIDENCE} and {SCORES}, which verdicts have since this version, those on tables also more",
            todo="Run the case again.",
        ) from error
    before, rest = criteria[:computed], criteria[computed:]
    every = (*fresh, *rest)
    return Recomputed(
        decision=decide(every),
        digest=verdict_digest(every),
        stored_digest=digest,
        recomputed=tuple(each.name for each in fresh),
        taken=tuple(each.name for each in rest),
        different=tuple((new or old).name for old, new in zip_longest(before, fresh) if old != new),
        criteria=every,
    )


def _criteria(folder: Path, evidence: dict[str, Any]) -> tuple[tuple[Criterion, ...], int, list[Criterion]]:
    """The stored criteria, how many of them follow from scores, and these computed again."""
    if evidence.get("kind") == "llm":
        from tasks.evaluate.language import scores as language

        answers, fresh = language.recompute_criteria(folder, evidence)
        return answers.criteria, answers.computed, fresh
    from tasks.evaluate.tabular import scores as tabular

    stored, fresh = tabular.recompute_criteria(folder, evidence)
    return stored.criteria, stored.computed, fresh
