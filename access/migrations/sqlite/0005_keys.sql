-- How many events a key publishes in a second, where its owner declared that; without it there is no bound.
ALTER TABLE api_keys ADD COLUMN events_per_second INTEGER;
