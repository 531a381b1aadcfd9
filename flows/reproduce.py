"""A sealed release built again from its manifest, in a folder of its own, and compared with what was sealed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field

from flows.case import load_case
from flows.run_context import Request, run_context
from flows.selftest import selftest_gates
from flows.steps import TrainResult, create_candidate, evaluate, seal_release
from tasks.backtest.sandbox import REMOTE_SETTINGS
from tasks.core.config import Section
from tasks.core.errors import DriftlineError, InputError
from tasks.core.progress import progress_step
from tasks.core.settings import Settings, settings
from tasks.core.yaml_file import load_yaml
from tasks.data.snapshots import restore_snapshot
from tasks.govern.reproduction import Reproduction, compare_releases
from tasks.guard.files import trained_folder
from tasks.release.registry import read_release
from tasks.release.results import Release
from tasks.release.seal import read_manifest, release_folder, verify
from tasks.release.task import require_promotion


class ReproduceRequest(Section):
    """The parameters of a reproduction."""

    case: str = Field(description="Name of a folder under configs/.")
    release: str = Field(description="Digest of the release.")
    profile: str | None = Field(None, description="The profile that the release was sealed with.")


@flow(name="reproduce")
def reproduce(request: ReproduceRequest) -> Reproduction:
    """Pull the snapshot, train, evaluate and seal again, and compare each part with the sealed release."""
    config = settings()
    folder = release_folder(config.state, request.case, request.release)
    manifest = verify(folder)
    sealed = manifest["sealed"]
    world = clean_settings(config, request.case, request.release)
    as_of = datetime.fromisoformat(sealed["as_of"])
    with run_context(Request(case=request.case, as_of=as_of, profile=request.profile), world) as run:
        store = world.state / "store"
        with progress_step("pull the snapshot") as step:
            text = manifest["recorded"]["snapshot"]
            snapshot = restore_snapshot(request.case, as_of, text, store=store, remote=config.remote)
            step.figure = f"{sum(snapshot.rows.values()):,} rows, {snapshot.digest[:12]}"
        candidate = create_candidate(run, snapshot)
        verdict = evaluate(run, candidate, _champion(config.state, request.case, sealed["verdict"]["champion"]))
        require_promotion(request.case, verdict)
        tested = selftest_gates(run.case, candidate, verdict)
        rebuilt = seal_release(run, TrainResult(snapshot=snapshot, candidate=candidate, verdict=verdict), tested)
        return compare_releases(folder, rebuilt, (manifest, read_manifest(rebuilt)))


def clean_settings(config: Settings, case: str, digest: str) -> Settings:
    """Settings under STATE/reproduce/CASE/DIGEST, without servers; only the trained guardrails are those of the state.

    A reproduction that was killed goes on in its folder.
    """
    world = config.state / "reproduce" / case / digest[:12]
    world.mkdir(parents=True, exist_ok=True)
    link = trained_folder(world)
    if trained_folder(config.state).is_dir() and not link.is_symlink():
        link.symlink_to(trained_folder(config.state))
    own: dict[str, Any] = {"state": world, "data": world / "data", **dict.fromkeys(REMOTE_SETTINGS, "")}
    return config.model_copy(update=own)


def sealed_profile(case: str, cases: Path, digest: str) -> str | None:
    """The profile whose configuration has this digest; None: the case without one.

    Raises: InputError when the configuration has changed since.
    """
    profiles = load_yaml((cases / case / "case.yaml").read_text(encoding="utf-8")).get("profiles") or {}
    names: list[str | None] = [None, *profiles]
    for profile in names:
        if load_case(case, cases, profile).digest == digest:
            return profile
    raise InputError(
        "The case's configuration is not the one that was sealed.",
        where=str(cases / case),
        found=load_case(case, cases).digest[:12],
        allowed=digest[:12],
        todo="Check out the commit of the release: driftline show names it.",
    )


def _champion(state: Path, case: str, digest: str | None) -> Release | None:
    """The release that the sealed one was compared with. Raises: DriftlineError when its folder is gone."""
    if digest is None:
        return None
    folder = release_folder(state, case, digest)
    if not folder.is_dir():
        raise DriftlineError(
            "The champion that the release was compared with is gone, so its verdict can't be computed again.",
            where=str(folder),
            todo="Restore the folder from a backup.",
        )
    verify(folder)
    return read_release(folder, "")
