"""The price table of a case, which its releases seal."""

from __future__ import annotations

from pydantic import Field

from tasks.core.config import Section

NANO = 1_000_000_000  # money is counted in integer billionths: sums of floats would lose precision


class Price(Section):
    """Price of an answer, in the currency of the budgets. Each release keeps the price it was sealed with."""

    tokens_in: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")
    tokens_cached: float = Field(0.0, ge=0, description="Price of a million cached prompt tokens.")
    tokens_out: float = Field(0.0, ge=0, description="Price of a million answer tokens.")
    machine_hour: float = Field(
        0.10,
        ge=0,
        description="Price of an hour of the serving machine. With an openai:// model 0, unless it is set.",
    )

    def of(self, fresh: int, cached: int, out: int, seconds: float) -> int:
        """The price of a call in billionths; `fresh` and `cached` are the uncached and cached tokens of its prompt."""
        tokens = fresh * self.tokens_in + cached * self.tokens_cached + out * self.tokens_out
        return round(NANO * (tokens / 1_000_000 + seconds * self.machine_hour / 3600))
