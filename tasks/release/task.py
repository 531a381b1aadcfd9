"""Prefect tasks of the release package."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import GateFailed, InsufficientEvidence
from tasks.core.mlflow import Tracking
from tasks.core.prefect import stage
from tasks.evaluate.results import Verdict
from tasks.release.results import Release, SealContext
from tasks.train.config import Target
from tasks.train.results import Candidate, LanguageSpec


def find_champion(case: str, tracking: Tracking, state: Path) -> Release | None:
    """The case's champion, if it has one."""
    from tasks.release.registry import load_champion

    return load_champion(tracking, state, case)


def find_predecessor(release: Release, tracking: Tracking, state: Path) -> Release | None:
    """The champion before a release, if there was one."""
    from tasks.release.registry import load_predecessor

    return load_predecessor(tracking, state, release)


def find_champion_of_candidate(
    candidate: Candidate, lineage: dict[str, str], tracking: Tracking, state: Path
) -> Release | None:
    """The champion, if it consists of this very candidate."""
    from tasks.release.registry import champion_of_candidate

    return champion_of_candidate(tracking, state, candidate, lineage)


def require_promotion(case: str, verdict: Verdict) -> None:
    """Stop at the gate.

    Raises: GateFailed with every criterion unless the verdict is to promote; InsufficientEvidence when none failed.
    """
    if verdict.decision == "promote":
        return
    from tasks.evaluate.tabular.gates import explain

    what = f"The verdict on {case} is: {verdict.decision}. Nothing is promoted, the champion stays.\n{explain(verdict)}"
    if verdict.decision == "insufficient evidence":
        raise InsufficientEvidence(
            what, todo="Wait for as many examples as the notes name, or widen what must be shown."
        )
    raise GateFailed(what, todo="Look at the failed criteria; change the case, or wait for better data.")


@stage("seal the release", lambda folder: folder.name)
def seal_tabular_release(
    candidate: Candidate,
    verdict: Verdict,
    target: Target,
    context: SealContext,
) -> Path:
    """Write the manifest with its digest, beside the weights."""
    from tasks.release.seal import seal
    from tasks.release.tabular import tabular_parts

    return seal(candidate, verdict, tabular_parts(candidate, verdict, target, context), context)


@stage("seal the release", lambda folder: folder.name)
def seal_language_release(
    candidate: Candidate,
    verdict: Verdict,
    spec: LanguageSpec,
    context: SealContext,
) -> Path:
    """Write the manifest with its digest, beside weights, tokenizer, chat template, prompt and schema."""
    from tasks.release.language import language_parts
    from tasks.release.seal import seal

    return seal(candidate, verdict, language_parts(candidate, verdict, spec), context)


@stage("register", lambda release: f"version {release.version}, challenger")
def register_release(folder: Path, tracking: Tracking) -> Release:
    """Register the release as a version of the case's model in MLflow."""
    from tasks.release.registry import register

    return register(tracking, folder)


@stage("promote to champion", lambda version: f"version {version}")
def promote_release(release: Release, tracking: Tracking) -> str:
    """Move the champion alias, as the last step."""
    from tasks.release.registry import promote

    promote(tracking, release)
    return release.version
