-- In the order in which a turn takes them: it holds its row of `owners` when it comes to `jobs`.
LOCK TABLE {schema}.owners, {schema}.jobs IN ACCESS EXCLUSIVE MODE;

-- When a job runs, and how many at once. What a job does not use is NULL, or 0; `special` has a bit for each
-- thing that whoever runs the job must look at, so that an ordinary job is told by one number. In a fair queue
-- `turn` is its place in line, `share` on whose behalf it runs; `parked` is what a blocked row waits for, and
-- `limit_place` its place in its limit, while it runs (a statement of 0.5.0 calls
-- another thing `place`).
ALTER TABLE {schema}.jobs
    ADD COLUMN special integer NOT NULL DEFAULT 0,
    ADD COLUMN turn bigint NOT NULL DEFAULT 0,
    ADD COLUMN limit_key text COLLATE "C",
    ADD COLUMN share text,
    ADD COLUMN weight integer,
    ADD COLUMN parked text COLLATE "C",
    ADD COLUMN limit_place integer,
    ADD COLUMN debounce_ms bigint,
    ADD COLUMN deadline_at timestamptz,
    ADD COLUMN keep json,
    ADD COLUMN held_key text,
    ADD COLUMN held_until timestamptz;

-- What a row may hold: true, or an error that says which of its columns may not hold that.
CREATE FUNCTION {schema}.row_fits(job {schema}.jobs) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    oldest CONSTANT timestamptz := '0001-01-01Z';
    latest CONSTANT timestamptz := '10000-01-01Z';
    wrong CONSTANT text := CASE
        WHEN job.task = '' THEN 'jobs_task_check'
        WHEN job.queue IN ('', '*') THEN 'jobs_queue_check'
        WHEN job.state NOT IN ('scheduled', 'pending', 'blocked', 'running', 'succeeded', 'failed', 'cancelled')
            THEN 'jobs_state_check'
        WHEN job.run_at < oldest OR job.run_at >= latest THEN 'jobs_run_at_check'
        WHEN job.attempts_max <= 0 THEN 'jobs_attempts_max_check'
        WHEN job.timeout_ms < 0 THEN 'jobs_timeout_ms_check'
        WHEN job.memory_bytes < 0 THEN 'jobs_memory_bytes_check'
        WHEN job.expires_at < oldest OR job.expires_at >= latest THEN 'jobs_expires_at_check'
        WHEN job.id NOT BETWEEN 1 AND (1::bigint << 62) THEN 'id is 1 to 2**62'
        WHEN job.created_at < oldest OR job.created_at >= latest THEN 'created_at is of the years 1 to 9999'
        WHEN job.claimed_at < oldest OR job.claimed_at >= latest THEN 'claimed_at is of the years 1 to 9999'
        WHEN job.started_at < oldest OR job.started_at >= latest THEN 'started_at is of the years 1 to 9999'
        WHEN job.finished_at < oldest OR job.finished_at >= latest THEN 'finished_at is of the years 1 to 9999'
        WHEN job.attempt NOT BETWEEN 0 AND 1000000000 THEN 'attempt is 0 to 1_000_000_000'
        WHEN job.claims NOT BETWEEN 0 AND 1000000000 THEN 'claims is 0 to 1_000_000_000'
        WHEN job.losses NOT BETWEEN 0 AND 1000000000 THEN 'losses is 0 to 1_000_000_000'
        WHEN job.parent NOT BETWEEN 1 AND (1::bigint << 62) THEN 'parent is 1 to 2**62'
        WHEN job.company < 1 THEN 'company is 1 to 32_767'
        WHEN job.cpu_ms NOT BETWEEN 0 AND 1000000000000 THEN 'cpu_ms is 0 to 10**12'
        WHEN job.rss_bytes NOT BETWEEN 0 AND (1::bigint << 62) THEN 'rss_bytes is 0 to 2**62'
        WHEN job.special < 0 THEN 'special is 0 to 2**31 - 1'
        WHEN job.turn NOT BETWEEN 0 AND (1::bigint << 62) THEN 'turn is 0 to 2**62'
        WHEN length(job.limit_key) NOT BETWEEN 1 AND 500 THEN 'limit_key is a text of 1 to 500 characters'
        WHEN length(job.share) NOT BETWEEN 1 AND 500 THEN 'share is a text of 1 to 500 characters'
        WHEN job.weight NOT BETWEEN 1 AND 1000 THEN 'weight is 1 to 1_000'
        WHEN length(job.parked) NOT BETWEEN 1 AND 600 THEN 'parked is a text of 1 to 600 characters'
        WHEN job.limit_place < 0 THEN 'limit_place is 0 to 2**31 - 1'
        WHEN job.debounce_ms NOT BETWEEN 0 AND 1000000000000000 THEN 'debounce_ms is 0 to 10**15'
        WHEN job.deadline_at < oldest OR job.deadline_at >= latest THEN 'deadline_at is of the years 1 to 9999'
        WHEN length(job.held_key) NOT BETWEEN 1 AND 500 THEN 'held_key is a text of 1 to 500 characters'
        WHEN job.held_until < oldest OR job.held_until >= latest THEN 'held_until is of the years 1 to 9999'
        WHEN job.keep::text !~ '^\s*\{{\s*("(cancelled|failed|succeeded)"\s*:\s*[0-9]{{1,13}}\s*,?\s*){{0,3}}\}}\s*$'
            THEN 'keep is the JSON of an object of milliseconds by state'
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE check_violation USING MESSAGE = 'new row of jobs violates check constraint "' || wrong || '"',
            CONSTRAINT = wrong;
    END IF;
    RETURN true;
END
$$;
-- Each statement that writes prepares all CHECKs of its table anew, by their text: those of 0.5.0, one for each column,
-- took half of the time of the INSERT or the claim of one job (55 of 120 us, measured). So one stands for
-- them, which an ordinary row passes without a call; it may be narrower than what the function allows.
-- NOT VALID spares a look at each row that is there: the old ones have seen them, and of the new columns they have none.
DO $$
DECLARE
    old text;
BEGIN
    FOR old IN SELECT conname FROM pg_constraint WHERE conrelid = {jobs_table}::regclass AND contype = 'c' AND (conname
        ~ 'jobs_(task|queue|state|run_at|attempts_max|timeout_ms|memory_bytes|expires_at)_check$' OR conname IN (
            'id is 1 to 2**62', 'created_at is of the years 1 to 9999', 'claimed_at is of the years 1 to 9999',
            'started_at is of the years 1 to 9999', 'finished_at is of the years 1 to 9999',
            'attempt is 0 to 1_000_000_000', 'claims is 0 to 1_000_000_000', 'losses is 0 to 1_000_000_000',
            'parent is 1 to 2**62', 'company is 1 to 32_767', 'cpu_ms is 0 to 10**12', 'rss_bytes is 0 to 2**62'))
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', {jobs_table}::regclass, old);
    END LOOP;
END
$$;
ALTER TABLE {schema}.jobs ADD CONSTRAINT "the row fits" CHECK (
    task <> '' AND queue <> ALL ('{{"",*}}'::text[])
    AND state = ANY ('{{scheduled,pending,blocked,running,succeeded,failed,cancelled}}'::text[])
    AND least(run_at, created_at, claimed_at, started_at, finished_at, expires_at, deadline_at, held_until)
        >= '0001-01-01Z'
    AND greatest(run_at, created_at, claimed_at, started_at, finished_at, expires_at, deadline_at, held_until)
        < '10000-01-01Z'
    AND least(attempt, claims, losses, timeout_ms, memory_bytes, cpu_ms, rss_bytes) >= 0
    AND greatest(attempt, claims, losses, cpu_ms) <= 1000000000
    AND least(id, attempts_max, parent, company) > 0 AND greatest(id, parent, rss_bytes) <= 4611686018427387904
    AND special = 0 AND share IS NULL AND keep IS NULL
    OR {schema}.row_fits({schema}.jobs.*)) NOT VALID;

-- In the order in which a claim takes them. In the place of the old ones, because each of them costs an
-- insert a tenth and more; the statements of 0.5.0 find their rows by them, and sort.
DROP INDEX {schema}.jobs_pending;
CREATE INDEX jobs_pending ON {schema}.jobs (queue, priority DESC, turn, id) WHERE state = 'pending';
DROP INDEX {schema}.jobs_suspects;
CREATE INDEX jobs_suspects ON {schema}.jobs (queue, priority DESC, turn, id)
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0);

-- So that whoever removes jobs by their age can go on behind one among many that ended in the same moment.
DROP INDEX {schema}.jobs_finished;
CREATE INDEX jobs_finished ON {schema}.jobs (state, finished_at, id) WHERE finished_at IS NOT NULL;

-- Each statement that writes opens and locks every index of its table, and prepares its condition anew: so these have
-- short ones, three old ones become one, and of running rows one is enough. (A backend has 16 cheap locks.)
DROP INDEX {schema}.jobs_cancelling;
DROP INDEX {schema}.jobs_unknown;
DROP INDEX {schema}.jobs_blocked;
DROP INDEX {schema}.jobs_deferred;
CREATE INDEX jobs_resting ON {schema}.jobs (state, queue, deferred)
    WHERE deferred IS NOT NULL OR state = 'blocked';
-- And what runs and was asked to end is among those that people look for: 0.5.0 asks for it in the order of the ids,
-- many times a second, and would walk along all of them.
DROP INDEX {schema}.jobs_listed;
CREATE INDEX jobs_listed ON {schema}.jobs (state, id)
    WHERE state IN ('scheduled', 'blocked', 'failed', 'cancelled') OR state = 'running' AND cancel_requested = 1;

-- An ordinary job is in none of these.
CREATE INDEX jobs_shares ON {schema}.jobs (queue, priority, share, turn)
    WHERE share IS NOT NULL AND state = 'pending';
CREATE UNIQUE INDEX jobs_places ON {schema}.jobs (limit_key, limit_place)
    WHERE limit_key IS NOT NULL AND state = 'running';
CREATE INDEX jobs_candidates ON {schema}.jobs (limit_key, queue, priority DESC, turn, id)
    WHERE limit_key IS NOT NULL AND state = 'pending';
CREATE INDEX jobs_parked ON {schema}.jobs (parked, queue, priority DESC, turn, id)
    WHERE parked IS NOT NULL;
-- When time alone ends a waiting row, or removes a finished one that says itself how long it is kept, its key included:
-- reckoned, so that it is right whoever ends a row. (Milliseconds are no days: a time zone has no say in them.)
CREATE FUNCTION {schema}.kept_until(finished_at timestamptz, keep json, state text, held_until timestamptz)
    RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$SELECT CASE WHEN keep ->> state IS NOT NULL
        THEN greatest(finished_at + (keep ->> state)::bigint * interval '1 ms', held_until) END$$;
CREATE INDEX jobs_timed ON {schema}.jobs (num_nulls(finished_at), (CASE WHEN finished_at IS NULL
        THEN least(expires_at, deadline_at) ELSE {schema}.kept_until(finished_at, keep, state, held_until) END))
    WHERE expires_at IS NOT NULL OR deadline_at IS NOT NULL OR keep IS NOT NULL;

-- Finished jobs go, and the histories of all of them at once: by the trigger, a query for each, half the cost of
-- removing a job (measured). Whoever calls it has locked their rows. Where they go by their age (`aged`) the commit
-- does not wait for the disk: what a crash brings back goes again.
CREATE FUNCTION {schema}.remove(which bigint[], aged boolean) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
    IF aged THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM set_config('jobvisor.forgets', 'off', true);
    RETURN QUERY DELETE FROM {schema}.jobs WHERE id = ANY (which) RETURNING id;
    DELETE FROM {schema}.attempts WHERE job = ANY (which);
    PERFORM set_config('jobvisor.forgets', '', true);
END
$$;
DROP TRIGGER jobs_forget ON {schema}.jobs;
CREATE TRIGGER jobs_forget AFTER DELETE ON {schema}.jobs FOR EACH ROW
    WHEN ((OLD.state <> 'running' OR OLD.claims > 1)
        AND coalesce(current_setting('jobvisor.forgets', true), '') <> 'off')
    EXECUTE FUNCTION {schema}.forget_attempts();

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

-- Each key that such a limit is applied to, until when the starts so far have used up its rate (nanoseconds), and
-- when the next of the jobs may start that wait for that. Whoever counts its jobs holds its row.
CREATE TABLE {schema}.limit_keys (
    key     text        COLLATE "C" PRIMARY KEY,
    name    text        NOT NULL,
    next_at timestamptz,
    spent_ns bigint
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

-- The turn of a job that becomes pending now: 0 where its queue is not fair, or it has no share. Else one step behind
-- the last pending job of its share, and not before the present: the first pending turn that is not below the
-- mark. What others have not committed yet is not seen, so two of a share may get the same.
CREATE FUNCTION {schema}.fair_turn(of_queue text, of_priority integer, of_share text, of_weight integer)
    RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    mark bigint;
    present bigint;
    last bigint;
BEGIN
    IF of_share IS NULL OR NOT EXISTS (SELECT 1 FROM {schema}.queues WHERE name = of_queue AND fair = 1) THEN
        RETURN 0;
    END IF;
    mark := greatest(1, (SELECT turn FROM {schema}.turns WHERE queue = of_queue AND priority = of_priority));
    SELECT turn INTO present FROM {schema}.jobs
    WHERE state = 'pending' AND queue = of_queue AND priority = of_priority AND turn >= mark ORDER BY turn LIMIT 1;
    SELECT turn INTO last FROM {schema}.jobs WHERE share IS NOT NULL AND state = 'pending'
        AND queue = of_queue AND priority = of_priority AND share = of_share AND turn > 0 ORDER BY turn DESC LIMIT 1;
    RETURN greatest(mark, present, last + 1048576 / coalesce(of_weight, 1));
END
$$;

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
    anchor        timestamptz NOT NULL DEFAULT to_timestamp(0)
        CONSTRAINT "anchor is of the years 1 to 9999" CHECK (anchor >= '0001-01-01Z' AND anchor < '10000-01-01Z'),
    timezone      text        NOT NULL DEFAULT 'UTC',
    args          json        NOT NULL DEFAULT '[]',
    kwargs        json        NOT NULL DEFAULT '{{}}',
    keys          text        NOT NULL DEFAULT '{{}}',    -- what functions of the task make of the arguments (JSON)
    queue         text,
    catch_up      text        NOT NULL DEFAULT 'latest',
    overlap       text        NOT NULL DEFAULT 'allow',
    paused_config integer     NOT NULL DEFAULT 0,
    paused_at     timestamptz,
    last_tick     timestamptz NOT NULL DEFAULT {schema}.clock() -- up to here ticks have been looked after
        CONSTRAINT "last_tick is of the years 1 to 9999"
            CHECK (last_tick >= '0001-01-01Z' AND last_tick < '10000-01-01Z'),
    last_job      bigint,
    created_at    timestamptz NOT NULL DEFAULT {schema}.clock(),
    counts_from   timestamptz NOT NULL DEFAULT {schema}.clock() -- added, resumed or changed: no tick before it is missed
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
-- With its owner's rights: a role that may work may not write the numbers of the schema. Nor may one that has no
-- setting to change have every family read them anew.
CREATE FUNCTION {schema}.note_settings() RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asking CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
BEGIN
    IF NOT has_table_privilege(asking::name, '{schema}.queues'::regclass, 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied: a role that may not change queues has no settings';
    END IF;
    UPDATE {schema}.meta SET value = (value::bigint + 1)::text WHERE key = 'settings';
END
$$;

-- How many jobs of a key may begin now. The caller holds the row of the key since an earlier statement: a count in
-- the same one would be of the time before the lock. What an owner has just claimed, and what has no place yet, is
-- not counted. `spent` is until when the starts so far use up the rate (GCRA), a `step` each.
CREATE FUNCTION {schema}.room(asked text, me bigint, mine bigint, OUT free bigint, OUT places integer,
    OUT step bigint, OUT slack bigint, OUT spent bigint, OUT tokens bigint) LANGUAGE plpgsql AS $$
DECLARE
    now_ns CONSTANT bigint := (date_part('epoch', {schema}.clock()) * 1000000)::bigint * 1000;
    told record;
BEGIN
    free := 0;
    SELECT concurrency, rate, per_ms, burst INTO told FROM {schema}.limits WHERE name = split_part(asked, ':', 1);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    free := 1000000;
    places := told.concurrency;
    IF places IS NOT NULL THEN
        SELECT greatest(0, places - count(*)) INTO free FROM {schema}.jobs
        WHERE limit_key = asked AND state = 'running' AND NOT (limit_place IS NULL AND owner = me AND claim = mine);
    END IF;
    IF told.rate IS NOT NULL THEN
        step := greatest(1, told.per_ms * 1000000 / told.rate);
        slack := (told.burst - 1) * step;
        SELECT spent_ns INTO spent FROM {schema}.limit_keys WHERE key = asked;
        -- A moment that a clock set back has left far ahead counts as used up just now. Not one that is a minute ahead
        -- or less: the time is that of the statement, which may have waited for the key meanwhile.
        spent := greatest(now_ns, CASE WHEN spent > now_ns + slack + step + 60000000000 THEN now_ns + slack + step
            ELSE spent END);
        tokens := CASE WHEN spent - now_ns > slack THEN 0 ELSE (slack - (spent - now_ns)) / step + 1 END;
        free := least(free, tokens);
    END IF;
END
$$;

-- A claim without `place` behind it has met a job with a limit: it is undone, and made anew with that. So what no job
-- uses costs no statement of a turn; whoever has met one goes on with `place` for a while.
CREATE FUNCTION {schema}.must_place() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'a claimed job has a limit, and is to get a place of it' USING ERRCODE = 'JV001';
END
$$;

-- What a claim has taken and has a limit gets a place of it (fate 0), waits for one (1), or goes back (2): of one
-- key no more than lanes, of one with a rate alone than a batch, and nothing where somebody else holds the key. The rows of keys are passed over where
-- they are locked, because this transaction holds keys of its first half already. Jobs of paused tasks wait too.
CREATE FUNCTION {schema}.place(me bigint, mine bigint, lanes bigint, batch bigint, paused text[])
    RETURNS TABLE (told_job bigint, told_key text, told_place integer, fate integer) LANGUAGE plpgsql AS $$
DECLARE
    keys text[];
    held text[];
    freed text[];
    asked text;
    room record;
    claimed bigint[];
    given integer[];
    put_off bigint[];
    changed bigint[] := '{{}}';
    take bigint;
BEGIN
    IF paused <> '{{}}' THEN
        FOR told_job, told_key IN UPDATE {schema}.jobs SET state = 'blocked', parked = 'task:' || task,
                attempt = greatest(attempt - 1, 0), claims = greatest(claims - 1, 0), started_at = NULL
            WHERE state = 'running' AND owner = me AND claim = mine AND task = ANY (paused)
            RETURNING id, limit_key
        LOOP
            changed := changed || told_job;
            freed := freed || told_key;
            fate := 1;
            RETURN NEXT;
        END LOOP;
    END IF;
    SELECT array_agg(DISTINCT limit_key ORDER BY limit_key) INTO keys FROM {schema}.jobs
    WHERE limit_key IS NOT NULL AND state = 'running' AND owner = me AND claim = mine;
    -- Two that make the same keys wait for each other in the order of the keys, and for nothing else here.
    INSERT INTO {schema}.limit_keys (key, name) SELECT made, split_part(made, ':', 1) FROM unnest(keys) AS made
    WHERE NOT EXISTS (SELECT 1 FROM {schema}.limit_keys WHERE limit_keys.key = made)
    ORDER BY made COLLATE "C" ON CONFLICT (key) DO NOTHING;
    SELECT array_agg(locked.key) INTO held FROM (SELECT limit_keys.key FROM {schema}.limit_keys
        WHERE limit_keys.key = ANY (keys) ORDER BY limit_keys.key FOR UPDATE SKIP LOCKED) AS locked;
    FOREACH asked IN ARRAY coalesce(keys, '{{}}') LOOP
        SELECT array_agg(id ORDER BY priority DESC, turn, id) INTO claimed FROM {schema}.jobs
        WHERE limit_key = asked AND state = 'running' AND owner = me AND claim = mine;
        take := 0;
        given := NULL;
        put_off := '{{}}';
        IF asked = ANY (held) THEN
            room := {schema}.room(asked, me, mine);
            take := least(room.free, array_length(claimed, 1));
            IF room.places IS NOT NULL THEN
                SELECT greatest(0, least(take, lanes - count(*))) INTO take FROM {schema}.jobs
                WHERE limit_key = asked AND state = 'running' AND owner = me AND NOT (limit_place IS NULL AND claim = mine);
                SELECT array_agg(free.number ORDER BY free.number) INTO given FROM (
                    SELECT generate_series(0, least(room.places, room.places - room.free + take) - 1)::integer AS number
                    EXCEPT SELECT limit_place FROM {schema}.jobs
                    WHERE limit_key = asked AND state = 'running' AND limit_place IS NOT NULL) AS free;
                take := coalesce(array_length(given[1:take], 1), 0);  -- whatever was counted, none begins without one
                UPDATE {schema}.jobs SET limit_place = one.number
                FROM unnest(claimed[1:take], given[1:take]) AS one (job, number) WHERE id = one.job;
            ELSE
                take := least(take, batch);
            END IF;
            IF room.step IS NOT NULL THEN
                UPDATE {schema}.limit_keys SET spent_ns = room.spent + take * room.step,
                    next_at = CASE WHEN take >= room.tokens
                        THEN to_timestamp((room.spent + take * room.step - room.slack) / 1e9) END
                WHERE limit_keys.key = asked;
            END IF;
            put_off := claimed[room.free + 1:];
            UPDATE {schema}.jobs SET state = 'blocked', parked = 'limit:' || asked,
                attempt = greatest(attempt - 1, 0), claims = greatest(claims - 1, 0), started_at = NULL
            WHERE id = ANY (put_off);
            IF room.free > take AND array_length(claimed, 1) > take THEN
                PERFORM {schema}.wake();
            END IF;
        END IF;
        UPDATE {schema}.jobs SET state = 'pending', attempt = greatest(attempt - 1, 0),
            claims = greatest(claims - 1, 0), started_at = NULL
        WHERE id = ANY (claimed[take + 1:array_length(claimed, 1) - coalesce(array_length(put_off, 1), 0)]);
        changed := changed || claimed[take + 1:];
        RETURN QUERY SELECT one.job, asked, CASE WHEN one.nth <= take THEN given[one.nth] END,
            CASE WHEN one.nth <= take THEN 0 WHEN one.job = ANY (put_off) THEN 1 ELSE 2 END
        FROM unnest(claimed) WITH ORDINALITY AS one (job, nth);
    END LOOP;
    IF freed IS NOT NULL THEN
        PERFORM {schema}.admit(freed, false);
    END IF;
    IF changed <> '{{}}' THEN
        PERFORM {schema}.tell(array_to_string(changed, ','), NULL, NULL);
    END IF;
END
$$;

-- Rows parked for these keys may be claimed: in each queue those that are, with the candidates, among the first as
-- many jobs of the key as may begin; a candidate behind them takes no place from them. First the keys are locked, all
-- at once and in their order; in later statements it is counted what runs and who comes first. Who takes rows away
-- settles them before, so that nobody waits for a row while he holds keys. One call lets begin 1,000 rows at most:
-- what is left falls due at once, for whoever asks next.
CREATE FUNCTION {schema}.admit(asked text[], waits boolean) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    held text[];
    one text;
    room record;
    line text;
    wanted bigint;
    got bigint[];
    admitted bigint[] := '{{}}';
    budget bigint := 1000;
    is_left boolean;
    next timestamptz;
BEGIN
    IF waits THEN
        SELECT array_agg(locked.key) INTO held FROM (SELECT key FROM {schema}.limit_keys
            WHERE key = ANY (asked) ORDER BY key FOR UPDATE) AS locked;
    ELSE
        SELECT array_agg(locked.key) INTO held FROM (SELECT key FROM {schema}.limit_keys
            WHERE key = ANY (asked) ORDER BY key FOR UPDATE SKIP LOCKED) AS locked;
    END IF;
    FOREACH one IN ARRAY coalesce(held, '{{}}') LOOP
        room := {schema}.room(one, -1, -1);
        line := '';
        is_left := false;
        WHILE room.free > 0 LOOP
            SELECT queue INTO line FROM {schema}.jobs
            WHERE state = 'blocked' AND parked = 'limit:' || one AND queue > line ORDER BY queue LIMIT 1;
            EXIT WHEN NOT FOUND;
            is_left := budget = 0;
            EXIT WHEN is_left;
            SELECT count(*) FILTER (WHERE first.is_parked) INTO wanted FROM (
                SELECT is_parked FROM (
                    (SELECT true AS is_parked, priority, turn, id FROM {schema}.jobs
                        WHERE state = 'blocked' AND parked = 'limit:' || one AND queue = line
                        ORDER BY priority DESC, turn, id LIMIT least(room.free, 1000))
                    UNION ALL
                    (SELECT false, priority, turn, id FROM {schema}.jobs
                        WHERE limit_key = one AND state = 'pending' AND queue = line
                        ORDER BY priority DESC, turn, id LIMIT least(room.free, 1000))) AS asking
                ORDER BY priority DESC, turn, id LIMIT least(room.free, 1000)) AS first;
            CONTINUE WHEN wanted = 0;
            WITH freed AS (UPDATE {schema}.jobs SET state = 'pending', parked = NULL
                WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.jobs
                    WHERE state = 'blocked' AND parked = 'limit:' || one AND queue = line
                    ORDER BY priority DESC, turn, id LIMIT least(wanted, budget) FOR UPDATE SKIP LOCKED))
                RETURNING id)
            SELECT array_agg(id) INTO got FROM freed;
            budget := budget - coalesce(array_length(got, 1), 0);
            admitted := admitted || got;
            is_left := wanted >= 1000 OR wanted > coalesce(array_length(got, 1), 0) AND budget = 0;
            EXIT WHEN is_left;
        END LOOP;
        -- What is left waits for a place, which whoever frees it sees to, or for this moment.
        next := NULL;
        IF (room.tokens = 0 OR is_left) AND EXISTS (SELECT 1 FROM {schema}.jobs
                WHERE state = 'blocked' AND parked = 'limit:' || one) THEN
            next := CASE WHEN room.tokens = 0 THEN to_timestamp((room.spent - room.slack) / 1e9) ELSE {schema}.clock() END;
        END IF;
        UPDATE {schema}.limit_keys SET next_at = next, spent_ns = least(spent_ns, room.spent)
        WHERE key = one AND (next_at IS DISTINCT FROM next OR spent_ns > room.spent);
    END LOOP;
    IF admitted <> '{{}}' THEN
        PERFORM {schema}.wake();
        PERFORM {schema}.tell(array_to_string(admitted, ','), NULL, NULL);
    END IF;
    RETURN QUERY SELECT unnest(admitted);
END
$$;

CREATE OR REPLACE VIEW {schema}.jobs_readable AS
SELECT id, state, task, args, kwargs, queue, priority, attempt, attempts_max, error, result, progress,
    run_at, created_at, claimed_at, started_at, finished_at, unique_key, deferred, cancel_requested,
    losses, owner, claim, headers, parent, company, cpu_ms, rss_bytes, limit_key, share, weight, turn, parked,
    limit_place, expires_at, deadline_at, keep
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
