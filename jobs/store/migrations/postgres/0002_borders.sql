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
