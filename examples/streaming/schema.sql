CREATE TABLE measurements (id serial PRIMARY KEY, value float NOT NULL);
INSERT INTO measurements (value) SELECT random() FROM generate_series(1, 2000);
