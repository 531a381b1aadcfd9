"""Releases in MLflow's model registry: one version for each release, and the aliases champion and challenger.

A language release's prompt is registered with it, and its aliases move with the release's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DriftlineError, InputError, NoDataYet
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.features.results import Column
from tasks.release.prompt_registry import move_to_production, register_prompt, unregister_prompts
from tasks.release.results import Release
from tasks.release.seal import MANIFEST, read_manifest, release_folder
from tasks.train.results import Candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"


def register(tracking: Tracking, folder: Path) -> Release:
    """Register a sealed release as a version of its case's model, once, and as the challenger."""
    client = mlflow_client(tracking)
    manifest = read_manifest(folder)
    case, digest, run_id = manifest["sealed"]["case"], manifest["digest"], manifest["recorded"]["run_id"]
    version = _version_of(client, case, digest)
    if version is None:
        _ensure_registered_model(client, case)
        tags = {"release": digest, "as_of": manifest["sealed"]["as_of"], "weights": manifest["sealed"]["weights"]}
        model = _logged_model(client, run_id)
        # not models:/m-..., which MLflow resolves at the process's global address instead of the client's
        version = client.create_model_version(
            case, model.artifact_location, run_id=run_id, tags=tags, model_id=model.model_id
        )
    if manifest["sealed"]["kind"] == "llm":
        register_prompt(client, case, folder, digest)
    if CHAMPION not in version.aliases:
        client.set_registered_model_alias(case, CHALLENGER, version.version)
    return read_release(folder, str(version.version))


def promote(tracking: Tracking, release: Release) -> None:
    """Make a registered release the champion; only the last step, moving the alias, takes effect."""
    client = mlflow_client(tracking)
    version = client.get_model_version(release.case, release.version)
    if CHAMPION in version.aliases:
        return
    if release.kind == "llm":
        move_to_production(client, release.case, release.folder, release.digest)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(release.case, release.version, "promoted_at", now)
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(release.case, CHALLENGER)
    client.set_registered_model_alias(release.case, CHAMPION, release.version)


def unregister(tracking: Tracking, case: str) -> bool:
    """Delete a case's registered model and prompt with all versions and aliases; False when there is no model."""
    from mlflow.exceptions import MlflowException

    client = mlflow_client(tracking)
    unregister_prompts(client, case)
    try:
        client.get_registered_model(case)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    client.delete_registered_model(case)
    return True


def load_champion(tracking: Tracking, state: Path, case: str) -> Release | None:
    """The release that the champion alias names, or None.

    Raises: DriftlineError when its folder is gone.
    """
    from mlflow.exceptions import MlflowException

    try:
        version = mlflow_client(tracking).get_model_version_by_alias(case, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return _load(state, case, version)


def require_champion(case: str, tracking: Tracking, state: Path) -> Release:
    """The case's champion.

    Raises: NoDataYet when it has none.
    """
    champion = load_champion(tracking, state, case)
    if champion is None:
        raise NoDataYet(f"Case {case} has no champion yet.", where=tracking.uri, todo=f"driftline run {case}")
    return champion


def load_predecessor(tracking: Tracking, state: Path, release: Release) -> Release | None:
    """The newest earlier release that was a champion, or None."""
    versions = mlflow_client(tracking).search_model_versions(f"name = '{release.case}'", max_results=1000)
    local = [version for version in versions if _is_local(state, release.case, version)]
    earlier = [_load(state, release.case, version) for version in local if "promoted_at" in version.tags]
    earlier = [other for other in earlier if other.as_of < release.as_of]
    return max(earlier, key=lambda other: (other.as_of, int(other.version)), default=None)


def champion_of_candidate(
    tracking: Tracking, state: Path, candidate: Candidate, lineage: Mapping[str, str]
) -> Release | None:
    """The champion, if it consists of this very candidate; then a restarted run has nothing to release."""
    release = load_champion(tracking, state, candidate.case)
    if release is None:
        return None
    sealed = read_manifest(release.folder)["sealed"]
    expected = {
        "as_of": candidate.as_of.astimezone(UTC).isoformat(),
        "weights": candidate.weights_digest,
        "imported": candidate.imported,
        "data": candidate.data_digest,
        "definitions": candidate.definitions_digest,
        "config": lineage["case_digest"],
        "lock": lineage["lock_digest"],
        "commit": lineage["commit"],
        "dirty": lineage["dirty"] == "true",
    }
    return release if all(sealed.get(name) == value for name, value in expected.items()) else None


def list_releases(tracking: Tracking, state: Path, case: str) -> list[Release]:
    """All registered releases of a case with a local folder, newest version first."""
    versions = sorted(_versions(mlflow_client(tracking), case), key=lambda version: int(version.version), reverse=True)
    return [_load(state, case, version) for version in versions if _is_local(state, case, version)]


def resolve_release(tracking: Tracking, state: Path, case: str, reference: str) -> Release:
    """The release of a digest, a digest's prefix, a version number or an alias.

    Raises: InputError naming the existing releases.
    """
    known = list_releases(tracking, state, case)
    if reference in (CHAMPION, CHALLENGER):
        versions = [v.version for v in _versions(mlflow_client(tracking), case) if reference in v.aliases]
        matches = [release for release in known if release.version in map(str, versions)]
    else:
        exact = [release for release in known if release.version == reference.removeprefix("v")]
        matches = exact or [
            release for release in known if len(reference) >= 4 and release.digest.startswith(reference)
        ]
    if len(matches) == 1:
        return matches[0]
    raise InputError(
        f"{'No release' if not matches else 'More than one release'} of {case} has the name {reference}.",
        where=str(state / "releases" / case),
        found=reference,
        allowed=", ".join(f"{release.digest[:12]} (version {release.version})" for release in known) or "none yet",
        todo=f"Name one of these, or create one: driftline run {case}",
    )


def _is_local(state: Path, case: str, version: ModelVersion) -> bool:
    return (release_folder(state, case, version.tags.get("release", "?")) / MANIFEST).is_file()


def _versions(client: MlflowClient, case: str) -> list[ModelVersion]:
    """All versions with their aliases, which a search omits."""
    found = client.search_model_versions(f"name = '{case}'", max_results=1000)
    return [client.get_model_version(case, version.version) for version in found if "release" in version.tags]


def _version_of(client: MlflowClient, case: str, digest: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{case}' and tags.release = '{digest}'")
    return client.get_model_version(case, found[0].version) if found else None


def _ensure_registered_model(client: MlflowClient, case: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(case)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _logged_model(client: MlflowClient, run_id: str) -> LoggedModel:
    outputs = client.get_run(run_id).outputs
    models = [output.model_id for output in outputs.model_outputs] if outputs else []
    if not models:
        raise DriftlineError(
            "The candidate's run has no logged model.", where=f"run {run_id}", todo="Train the candidate again."
        )
    return client.get_logged_model(models[-1])


def _load(state: Path, case: str, version: ModelVersion) -> Release:
    digest = version.tags.get("release", "")
    folder = release_folder(state, case, digest)
    if not digest or not (folder / MANIFEST).is_file():
        raise DriftlineError(
            "The registry names a release whose folder is gone.",
            where=str(folder),
            found=f"{case} version {version.version}, aliases {', '.join(version.aliases) or 'none'}",
            todo=f"Restore the folder from a copy, or create a new release: driftline run {case}",
        )
    return read_release(folder, str(version.version))


def read_release(folder: Path, version: str) -> Release:
    """The release in a folder, with its version in the registry."""
    manifest = read_manifest(folder)
    sealed = manifest["sealed"]
    return Release(
        case=sealed["case"],
        digest=manifest["digest"],
        as_of=datetime.fromisoformat(sealed["as_of"]),
        folder=folder,
        bento=f"{sealed['case']}:{manifest['digest'][:12]}",
        version=version,
        run_id=manifest["recorded"]["run_id"],
        kind=sealed["kind"],
        columns=tuple(
            Column.model_validate({name: column[name] for name in Column.model_fields})
            for column in sealed.get("columns", ())
        ),
    )
