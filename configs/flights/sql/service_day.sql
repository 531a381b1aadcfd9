-- How the same flight of other days did over the last four weeks, by what was published at noon.
SELECT service, event_timestamp, sum(late) OVER month / sum(flights) OVER month AS service_late_28d
FROM (
    SELECT service, day, max(published_at) AS event_timestamp, sum(late) AS late, count(late) AS flights
    FROM flights WHERE late IS NOT NULL GROUP BY ALL
)
WINDOW month AS (PARTITION BY service ORDER BY day RANGE BETWEEN INTERVAL 27 DAY PRECEDING AND CURRENT ROW)
