"""The approval section of a case."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tasks.core.config import Duration, Section


class ApprovalRule(Section):
    """A person must approve a release that has passed its gates before it takes over."""

    within: Duration = Field(timedelta(days=3), description="An approval that is pending for this long is rejected.")
