"""The settings of a case for a search."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tasks.core.config import Duration, Section
from tasks.core.errors import InputError
from tasks.data.config import Model
from tasks.release.config import Price
from tasks.statistics.metric_catalog import MetricName

FORM = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|-calls?|-trials?|\$|€)")
SECONDS = {"s": 1, "m": 60, "h": 3600}
ALLOWED = "time, such as 90s, 15m or 1h; 2000-calls of a language model; money, such as 0.20$; 30-trials"


class Limit(Section):
    """The most that a search may spend; a part that is empty has no limit."""

    seconds: float | None = None
    calls: int | None = None
    money: float | None = None
    trials: int | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `15m`, `2000-calls` or `0.20$`; several with blanks between. Raises: InputError."""
        found: dict[str, Any] = {}
        for word in text.split():
            match = FORM.fullmatch(word)
            if match is None or not float(match[1]):
                found = {}
                break
            amount, unit = float(match[1]), match[2]
            if unit in SECONDS:
                found["seconds"] = amount * SECONDS[unit]
            elif unit in ("$", "€"):
                found["money"] = amount
            else:
                found[unit.strip("-").rstrip("s") + "s"] = int(amount)
        if not found:
            raise InputError("The budget can't be read.", where="budget", found=text, allowed=ALLOWED)
        return cls(**found)

    @property
    def text(self) -> str:
        """As people write it."""
        parts = [] if self.seconds is None else [f"{self.seconds:g} s"]
        parts += [] if self.calls is None else [f"{self.calls:,} calls"]
        parts += [] if self.money is None else [f"{self.money:g} in money"]
        parts += [] if self.trials is None else [f"{self.trials:,} trials"]
        return ", ".join(parts)


def _check_budget(text: str) -> str:
    try:
        Limit.parse(text)
    except InputError as error:
        raise ValueError(f"{error.what} Allowed: {error.allowed}") from error
    return text


Budget = Annotated[str, AfterValidator(_check_budget)]


class OtherModel(Model):
    """Another base model that a search of a language case tries."""

    price: Price | None = Field(None, description="Price of its answers. Empty: that of the case.")


OF_TABLES = ("metric", "families", "ms_per_row", "monotone", "gap")


class Search(Section):
    """How a better configuration of the case is searched: `driftline search`."""

    budget: Budget | None = Field(
        None, description=f"Of `driftline run`, which then searches before it trains: {ALLOWED}. Empty: no search."
    )
    prefer: Literal["quality", "cheap"] = Field(
        "quality", description="quality: the best; cheap: the one that answers fastest of those within `within`."
    )
    within: float = Field(0.01, ge=0, description="How much worse than the best a cheap one may be, in the metric.")
    metric: MetricName | None = Field(
        None,
        description="Metric of a table to search by. Empty: auc of classes, r2 of numbers. A language case is searched "
        "by evaluate.champion_gate.loss.",
    )
    families: tuple[str, ...] = Field((), description="Families of models to try. Empty: all that fit the size.")
    ms_per_row: float | None = Field(
        None, gt=0, description="Most milliseconds of one row alone. Empty: that of evaluate."
    )
    monotone: dict[str, Literal["increasing", "decreasing"]] = Field(
        {}, description="Columns with which a prediction may only rise, or only fall; boosting alone can hold that."
    )
    gap: Duration | None = Field(
        None,
        description="Time between rows that are fitted and rows that are predicted. Empty: as the data shows.",
    )
    call_cost: float | None = Field(None, gt=0, description="Most money of a call of a language case.")
    models: dict[str, OtherModel] = Field(
        {}, description="Other base models of a language case to try, by a name of yours; they answer untuned."
    )
    seed: int = Field(0, ge=0, description="Seed of the sampler.")

    @property
    def of_tables(self) -> list[str]:
        """The keys that are set, and that only the search of a table knows."""
        return [name for name in OF_TABLES if name in self.model_fields_set]
