-- What messages may name: one row a flight. `day` keeps the last days for the evaluation; the rest is text as travellers
-- write it: the flight number with or without a space, airports by code or by name, the date in one of three styles.
WITH names(code, name) AS (VALUES
    ('EWR', 'Newark'), ('JFK', 'Kennedy'), ('LGA', 'LaGuardia'), ('ATL', 'Atlanta'), ('ORD', 'Chicago'), ('BOS', 'Boston'),
    ('MCO', 'Orlando'), ('LAX', 'Los Angeles'), ('FLL', 'Fort Lauderdale'), ('CLT', 'Charlotte'), ('MIA', 'Miami'),
    ('SFO', 'San Francisco'), ('DCA', 'Washington'), ('DFW', 'Dallas'), ('DTW', 'Detroit'), ('RDU', 'Raleigh-Durham'),
    ('PBI', 'Palm Beach'), ('TPA', 'Tampa'), ('DEN', 'Denver'), ('IAH', 'Houston'), ('MSP', 'Minneapolis'),
    ('SJU', 'San Juan'), ('IAD', 'Dulles'), ('BNA', 'Nashville'), ('LAS', 'Las Vegas'), ('RSW', 'Fort Myers'),
    ('CLE', 'Cleveland'), ('PHX', 'Phoenix'), ('BUF', 'Buffalo'), ('STL', 'St. Louis'), ('MDW', 'Midway'),
    ('CVG', 'Cincinnati'), ('CMH', 'Columbus'), ('MSY', 'New Orleans'), ('SEA', 'Seattle'), ('PIT', 'Pittsburgh'),
    ('MKE', 'Milwaukee'), ('BTV', 'Burlington'), ('BWI', 'Baltimore'), ('JAX', 'Jacksonville'), ('AUS', 'Austin'),
    ('SLC', 'Salt Lake City'), ('SAN', 'San Diego'), ('ROC', 'Rochester'), ('RIC', 'Richmond'), ('CHS', 'Charleston')
)
SELECT
    day,
    carrier || CASE WHEN flight // 3 % 3 = 0 THEN ' ' ELSE '' END || flight               AS flight,
    CASE WHEN (flight // 5 + dayofyear(day)) % 3 = 0 THEN start.name ELSE origin END      AS origin,
    CASE WHEN (flight // 7 + dayofyear(day)) % 2 = 0 THEN coalesce(goal.name, dest) ELSE dest END AS dest,
    dest                                                                                  AS code,
    CASE (flight + dayofyear(day)) % 3
        WHEN 0 THEN strftime(day, '%Y-%m-%d')
        WHEN 1 THEN strftime(day, '%B %-d')
        ELSE strftime(day, '%d/%m/%Y')
    END                                                                                   AS date
FROM flights
JOIN names AS start ON start.code = origin
LEFT JOIN names AS goal ON goal.code = dest
