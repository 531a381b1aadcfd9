-- Hourly observations at the three airports of departure, published a quarter of an hour after the hour.
SELECT origin, time_hour AS observed_at, time_hour + INTERVAL 15 MINUTE AS published_at,
       temp::DOUBLE AS temp, dewp::DOUBLE AS dewp, humid::DOUBLE AS humid, wind_dir::DOUBLE AS wind_dir,
       wind_speed::DOUBLE AS wind_speed, wind_gust::DOUBLE AS wind_gust, precip::DOUBLE AS precip,
       pressure::DOUBLE AS pressure, visib::DOUBLE AS visib
FROM raw
