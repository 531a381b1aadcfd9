-- What an airline's departures from New York look like right now, as origin_state has it for an airport: its crews and
-- planes go from one airport to the other.
WITH seen AS (
    SELECT carrier, scheduled_at, departed_at,
           unnest(range(time_bucket(INTERVAL 30 MINUTE, scheduled_at) + INTERVAL 30 MINUTE,
                        scheduled_at + INTERVAL 181 MINUTE, INTERVAL 30 MINUTE)) AS event_timestamp
    FROM flights
),
delays AS (
    SELECT carrier, event_timestamp,
           departed_at IS NULL OR departed_at > event_timestamp AS waiting,
           date_diff('minute', scheduled_at, least(coalesce(departed_at, event_timestamp), event_timestamp)) AS delay
    FROM seen
)
SELECT carrier, event_timestamp,
       avg(delay)                               AS carrier_delay_3h,
       avg((delay > 15)::INTEGER)               AS carrier_late_3h,
       avg((waiting AND delay > 15)::INTEGER)   AS carrier_waiting_3h
FROM delays GROUP BY ALL
