-- How a route did over the last four weeks, by what was published at noon. The same for a carrier or an airport was
-- tried and left out: over three months of training a tree learns the days by heart from it.
WITH days AS (
    SELECT origin || '-' || dest AS route, day, max(published_at) AS event_timestamp,
           sum(late) AS late, count(late) AS flights
    FROM flights WHERE late IS NOT NULL GROUP BY ALL
)
SELECT route, event_timestamp, sum(late) OVER month / sum(flights) OVER month AS route_late_28d
FROM days
WINDOW month AS (PARTITION BY route ORDER BY day RANGE BETWEEN INTERVAL 27 DAY PRECEDING AND CURRENT ROW)
