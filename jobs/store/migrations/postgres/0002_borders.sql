-- A name for the time between two crashes of the server: it is kept where a crash, and a standby that takes
-- over, leave nothing. Numbers of transactions that had not reached the disk are given out again after
-- a crash, so what became of one is asked only under the name it was given out under.
CREATE UNLOGGED TABLE {schema}.incarnation (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    name text    NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', '')
);

-- The name, made by the first who connects; within a transaction it is only read, so that nobody waits for
-- the end of somebody else's. With its owner's rights: whoever may enqueue may ask.
CREATE FUNCTION {schema}.incarnation(may_make boolean) RETURNS text LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    SELECT name INTO found FROM {schema}.incarnation;
    IF found IS NULL AND may_make AND current_setting('transaction_read_only') = 'off' THEN
        INSERT INTO {schema}.incarnation DEFAULT VALUES ON CONFLICT DO NOTHING;
        SELECT name INTO found FROM {schema}.incarnation;
    END IF;
    RETURN found;
END
$$;

-- What a client called a job that it enqueued by a single statement: where the answer was lost, it looks
-- for it among the newest rows. An id or a moment can be given out twice across a crash, this cannot.
ALTER TABLE {schema}.jobs ADD COLUMN nonce bigint;

-- As before, without a call from one function to another and a query of the sequence: every statement that
-- inserts pays for this.
CREATE OR REPLACE FUNCTION {schema}.wake_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint;
BEGIN
    IF coalesce(current_setting('jobvisor.notify', true), '') = 'off' THEN
        RETURN NULL;
    END IF;
    now_ms := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
    IF abs(now_ms - coalesce(pg_sequence_last_value({woken}), 0)) >= 5 THEN
        PERFORM setval({woken}, now_ms);
        PERFORM pg_notify({channel}, '');
    END IF;
    RETURN NULL;
END
$$;

-- Not IMMUTABLE as it was: what it calls is only STABLE, and then the planner would not inline it but start
-- an executor for each call, 20 us for each statement and 1 us for each row. As a float, which is exact
-- enough for milliseconds and half the work of a numeric.
CREATE OR REPLACE FUNCTION {schema}.ms(moment timestamptz) RETURNS bigint LANGUAGE sql STABLE
    AS $$SELECT (date_part('epoch', moment) * 1000)::bigint$$;

-- The history of a job goes with it. The foreign key did the same by a query for each deleted row, half the
-- cost of a settle where succeeded rows are not kept; a row that ran for the first time has no history.
ALTER TABLE {schema}.attempts DROP CONSTRAINT attempts_job_fkey;
CREATE FUNCTION {schema}.forget_attempts() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM {schema}.attempts WHERE job = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER jobs_forget AFTER DELETE ON {schema}.jobs FOR EACH ROW
    WHEN (OLD.state <> 'running' OR OLD.claims > 1) EXECUTE FUNCTION {schema}.forget_attempts();
