"""Prefect tasks of the release room."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import GateFailed, NotReady
from tasks.core.mlflow import Tracking
from tasks.core.prefect import stage
from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles, EmbedderFiles, Snapshot
from tasks.evaluate.results import Verdict
from tasks.release.config import Price
from tasks.release.results import Release
from tasks.train.config import Serving, Target
from tasks.train.results import Candidate


def find_champion(case: str, tracking: Tracking, state: Path) -> Release | None:
    """The case's champion, if it has one."""
    from tasks.release.registry import champion

    return champion(tracking, state, case)


def require_champion(case: str, tracking: Tracking, state: Path) -> Release:
    """The case's champion.

    Raises: NothingYet when it has none.
    """
    found = find_champion(case, tracking, state)
    if found is None:
        raise NotReady(f"Case {case} has no champion yet.", where=tracking.uri, todo=f"driftline run {case}")
    return found


def find_predecessor(release: Release, tracking: Tracking, state: Path) -> Release | None:
    """The champion before a release, if there was one."""
    from tasks.release.registry import predecessor

    return predecessor(tracking, state, release)


def find_champion_of_candidate(
    candidate: Candidate, lineage: dict[str, str], tracking: Tracking, state: Path
) -> Release | None:
    """The champion, if it was made of this very candidate."""
    from tasks.release.registry import is_champion

    return is_champion(tracking, state, candidate, lineage)


def require_promotion(case: str, verdict: Verdict) -> None:
    """Stop at the gate.

    Raises: GateFailed with every criterion unless the verdict is to promote.
    """
    if verdict.decision == "promote":
        return
    from tasks.evaluate.tabular.gates import explain

    raise GateFailed(
        f"The verdict on {case} is: {verdict.decision}. Nothing is promoted, the champion stays.\n{explain(verdict)}",
        todo="Look at the failed criteria; change the case, or wait for better data.",
    )


@stage("seal the release", lambda folder: folder.name)
def seal_table_release(
    candidate: Candidate,
    verdict: Verdict,
    target: Target,
    price: Price,
    lineage: dict[str, str],
    snapshot: Snapshot,
    state: Path,
) -> Path:
    """Write the manifest with its digest, beside the weights."""
    from tasks.data.snapshots import pointer
    from tasks.release.seal import seal
    from tasks.release.tabular import table_parts

    parts = table_parts(candidate, verdict, target)
    return seal(
        candidate, verdict, parts, "tabular", lineage, state, price=price, snapshot_pointer=pointer(snapshot.path)
    )


@stage("seal the release", lambda folder: folder.name)
def seal_language_release(
    candidate: Candidate,
    verdict: Verdict,
    base: BaseModelFiles,
    talk: ChatSpec,
    serving: Serving,
    embedder: EmbedderFiles | None,
    price: Price,
    lineage: dict[str, str],
    snapshot: Snapshot,
    state: Path,
) -> Path:
    """Write the manifest with its digest, beside weights, tokenizer, chat template, system prompt and schema."""
    from tasks.data.snapshots import pointer
    from tasks.release.language import language_parts
    from tasks.release.seal import seal

    parts = language_parts(candidate, verdict, base, talk, serving, embedder)
    return seal(candidate, verdict, parts, "llm", lineage, state, price=price, snapshot_pointer=pointer(snapshot.path))


@stage("register", lambda release: f"version {release.version}, challenger")
def register_release(folder: Path, tracking: Tracking) -> Release:
    """Make the release a version of the case's model in MLflow's registry."""
    from tasks.release.registry import register

    return register(tracking, folder)


@stage("promote to champion", lambda version: f"version {version}")
def promote_release(release: Release, tracking: Tracking) -> str:
    """Move the champion alias, last of all."""
    from tasks.release.registry import promote

    promote(tracking, release)
    return release.version
