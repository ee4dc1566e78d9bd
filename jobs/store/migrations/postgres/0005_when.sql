-- In the order in which a turn takes them: it holds its row of `owners` when it comes to `jobs`.
LOCK TABLE {schema}.owners, {schema}.jobs IN ACCESS EXCLUSIVE MODE;

-- When a job runs, and how many at once. What a job does not use is NULL, or 0; `special` has a bit for each
-- thing that whoever runs the job must look at, so that an ordinary job is told by one number. In a fair queue
-- `turn` is its place in line, `share` on whose behalf it runs; `parked` is what a blocked row waits for, and
-- `limit_place` its place in its limit, while it runs (a statement of 0.5.0 calls
-- another thing `place`). NOT VALID spares a look at each row that is there: none has
-- anything in these columns yet. New rows are held to it.
ALTER TABLE {schema}.jobs
    ADD COLUMN special integer NOT NULL DEFAULT 0,
    ADD COLUMN turn bigint NOT NULL DEFAULT 0,
    ADD COLUMN limit_key text,
    ADD COLUMN share text,
    ADD COLUMN weight integer,
    ADD COLUMN parked text,
    ADD COLUMN limit_place integer,
    ADD COLUMN debounce_ms bigint,
    ADD COLUMN deadline_at timestamptz,
    ADD COLUMN prune_at timestamptz,
    ADD COLUMN keep_ms bigint,
    ADD COLUMN held_key text,
    ADD COLUMN held_until timestamptz,
    ADD CONSTRAINT "special is 0 to 2**31 - 1" CHECK (special >= 0) NOT VALID,
    ADD CONSTRAINT "turn is 0 to 2**62" CHECK (turn BETWEEN 0 AND (1::bigint << 62)) NOT VALID,
    ADD CONSTRAINT "limit_key is a text of 1 to 500 characters"
        CHECK (length(limit_key) BETWEEN 1 AND 500) NOT VALID,
    ADD CONSTRAINT "share is a text of 1 to 500 characters" CHECK (length(share) BETWEEN 1 AND 500) NOT VALID,
    ADD CONSTRAINT "weight is 1 to 1_000" CHECK (weight BETWEEN 1 AND 1000) NOT VALID,
    ADD CONSTRAINT "parked is a text of 1 to 600 characters"
        CHECK (length(parked) BETWEEN 1 AND 600) NOT VALID,
    ADD CONSTRAINT "limit_place is 0 to 2**31 - 1" CHECK (limit_place >= 0) NOT VALID,
    ADD CONSTRAINT "debounce_ms is 0 to 10**15" CHECK (debounce_ms BETWEEN 0 AND 1000000000000000) NOT VALID,
    ADD CONSTRAINT "deadline_at is of the years 1 to 9999"
        CHECK (deadline_at >= '0001-01-01Z' AND deadline_at < '10000-01-01Z') NOT VALID,
    ADD CONSTRAINT "prune_at is of the years 1 to 9999"
        CHECK (prune_at >= '0001-01-01Z' AND prune_at < '10000-01-01Z') NOT VALID,
    ADD CONSTRAINT "held_key is a text of 1 to 500 characters" CHECK (length(held_key) BETWEEN 1 AND 500) NOT VALID,
    ADD CONSTRAINT "held_until is of the years 1 to 9999"
        CHECK (held_until >= '0001-01-01Z' AND held_until < '10000-01-01Z') NOT VALID,
    ADD CONSTRAINT "keep_ms is 0 to 10**15" CHECK (keep_ms BETWEEN 0 AND 1000000000000000) NOT VALID;

-- In the order in which a claim takes them. In the place of the old ones, because each of them costs an
-- insert a tenth and more; the statements of 0.5.0 find their rows by them, and sort.
DROP INDEX {schema}.jobs_pending;
CREATE INDEX jobs_pending ON {schema}.jobs (queue, priority DESC, turn, id) WHERE state = 'pending';
DROP INDEX {schema}.jobs_suspects;
CREATE INDEX jobs_suspects ON {schema}.jobs (queue, priority DESC, turn, id)
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0);

-- An ordinary job is in none of these.
CREATE INDEX jobs_shares ON {schema}.jobs (queue, priority, share, turn)
    WHERE share IS NOT NULL AND state = 'pending';
CREATE UNIQUE INDEX jobs_places ON {schema}.jobs (limit_key, limit_place)
    WHERE limit_place IS NOT NULL AND state = 'running';
CREATE INDEX jobs_limited ON {schema}.jobs (owner, claim) WHERE limit_key IS NOT NULL AND state = 'running';
CREATE INDEX jobs_candidates ON {schema}.jobs (limit_key, queue)
    WHERE limit_key IS NOT NULL AND state = 'pending';
CREATE INDEX jobs_parked ON {schema}.jobs (parked, queue, priority DESC, turn, id)
    WHERE parked IS NOT NULL AND state = 'blocked';
CREATE INDEX jobs_expiring ON {schema}.jobs (expires_at)
    WHERE expires_at IS NOT NULL AND (state = 'scheduled' OR state = 'pending' OR state = 'blocked');
CREATE INDEX jobs_deadlines ON {schema}.jobs (deadline_at)
    WHERE deadline_at IS NOT NULL
        AND (state = 'scheduled' OR state = 'pending' OR state = 'blocked' OR state = 'running');
CREATE INDEX jobs_kept ON {schema}.jobs (prune_at) WHERE prune_at IS NOT NULL;

-- How many jobs of a name may run at once (`concurrency`), and how many may start in `per_ms` (`rate`, and
-- `burst` more at once); what a limit does not limit is NULL. `source` says who set it.
CREATE TABLE {schema}.limits (
    name        text    COLLATE "C" PRIMARY KEY,
    concurrency integer CHECK (concurrency >= 0),
    rate        bigint  CHECK (rate > 0),
    per_ms      bigint  CHECK (per_ms > 0),
    burst       bigint  CHECK (burst > 0),
    source      text    NOT NULL
);

-- Each key that such a limit is applied to, and when its next job may start.
CREATE TABLE {schema}.limit_keys (
    key     text        COLLATE "C" PRIMARY KEY,
    name    text        NOT NULL,
    next_at timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX limit_keys_next ON {schema}.limit_keys (next_at) WHERE next_at IS NOT NULL;

-- How far each priority of a fair queue has come.
CREATE TABLE {schema}.turns (
    queue     text        NOT NULL COLLATE "C",
    priority  integer     NOT NULL,
    turn      bigint      NOT NULL,
    raised_at timestamptz NOT NULL,
    PRIMARY KEY (queue, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

-- What is said of a queue as a whole; a queue of which nothing is said has no row.
CREATE TABLE {schema}.queues (
    name         text        COLLATE "C" PRIMARY KEY,
    fair         integer     NOT NULL DEFAULT 0 CHECK (fair BETWEEN 0 AND 1),
    paused_at    timestamptz,
    paused_until timestamptz
);
ALTER TABLE {schema}.tasks ADD COLUMN paused_at timestamptz, ADD COLUMN paused_until timestamptz;
CREATE INDEX tasks_paused ON {schema}.tasks (name) WHERE paused_at IS NOT NULL;  -- `told` is long: none is read for it

-- What is enqueued again and again, by a cron pattern or every so many milliseconds from `anchor` on. `source`
-- says who declared it, `family` under which name, `paused_config` whether it declared it paused.
CREATE TABLE {schema}.schedules (
    name          text        COLLATE "C" PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 400),
    source        text        NOT NULL DEFAULT 'added', -- config, code, or added at run time
    family        text,                                 -- the name of the family that declares it
    declared_by   text        NOT NULL DEFAULT '[]',    -- the ids of those that do (JSON)
    task          text        NOT NULL,
    cron          text,
    every_ms      bigint,
    anchor        timestamptz NOT NULL DEFAULT to_timestamp(0),
    timezone      text        NOT NULL DEFAULT 'UTC',
    args          json        NOT NULL DEFAULT '[]',
    kwargs        json        NOT NULL DEFAULT '{{}}',
    keys          text        NOT NULL DEFAULT '{{}}',    -- what functions of the task make of the arguments (JSON)
    queue         text,
    catch_up      text        NOT NULL DEFAULT 'latest',
    overlap       text        NOT NULL DEFAULT 'allow',
    paused_config integer     NOT NULL DEFAULT 0,
    paused_at     timestamptz,
    last_tick     timestamptz NOT NULL DEFAULT {schema}.clock(),  -- up to here ticks have been looked after
    last_job      bigint,
    created_at    timestamptz NOT NULL DEFAULT {schema}.clock()
);

-- The moments for which a schedule has enqueued a job: one for each, whoever comes first.
CREATE TABLE {schema}.ticks (
    schedule text        NOT NULL COLLATE "C",
    tick     timestamptz NOT NULL,
    job      bigint      NOT NULL,
    PRIMARY KEY (schedule, tick)
);

-- Keys that are held longer, or otherwise, than by an unfinished job: until a moment, or (NULL) as long as the
-- row of the job is there. `digest` is of what was asked for.
CREATE TABLE {schema}.uniques (
    key    text        COLLATE "C" PRIMARY KEY,
    job    bigint      NOT NULL,
    until  timestamptz,
    digest text
);
CREATE INDEX uniques_job ON {schema}.uniques (job);
CREATE INDEX uniques_until ON {schema}.uniques (until) WHERE until IS NOT NULL;

-- Raises where there is a row of `uniques` for a key. It looks with a snapshot of its own: called for a row that has
-- just been inserted under that key, it sees what those have committed that the insert has waited for.
CREATE FUNCTION {schema}.refuse_held(asked text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM {schema}.uniques WHERE key = asked;
    IF FOUND THEN
        RAISE unique_violation USING MESSAGE = 'another job may hold the unique key';
    END IF;
    RETURN false;
END
$$;

-- One more with each change of what is said of queues, tasks and limits: who has read them sees that they are old.
INSERT INTO {schema}.meta (key, value) VALUES ('settings', '1');
-- With its owner's rights: a role that may work may not write the numbers of the schema.
CREATE FUNCTION {schema}.note_settings() RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE {schema}.meta SET value = (value::bigint + 1)::text WHERE key = 'settings';
END
$$;

CREATE OR REPLACE VIEW {schema}.jobs_readable AS
SELECT id, state, task, args, kwargs, queue, priority, attempt, attempts_max, error, result, progress,
    run_at, created_at, claimed_at, started_at, finished_at, unique_key, deferred, cancel_requested,
    losses, owner, claim, headers, parent, company, cpu_ms, rss_bytes, limit_key, share, weight, turn, parked,
    limit_place, expires_at, deadline_at, prune_at
FROM {schema}.jobs;

-- Roles that were granted their work, to read, or to enqueue, before there were these tables.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT quote_ident(pg_get_userbyid(grantee)) AS role, bool_or(privilege_type = 'UPDATE') AS works,
            has_table_privilege(grantee, {attempts_table}::regclass, 'SELECT') AS reads
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = {jobs_table}::regclass AND grantee <> relowner AND grantee <> 0
        GROUP BY grantee HAVING bool_or(privilege_type = 'SELECT')
    LOOP
        IF granted.reads AND granted.works THEN
            EXECUTE $q$GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.limits, {schema}.limit_keys, {schema}.turns, {schema}.queues, {schema}.schedules, {schema}.ticks, {schema}.uniques TO $q$ || granted.role;
        ELSIF granted.reads THEN
            EXECUTE $q$GRANT SELECT ON {schema}.limits, {schema}.limit_keys, {schema}.turns, {schema}.queues, {schema}.schedules, {schema}.ticks, {schema}.uniques TO $q$ || granted.role;
        ELSE
            EXECUTE $q$GRANT SELECT ON {schema}.turns, {schema}.queues TO $q$ || granted.role;
            EXECUTE $q$GRANT SELECT (version, heartbeat_at, dead_after_ms, died_at) ON {schema}.families TO $q$ || granted.role;
            EXECUTE $q$GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.uniques TO $q$ || granted.role;
        END IF;
    END LOOP;
END
$$;
