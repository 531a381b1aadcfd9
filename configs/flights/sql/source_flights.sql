-- One row a flight. `raw` is the published table; local New York times become UTC moments.
SELECT
    strftime(make_date(year, month, day), '%Y-%m-%d') || '-' || carrier || '-' || flight || '-' || origin AS flight_id,
    time_hour + to_minutes(minute)                                        AS scheduled_at,
    -- a request to predict comes an hour before the scheduled departure
    time_hour + to_minutes(minute) - INTERVAL 60 MINUTE                   AS asked_at,
    carrier, flight::INTEGER AS flight, tailnum, origin, dest,
    carrier || flight || ' ' || origin                                    AS service,
    distance::INTEGER                                                     AS distance,
    sched_dep_time::INTEGER AS sched_dep_time, sched_arr_time::INTEGER AS sched_arr_time,
    hour::INTEGER AS hour, (hour * 60 + minute)::INTEGER                  AS minute_of_day,
    isodow(make_date(year, month, day))::INTEGER                          AS weekday,
    make_date(year, month, day)                                           AS day,
    -- the departure is seen as it happens
    time_hour + to_minutes((minute + dep_delay)::INTEGER)                            AS departed_at,
    dep_time::INTEGER AS dep_time, dep_delay::INTEGER                     AS dep_delay,
    -- how the flight ended is published on the next day at noon
    (make_date(year, month, day) + INTERVAL 36 HOUR)::TIMESTAMP AT TIME ZONE 'UTC' AS published_at,
    arr_time::INTEGER AS arr_time, arr_delay::INTEGER AS arr_delay, air_time::INTEGER AS air_time,
    -- more than 15 minutes late, or cancelled, or diverted
    (arr_delay IS NULL OR arr_delay > 15)::INTEGER                        AS late
FROM raw
