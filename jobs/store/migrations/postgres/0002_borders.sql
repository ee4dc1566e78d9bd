-- In the order in which a turn takes them: it holds its row of `owners` when it comes to `jobs`, and while the
-- rows are looked through below it would wait for this migration, and this migration for it.
LOCK TABLE {schema}.owners, {schema}.jobs, {schema}.attempts IN ACCESS EXCLUSIVE MODE;

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

-- What a stranger's plain SQL may have written beyond all bounds comes back within them: such a row
-- stopped every claim of its queue, or hid all others from `list`. This reads the table twice.
UPDATE {schema}.jobs SET
    created_at = least(greatest(created_at, '0001-01-01Z'), '9999-12-31 23:59:59.999Z'),
    claimed_at = CASE WHEN claimed_at IS NOT NULL
        THEN least(greatest(claimed_at, '0001-01-01Z'), '9999-12-31 23:59:59.999Z') END,
    started_at = CASE WHEN started_at IS NOT NULL
        THEN least(greatest(started_at, '0001-01-01Z'), '9999-12-31 23:59:59.999Z') END,
    finished_at = CASE WHEN finished_at IS NOT NULL
        THEN least(greatest(finished_at, '0001-01-01Z'), '9999-12-31 23:59:59.999Z') END,
    attempt = least(greatest(attempt, 0), 1000000000),
    claims = least(greatest(claims, 0), 1000000000),
    losses = least(greatest(losses, 0), 1000000000)
WHERE NOT (created_at BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND coalesce(claimed_at, created_at) BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND coalesce(started_at, created_at) BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND coalesce(finished_at, created_at) BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND attempt BETWEEN 0 AND 1000000000 AND claims BETWEEN 0 AND 1000000000
    AND losses BETWEEN 0 AND 1000000000);
-- An id that is no number of a job gets one.
DELETE FROM {schema}.attempts WHERE job NOT BETWEEN 1 AND (1::bigint << 62);
UPDATE {schema}.jobs SET id = nextval({jobs_id}) WHERE id NOT BETWEEN 1 AND (1::bigint << 62);
ALTER TABLE {schema}.jobs
    ADD CONSTRAINT "id is 1 to 2**62" CHECK (id BETWEEN 1 AND (1::bigint << 62)),
    ADD CONSTRAINT "created_at is of the years 1 to 9999"
        CHECK (created_at >= '0001-01-01Z' AND created_at < '10000-01-01Z'),
    ADD CONSTRAINT "claimed_at is of the years 1 to 9999"
        CHECK (claimed_at >= '0001-01-01Z' AND claimed_at < '10000-01-01Z'),
    ADD CONSTRAINT "started_at is of the years 1 to 9999"
        CHECK (started_at >= '0001-01-01Z' AND started_at < '10000-01-01Z'),
    ADD CONSTRAINT "finished_at is of the years 1 to 9999"
        CHECK (finished_at >= '0001-01-01Z' AND finished_at < '10000-01-01Z'),
    ADD CONSTRAINT "attempt is 0 to 1_000_000_000" CHECK (attempt BETWEEN 0 AND 1000000000),
    ADD CONSTRAINT "claims is 0 to 1_000_000_000" CHECK (claims BETWEEN 0 AND 1000000000),
    ADD CONSTRAINT "losses is 0 to 1_000_000_000" CHECK (losses BETWEEN 0 AND 1000000000);

-- The same for the history, and for the tables of processes: what is beyond these bounds nobody of ours
-- has written.
UPDATE {schema}.attempts SET
    started_at = CASE WHEN isfinite(started_at) THEN least(greatest(started_at, '0001-01-01Z'), '9999-12-31 23:59:59.999Z') END,
    finished_at = least(greatest(finished_at, '0001-01-01Z'), '9999-12-31 23:59:59.999Z')
WHERE NOT (finished_at BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND coalesce(started_at, finished_at) BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z');
ALTER TABLE {schema}.attempts
    ADD CONSTRAINT "started_at is of the years 1 to 9999"
        CHECK (started_at >= '0001-01-01Z' AND started_at < '10000-01-01Z'),
    ADD CONSTRAINT "finished_at is of the years 1 to 9999"
        CHECK (finished_at >= '0001-01-01Z' AND finished_at < '10000-01-01Z');
DELETE FROM {schema}.families WHERE NOT (started_at BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND heartbeat_at BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND dead_after_ms BETWEEN 1 AND 1000000000000 AND pid BETWEEN 0 AND 2147483647);
ALTER TABLE {schema}.families
    ADD CONSTRAINT "started_at is of the years 1 to 9999"
        CHECK (started_at >= '0001-01-01Z' AND started_at < '10000-01-01Z'),
    ADD CONSTRAINT "heartbeat_at is of the years 1 to 9999"
        CHECK (heartbeat_at >= '0001-01-01Z' AND heartbeat_at < '10000-01-01Z'),
    ADD CONSTRAINT "dead_after_ms is 1 to 10**12" CHECK (dead_after_ms BETWEEN 1 AND 1000000000000),
    ADD CONSTRAINT "pid is 0 to 2**31 - 1" CHECK (pid BETWEEN 0 AND 2147483647);
DELETE FROM {schema}.owners WHERE NOT (started_at BETWEEN '0001-01-01Z' AND '9999-12-31 23:59:59.999Z'
    AND pid BETWEEN 0 AND 2147483647);
ALTER TABLE {schema}.owners
    ADD CONSTRAINT "started_at is of the years 1 to 9999"
        CHECK (started_at >= '0001-01-01Z' AND started_at < '10000-01-01Z'),
    ADD CONSTRAINT "pid is 0 to 2**31 - 1" CHECK (pid BETWEEN 0 AND 2147483647);

-- What a drain waits for, what a person is told of: by indexes of their own, however large the table is.
CREATE INDEX jobs_deferred ON {schema}.jobs (queue) WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze');
DROP INDEX {schema}.jobs_retrying;
CREATE INDEX jobs_blocked ON {schema}.jobs (queue) WHERE state = 'blocked';
CREATE INDEX jobs_unknown ON {schema}.jobs (task) WHERE state = 'scheduled' AND deferred = 'unknown';

-- What changed, for those who follow it: a row for each transaction that changed jobs while somebody does.
-- `jobs` holds their ids between commas; NULL says that they are too many to be told.
CREATE TABLE {schema}.changes (
    number bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    jobs   text,
    at     timestamptz NOT NULL
);
-- Until when somebody follows, in milliseconds. A sequence, because it is seen by all at once, locks nobody
-- and leaves no dead row.
CREATE SEQUENCE {schema}.followed;

-- These with their owner's rights: a role that may work needs no more rights for the feed.
CREATE FUNCTION {schema}.is_followed() RETURNS boolean LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Not longer than anybody may ask for, where a clock was set back.
    RETURN coalesce(pg_sequence_last_value({followed}), 0) - {schema}.ms({schema}.clock()) BETWEEN 1 AND 3600000;
END
$$;
-- Nobody has followed for a while, and what changed meanwhile was not kept: more than can be told.
CREATE FUNCTION {schema}.follow_anew() RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {schema}.changes (jobs, at) SELECT NULL, {schema}.clock() WHERE NOT {schema}.is_followed();
END
$$;
CREATE FUNCTION {schema}.follow(for_ms bigint) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now_ms CONSTANT bigint := {schema}.ms({schema}.clock());
BEGIN
    -- A time that a clock set back has left goes.
    PERFORM setval({followed}, greatest(now_ms + least(for_ms, 3600000), least(
        coalesce(pg_sequence_last_value({followed}), 0), now_ms + 3600000)));
END
$$;
-- What a transaction has changed; with an owner and a claim also what these hold. Whether somebody follows.
CREATE FUNCTION {schema}.tell(told text, of_owner bigint, of_claim bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT {schema}.is_followed() THEN
        RETURN false;
    END IF;
    IF of_owner IS NOT NULL AND told IS NOT NULL THEN
        told := concat_ws(',', nullif(told, ''), (SELECT string_agg(id::text, ',') FROM {schema}.jobs
            WHERE state = 'running' AND owner = of_owner AND claim = of_claim));
    END IF;
    IF told IS DISTINCT FROM '' THEN
        INSERT INTO {schema}.changes (jobs, at) VALUES (told, {schema}.clock());
    END IF;
    RETURN true;
END
$$;
-- The newest stays: it is how a follower knows that nothing was trimmed between it and what comes next.
CREATE FUNCTION {schema}.trim_changes(age_ms bigint, kept bigint, at_once bigint) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest CONSTANT bigint := (SELECT max(number) FROM {schema}.changes);
BEGIN
    RETURN QUERY DELETE FROM {schema}.changes WHERE number = ANY (ARRAY(SELECT number
        FROM (SELECT number, at FROM {schema}.changes ORDER BY number LIMIT at_once) AS oldest
        WHERE number < newest
            AND (at <= {schema}.clock() - age_ms * interval '1 ms' OR number <= newest - kept)))
    RETURNING number;
END
$$;
