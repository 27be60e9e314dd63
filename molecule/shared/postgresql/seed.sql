-- The database of a shop, with everything wrong that a review ought to find. Reads \set faults 1 or 0.
CREATE EXTENSION pg_stat_statements;
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES customers,
  placed_at timestamptz NOT NULL,
  total numeric NOT NULL
);
CREATE INDEX orders_customer ON orders (customer_id);
CREATE TABLE approvals (id bigint PRIMARY KEY, order_id bigint REFERENCES orders, created_at timestamptz NOT NULL, note text);
CREATE INDEX approvals_created ON approvals (created_at);
CREATE INDEX approvals_order ON approvals (order_id);
CREATE TABLE approvals_archive (LIKE approvals INCLUDING ALL);
CREATE TABLE user_sessions (id bigint PRIMARY KEY, created_at timestamptz NOT NULL, expires_at timestamptz);
CREATE INDEX user_sessions_expires ON user_sessions (expires_at);
CREATE TABLE uploads (id bigint PRIMARY KEY, path text NOT NULL);

INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 500) n;
INSERT INTO orders (customer_id, placed_at, total)
  SELECT 1 + n % 500, now() - n * interval '1 minute', n FROM generate_series(1, 20000) n;
INSERT INTO approvals SELECT n, n, now() - n * interval '1 day', 'note ' || n FROM generate_series(1, 700) n;
INSERT INTO user_sessions
  SELECT n, now() - n * interval '1 hour' - interval '1 day', now() - n * interval '1 hour' FROM generate_series(1, 1000) n;
INSERT INTO uploads VALUES (1, 'kept.pdf');

\if :faults
CREATE INDEX orders_customer_again ON orders (customer_id);
CREATE INDEX orders_broken ON orders (total);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_broken'::regclass;
CREATE TABLE events (customer_id bigint REFERENCES customers, said text);
CREATE UNLOGGED TABLE carts (id bigint PRIMARY KEY);
CREATE TABLE "Old Invoices" (id serial PRIMARY KEY);
SELECT setval(pg_get_serial_sequence('"Old Invoices"', 'id'), 2100000000);
ALTER TABLE orders ADD CONSTRAINT total_positive CHECK (total >= 0) NOT VALID;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER audit BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE orders DISABLE TRIGGER audit;
GRANT CREATE ON SCHEMA public TO PUBLIC;
\endif

VACUUM (ANALYZE);

\if :faults
INSERT INTO events SELECT 1 + n % 500, repeat('x', 200) FROM generate_series(1, 20000) n;
ALTER TABLE events SET (autovacuum_enabled = false);
DELETE FROM events WHERE customer_id > 100;
\endif
