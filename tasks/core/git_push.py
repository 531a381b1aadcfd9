"""A git push, as whoever saw it tells Prefect: a hook of a repository, or the gateway's webhook."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from tasks.core.config import Section

COMMIT_PATTERN = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
PUSH_DEPLOYMENT = "push/push"  # that takes it


class GitPush(Section):
    """One ref of a repository moved from one commit to another."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: str = Field(pattern=r"^[\w.-]{1,80}$", description="The same for each delivery of the same push.")
    ref: str = Field(pattern=r"^refs/.", description="What was pushed: refs/heads/BRANCH or refs/tags/TAG.")
    old: str = Field(pattern=COMMIT_PATTERN, description="Commit before the push; zeros: the ref is new.")
    new: str = Field(
        pattern=COMMIT_PATTERN, description="Commit or annotated tag after the push; zeros: the ref was deleted."
    )
    repository: str = Field("", max_length=200, description="Where it was pushed to.")
    pusher: str = Field(
        "", alias="who", max_length=120, description="The user who pushed, as the git server knows them."
    )

    @property
    def tag(self) -> str:
        """The tag's name; empty: no tag was pushed."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else ""

    def triggers(self, branch: str) -> bool:
        """May it start anything? The branch and tags may, unless they were deleted."""
        return bool(self.new.strip("0")) and (bool(self.tag) or self.ref == f"refs/heads/{branch}")

    @property
    def run(self) -> dict[str, Any]:
        """What Prefect is asked to create: a second delivery gives the run that is there already.

        A run rather than an event: an event that was accepted lives in the server's memory for a while, and one that
        nobody waits for yet is gone, where a run is in the database once it is answered.
        """
        return {"parameters": {"request": self.model_dump()}, "idempotency_key": f"push {self.id}"}
