-- One row a flight, at the moment somebody asks: an hour before its scheduled departure.
SELECT flight_id AS example_id, asked_at AS event_timestamp,
       carrier, origin, dest, origin || '-' || dest AS route, service, hour, minute_of_day, weekday, distance, late
FROM flights
