-- One row a flight of the schedule. `raw` is the published table; local New York times become UTC moments.
SELECT
    strftime(make_date(year, month, day), '%Y-%m-%d') || '-' || carrier || '-' || flight || '-' || origin AS flight_id,
    time_hour + to_minutes(minute)                      AS scheduled_at,
    time_hour + to_minutes(minute) - INTERVAL 60 MINUTE AS asked_at,
    carrier, flight::INTEGER AS flight, origin, dest,
    make_date(year, month, day)                         AS day
FROM raw
