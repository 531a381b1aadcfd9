"""The prompts of a case's releases in MLflow's prompt registry, and the aliases candidate and production.

The aliases follow the registered model's: a verdict to promote makes a prompt the candidate, a promotion or a rollback
the one in production. Nothing else moves them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import Result
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.language.messages import SYSTEM, chat_message
from tasks.language.prompts import released_prompt

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE, PRODUCTION = "candidate", "production"


class RegisteredPrompt(Result):
    """A version in the registry."""

    version: int
    name: str  # of its file; empty: it stands in the case
    digest: str
    release: str  # digest of the first release with it
    at: datetime
    aliases: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.name or 'inline'}@{self.digest[:12]}"


def registry_name(case: str) -> str:
    """The prompt of a case in the registry, where prompts and models share their names."""
    return f"{case}-prompt"


def register_prompt(client: MlflowClient, case: str, folder: Path, release: str) -> None:
    """Register the prompt of a sealed release, once for each digest, and make it the candidate."""
    prompt = released_prompt(folder)
    known = _find(client, case, prompt.digest)
    if known is None:
        decoding = prompt.parameters
        options: dict[str, Any] = {"temperature": decoding.temperature, "max_tokens": decoding.max_tokens}
        options |= {"stop_sequences": list(decoding.stop) or None}
        known = client.register_prompt(
            registry_name(case),
            [each.model_dump() for each in prompt.messages] or [chat_message(SYSTEM, prompt.system)],
            commit_message=prompt.notes[:500] or prompt.label,
            tags={"digest": prompt.digest, "name": prompt.name, "release": release},
            model_config={name: value for name, value in options.items() if value is not None},
        )
    if PRODUCTION not in client.get_prompt_version(registry_name(case), known.version).aliases:
        client.set_prompt_alias(registry_name(case), CANDIDATE, known.version)


def move_to_production(client: MlflowClient, case: str, folder: Path, release: str) -> None:
    """Make the prompt of a release that becomes champion the one in production."""
    digest = released_prompt(folder).digest
    if _find(client, case, digest) is None:
        register_prompt(client, case, folder, release)  # an earlier version of Driftline released it
    version = _find(client, case, digest)
    aliases = client.get_prompt_version(registry_name(case), version.version).aliases
    if CANDIDATE in aliases:
        client.delete_prompt_alias(registry_name(case), CANDIDATE)
    client.set_prompt_alias(registry_name(case), PRODUCTION, version.version)


def registered_prompts(tracking: Tracking, case: str) -> list[RegisteredPrompt]:
    """All versions of a case's prompt, the newest first."""
    client, name = mlflow_client(tracking), registry_name(case)
    found = []
    for each in _versions(client, case):
        version = client.get_prompt_version(name, each.version)  # a search omits the aliases
        at = datetime.fromtimestamp((version.creation_timestamp or 0) / 1000, UTC)
        tags = {tag: version.tags.get(tag, "") for tag in ("name", "digest", "release")}
        found.append(RegisteredPrompt(version=version.version, at=at, aliases=tuple(version.aliases), **tags))
    return sorted(found, key=lambda each: -each.version)


def unregister_prompts(client: MlflowClient, case: str) -> None:
    """Delete all versions."""
    if client.get_prompt(name := registry_name(case)) is not None:
        client.delete_prompt(name)


def _find(client: MlflowClient, case: str, digest: str) -> Any:
    """The version of a digest, or None."""
    return next((each for each in _versions(client, case) if each.tags.get("digest") == digest), None)


def _versions(client: MlflowClient, case: str) -> list[Any]:
    name = registry_name(case)
    if client.get_prompt(name) is None:
        return []
    versions: list[Any] = []
    page: str | None = None
    while True:
        found = client.search_prompt_versions(name, max_results=200, page_token=page)
        versions += found
        page = getattr(found, "token", None)
        if not page:
            return versions
