"""What a case says of the person whose word a release waits for."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tasks.core.config import Duration, Section


class ApprovalRule(Section):
    """A person's word before a release that has passed its gates takes over."""

    within: Duration = Field(timedelta(days=3), description="Nobody answering for so long is a no.")
