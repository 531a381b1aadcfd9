-- What messages may name: one row a flight. `day` keeps the last days for the evaluation; the rest is text as travellers
-- write it: the flight number with or without a space, the date in one of three styles.
SELECT
    day,
    carrier || CASE WHEN flight // 3 % 3 = 0 THEN ' ' ELSE '' END || flight AS flight,
    origin,
    dest,
    CASE (flight + dayofyear(day)) % 3
        WHEN 0 THEN strftime(day, '%Y-%m-%d')
        WHEN 1 THEN strftime(day, '%B %-d')
        ELSE strftime(day, '%d/%m/%Y')
    END AS date
FROM flights
