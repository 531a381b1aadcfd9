"""What a case says of how a new release takes over its traffic."""

from __future__ import annotations

from pydantic import Field

from tasks.core.config import Section


class Step(Section):
    """A share that the new release has until so many calls have shown that it may have the next one."""

    percent: float = Field(
        ge=0, le=100, description="Share of the users; 0: a shadow, whose answers are only recorded."
    )
    requests: int = Field(200, ge=10, description="Fewest calls before the next step.")


class Plan(Section):
    """How a new release takes over by steps; after the last one it is the champion. It goes back by itself."""

    steps: tuple[Step, ...] = Field(min_length=1)
    failed: float = Field(0.05, gt=0, lt=1, description="Most failed calls, as a share.")
    slow_s: float = Field(2.0, gt=0, description="A call that takes longer is slow.")
    slow: float = Field(0.10, gt=0, lt=1, description="Most slow calls, as a share.")
    disliked: float = Field(0.5, gt=0, lt=1, description="Most answers judged bad, as a share of those judged.")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Chance that a plan is ever ended by mistake.")
