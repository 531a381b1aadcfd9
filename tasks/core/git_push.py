"""A git push, as whoever saw it tells Prefect: a hook of a repository, or the gateway's webhook."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.core.config import Section

COMMIT = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
DEPLOYMENT = "push/push"  # that takes it


class GitPush(Section):
    """One ref of a repository went from one commit to another."""

    id: str = Field(pattern=r"^[\w.-]{1,80}$", description="The same for each delivery of the same push.")
    ref: str = Field(pattern=r"^refs/.", description="What was pushed: refs/heads/BRANCH or refs/tags/TAG.")
    old: str = Field(pattern=COMMIT, description="Commit that it named before; zeros: it is new.")
    new: str = Field(pattern=COMMIT, description="Commit, or annotated tag, that it names now; zeros: it is deleted.")
    repository: str = Field("", max_length=200, description="Where it was pushed to.")
    who: str = Field("", max_length=120, description="Who pushed, as the git server knows them.")

    @property
    def tag(self) -> str:
        """The tag's name; empty: no tag was pushed."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else ""

    def counts(self, branch: str) -> bool:
        """May it start anything? The branch and tags may, unless they were deleted."""
        return bool(self.new.strip("0")) and (bool(self.tag) or self.ref == f"refs/heads/{branch}")

    @property
    def run(self) -> dict[str, Any]:
        """What Prefect is asked to create: a second delivery gives the run that is there already.

        A run rather than an event: an event that was accepted lives in the server's memory for a while, and one that
        nobody waits for yet is gone, where a run is in the database once it is answered.
        """
        return {"parameters": {"request": self.model_dump()}, "idempotency_key": f"push {self.id}"}
