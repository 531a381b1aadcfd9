-- The newest published observation. Temperature, dew point and pressure are left out on purpose: a model trained on
-- winter takes them for a calendar, and April's AUC falls by .01.
SELECT origin, observed_at AS event_timestamp, published_at AS created_timestamp,
       humid, wind_speed, wind_gust, precip, visib
FROM weather
