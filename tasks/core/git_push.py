"""A git push, as a repository hook or the gateway's webhook reports it to Prefect."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from tasks.core.config import Section

COMMIT_PATTERN = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
PUSH_DEPLOYMENT = "push/push"


class GitPush(Section):
    """One ref of a repository moved from one commit to another."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: str = Field(pattern=r"^[\w.-]{1,80}$", description="Id of the push, equal for each delivery.")
    ref: str = Field(pattern=r"^refs/.", description="Pushed ref: refs/heads/BRANCH or refs/tags/TAG.")
    old: str = Field(pattern=COMMIT_PATTERN, description="Commit before the push; zeros: the ref is new.")
    new: str = Field(
        pattern=COMMIT_PATTERN, description="Commit or annotated tag after the push; zeros: the ref was deleted."
    )
    repository: str = Field("", max_length=200, description="Repository that received the push.")
    pusher: str = Field(
        "", alias="who", max_length=120, description="The user who pushed, as the git server knows them."
    )

    @property
    def tag(self) -> str:
        """The pushed tag's name; empty for a branch."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else ""

    def triggers(self, branch: str) -> bool:
        """Whether the push starts runs: a push of the branch or of a tag does, unless it deletes the ref."""
        return bool(self.new.strip("0")) and (bool(self.tag) or self.ref == f"refs/heads/{branch}")

    @property
    def run(self) -> dict[str, Any]:
        """The body that creates the flow run; a second delivery returns the existing run.

        A run rather than an event: the server holds an accepted event in memory for a while, and drops it when no
        automation waits for it, while a run is in the database before the server responds.
        """
        return {"parameters": {"request": self.model_dump()}, "idempotency_key": f"push {self.id}"}
