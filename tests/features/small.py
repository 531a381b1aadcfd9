"""SQL of a small case over flights and weather, and its snapshot."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tasks.data.results import Snapshot

AS_OF = datetime(2013, 1, 20, tzinfo=UTC)

EXAMPLES = """
    SELECT flight_id AS example_id, asked_at AS event_timestamp, carrier, origin, dest, hour, late FROM flights
"""
CARRIER_DAY = """
    SELECT carrier, max(scheduled_at) AS event_timestamp, max(published_at) AS created_timestamp,
           avg(late) AS carrier_late, any_value('day of ' || carrier) AS carrier_words
    FROM flights WHERE late IS NOT NULL GROUP BY carrier, published_at
"""
WEATHER = "SELECT origin, time_hour AS event_timestamp, temp, wind_gust FROM weather"


def snapshot(folder: Path, digest: str = "january.dir") -> Snapshot:
    return Snapshot(case="small", as_of=AS_OF, digest=digest, path=folder, rows={}, quarantined={}, docs={})
