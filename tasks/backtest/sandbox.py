"""Where a replay lives: nothing of it reaches the real registry, champion, ledger, predictions or remotes."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from tasks.backtest.results import Challenge
from tasks.core.files import write_text
from tasks.core.settings import Settings
from tasks.evaluate.report import observed
from tasks.evaluate.results import Verdict
from tasks.release.results import Release
from tasks.train.results import Candidate
from tasks.train.training_time import training_seconds

ELSEWHERE = ("tracking_url", "artifacts_url", "dvc_remote", "online_store", "gateway_store", "gateway_limits")


def sandbox_settings(here: Settings, case: str) -> Settings:
    """Settings under STATE/replay/CASE/world-ID, whatever servers and remotes the real ones name.

    The id is drawn when the folder is made: Prefect remembers finished steps by their paths, and what it remembers of a
    folder that was deleted since is not there any more.
    """
    home = here.state / "replay" / case
    world = next(iter(sorted(home.glob("world-*"))), home / f"world-{uuid4().hex[:8]}")
    world.mkdir(parents=True, exist_ok=True)
    own = {"state": world, "data": world / "data", **dict.fromkeys(ELSEWHERE, "")}
    return here.model_copy(update=own)


def challenge_of(
    candidate: Candidate, verdict: Verdict, release: Release | None, making: float, judging: float, world: Settings
) -> Challenge:
    """Tell a candidate's verdict, and what both took: training as the ledger counts it, the rest as when first done.

    `making` and `judging` are seconds, of which only the first told count: a second policy, or a run started again,
    finds the same candidate and verdict made.
    """
    spent, pair = world.state / "spent", f"{candidate.run_id}-{(verdict.champion or '')[:12]}"
    training = training_seconds(candidate, world)
    others = _first_told(spent / f"{candidate.run_id}.txt", max(0.0, making - training))
    others += _first_told(spent / f"{pair}.txt", judging)
    return Challenge(
        verdict=verdict.decision,
        failed=tuple(
            f"{c.name} is {observed(c)}, required {c.required}{f' ({c.note})' if c.note else ''}"
            for c in verdict.criteria
            if not c.passed
        ),
        weights=candidate.weights_digest,
        release=release.digest if release else None,
        seconds=round(training + others, 3),
    )


def _first_told(path: Path, seconds: float) -> float:
    if not path.is_file():
        write_text(path, f"{seconds:.3f}")
    return float(path.read_text(encoding="utf-8"))
