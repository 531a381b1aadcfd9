"""The sandbox of a backtest: it never touches the real registry, champion, database, predictions or remotes."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from tasks.backtest.results import Challenge
from tasks.core.files import write_text
from tasks.core.settings import Settings
from tasks.data.retracted import copy_retracted
from tasks.evaluate.report import observed
from tasks.evaluate.results import Verdict
from tasks.release.results import Release
from tasks.train.results import Candidate
from tasks.train.training_time import training_seconds

REMOTE_SETTINGS = (
    *("tracking_url", "artifacts_url", "dvc_remote", "online_store"),
    *("gateway_store", "gateway_limits", "openlineage_url"),
)


def sandbox_settings(config: Settings, case: str) -> Settings:
    """Settings under STATE/replay/CASE/world-ID, without the servers and remotes of the real ones.

    The id is random when the folder is created: Prefect caches finished steps by their paths, and the cached paths of a
    deleted folder no longer exist.
    """
    home = config.state / "replay" / case
    world = next(iter(sorted(home.glob("world-*"))), home / f"world-{uuid4().hex[:8]}")
    world.mkdir(parents=True, exist_ok=True)
    copy_retracted(config.data / "raw" / case, world / "data" / "raw" / case)
    own = {"state": world, "data": world / "data", **dict.fromkeys(REMOTE_SETTINGS, "")}
    return config.model_copy(update=own)


def summarise_challenge(
    candidate: Candidate, verdict: Verdict, release: Release | None, making: float, judging: float, world: Settings
) -> Challenge:
    """A candidate's verdict, and the seconds of both: training as recorded, the rest as measured the first time.

    `making` and `judging` are seconds. Only their first values count: a second policy, or a run that is started again,
    finds the candidate and the verdict in the cache.
    """
    spent, pair = world.state / "spent", f"{candidate.run_id}-{(verdict.champion or '')[:12]}"
    training = training_seconds(candidate, world)
    others = _first_seconds(spent / f"{candidate.run_id}.txt", max(0.0, making - training))
    others += _first_seconds(spent / f"{pair}.txt", judging)
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


def _first_seconds(path: Path, seconds: float) -> float:
    if not path.is_file():
        write_text(path, f"{seconds:.3f}")
    return float(path.read_text(encoding="utf-8"))
