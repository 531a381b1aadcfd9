"""The schedules of a case's deployed flows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from tasks.core.config import Section


def _check_cron(text: str) -> str:
    from cronsim import CronSim, CronSimError

    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"not a cron expression: {error}; an example is 0 6 * * *, every day at six") from error
    return text


Cron = Annotated[str, AfterValidator(_check_cron)]


class Schedule(Section):
    """Cron schedules of a case's deployed flows. The decision of a monitor run starts retrain."""

    prepare: Cron | None = Field(None, description="Cron expression; empty: not scheduled.")
    monitor: Cron | None = Field(None, description="Cron expression; empty: not scheduled.")
    timezone: str = Field("UTC", description="Time zone of both schedules, such as Europe/Vienna.")

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("unknown time zone; an example is Europe/Vienna") from error
        return name
