"""The rollout section of a case."""

from __future__ import annotations

from pydantic import Field

from tasks.core.config import Section


class Step(Section):
    """A share of the traffic, held until enough calls show that the release meets the limits."""

    percent: float = Field(
        ge=0, le=100, description="Percentage of the users; 0: shadow traffic, whose answers are only recorded."
    )
    requests: int = Field(200, ge=10, description="Minimum calls before the next step.")


class Plan(Section):
    """A new release takes over step by step; after the last step it is champion. It is rolled back automatically."""

    steps: tuple[Step, ...] = Field(min_length=1)
    failed: float = Field(0.05, gt=0, lt=1, description="Maximum share of failed calls.")
    slow_s: float = Field(2.0, gt=0, description="Seconds; a call that takes longer is slow.")
    slow: float = Field(0.10, gt=0, lt=1, description="Maximum share of slow calls.")
    disliked: float = Field(0.5, gt=0, lt=1, description="Maximum share of negative feedback.")
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Probability that the rollout of a good release is rolled back by mistake."
    )
