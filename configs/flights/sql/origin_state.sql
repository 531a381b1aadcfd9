-- What an airport's departures look like right now: each half hour, the flights that were due in the last three hours.
-- A flight that has not left yet counts with the delay it has so far: that is seen, how late it will be is not.
WITH seen AS (
    SELECT origin, scheduled_at, departed_at,
           unnest(range(time_bucket(INTERVAL 30 MINUTE, scheduled_at) + INTERVAL 30 MINUTE,
                        scheduled_at + INTERVAL 181 MINUTE, INTERVAL 30 MINUTE)) AS event_timestamp
    FROM flights
),
delays AS (
    SELECT origin, event_timestamp, scheduled_at > event_timestamp - INTERVAL 1 HOUR AS last_hour,
           departed_at IS NULL OR departed_at > event_timestamp AS waiting,
           date_diff('minute', scheduled_at, least(coalesce(departed_at, event_timestamp), event_timestamp)) AS delay
    FROM seen
)
SELECT origin, event_timestamp,
       avg(delay)                               AS origin_delay_3h,
       avg((delay > 15)::INTEGER)               AS origin_late_3h,
       avg(delay) FILTER (last_hour)            AS origin_delay_1h,
       avg((waiting AND delay > 15)::INTEGER)   AS origin_waiting_3h,
       count(*)::DOUBLE                         AS origin_due_3h
FROM delays GROUP BY ALL
