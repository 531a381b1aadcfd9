"""The approval section of a case."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tasks.core.config import Duration, Section


class ApprovalRule(Section):
    """A person must approve each release that passed its gates before it becomes champion."""

    within: Duration = Field(timedelta(days=3), description="A request that is pending for this long is rejected.")
