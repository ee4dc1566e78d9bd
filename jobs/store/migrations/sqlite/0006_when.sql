-- When a job runs, and how many at once. What a job does not use is NULL, or 0; `special` has a bit for each
-- thing that whoever runs the job must look at, so that an ordinary job is told by one number.
ALTER TABLE jobs ADD COLUMN special INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;  -- in a fair queue: its place in line
ALTER TABLE jobs ADD COLUMN limit_key TEXT;
ALTER TABLE jobs ADD COLUMN share TEXT;                       -- on whose behalf it runs, in a fair queue
ALTER TABLE jobs ADD COLUMN weight INTEGER;                   -- of that share
ALTER TABLE jobs ADD COLUMN parked TEXT;                      -- what a blocked row waits for
ALTER TABLE jobs ADD COLUMN limit_place INTEGER;              -- its place in its limit, while it runs; `place` 0.5.0 has for another thing
ALTER TABLE jobs ADD COLUMN debounce_ms INTEGER;
ALTER TABLE jobs ADD COLUMN deadline_at INTEGER;
ALTER TABLE jobs ADD COLUMN held_key TEXT;                    -- the key that a row of `uniques` holds, or held, for it
ALTER TABLE jobs ADD COLUMN held_until INTEGER;
-- With the last column come the bounds of all: for each column that brings a CHECK SQLite reads the table once.
ALTER TABLE jobs ADD COLUMN keep TEXT
    CONSTRAINT "special is 0 to 2**31 - 1" CHECK (special BETWEEN 0 AND 2147483647)
    CONSTRAINT "turn is 0 to 2**62" CHECK (turn BETWEEN 0 AND 1 << 62)
    CONSTRAINT "limit_key is a text of 1 to 500 characters" CHECK (length(limit_key) BETWEEN 1 AND 500)
    CONSTRAINT "share is a text of 1 to 500 characters" CHECK (length(share) BETWEEN 1 AND 500)
    CONSTRAINT "weight is 1 to 1_000" CHECK (weight BETWEEN 1 AND 1000)
    CONSTRAINT "parked is a text of 1 to 600 characters" CHECK (length(parked) BETWEEN 1 AND 600)
    CONSTRAINT "limit_place is 0 to 2**31 - 1" CHECK (limit_place BETWEEN 0 AND 2147483647)
    CONSTRAINT "debounce_ms is 0 to 10**15" CHECK (debounce_ms BETWEEN 0 AND 1000000000000000)
    CONSTRAINT "deadline_at is in milliseconds, of the years 1 to 9999"
        CHECK (deadline_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "held_key is a text of 1 to 500 characters" CHECK (length(held_key) BETWEEN 1 AND 500)
    CONSTRAINT "held_until is in milliseconds, of the years 1 to 9999"
        CHECK (held_until BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "keep is the JSON of an object of milliseconds by state" CHECK (CASE WHEN keep IS NULL THEN 1
        WHEN length(keep) <= 200 AND json_valid(keep) THEN json_type(keep) = 'object' ELSE 0 END);

-- In the order in which a claim takes them. In the place of the old ones, because each of them costs an
-- insert a tenth and more; the statements of 0.5.0 find them under their names, and sort.
DROP INDEX jobs_pending;
CREATE INDEX jobs_pending ON jobs (queue, priority DESC, turn, id) WHERE state = 'pending';
DROP INDEX jobs_suspects;
CREATE INDEX jobs_suspects ON jobs (queue, priority DESC, turn, id)
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0);

-- Without a word of the state, so that a run that ends is none of their business: it has none of this any more.
DROP INDEX jobs_deferred;
CREATE INDEX jobs_deferred ON jobs (queue) WHERE deferred IN ('retry', 'snooze');
DROP INDEX jobs_unknown;
CREATE INDEX jobs_unknown ON jobs (task) WHERE deferred = 'unknown';

-- An ordinary job is in none of these. What it does not have comes first: the rest is not looked at then.
-- (Not of pending rows alone: those of a batch are of many shares, and each would be taken out of another page.)
CREATE INDEX jobs_shares ON jobs (queue, priority, share, turn) WHERE share IS NOT NULL;
CREATE UNIQUE INDEX jobs_places ON jobs (limit_key, limit_place) WHERE limit_key IS NOT NULL AND state = 'running';
CREATE INDEX jobs_candidates ON jobs (limit_key, queue, priority DESC, turn, id)
    WHERE limit_key IS NOT NULL AND state = 'pending';
-- Those two are looked at by each statement that changes a state, and these not: no claim and no settle changes what they name.
CREATE INDEX jobs_parked ON jobs (parked, queue, priority DESC, turn, id) WHERE parked IS NOT NULL;
-- When time alone ends a waiting row, or removes a finished one that says itself how long it is kept, its key included:
-- reckoned, so that it is right whoever ends a row.
CREATE INDEX jobs_timed ON jobs (finished_at IS NULL, CASE WHEN finished_at IS NULL
        THEN min(coalesce(expires_at, 253402300800000), coalesce(deadline_at, 253402300800000))
        ELSE max(finished_at + json_extract(keep, '$.' || state), coalesce(held_until, 0)) END)
    WHERE expires_at IS NOT NULL OR deadline_at IS NOT NULL OR keep IS NOT NULL;

-- How many jobs of a name may run at once (`concurrency`), and how many may start in `per_ms` (`rate`, and
-- `burst` more at once); what a limit does not limit is NULL. `source` says who set it.
CREATE TABLE limits (
    name        TEXT    PRIMARY KEY,
    concurrency INTEGER CHECK (concurrency >= 0),
    rate        INTEGER CHECK (rate > 0),
    per_ms      INTEGER CHECK (per_ms > 0),
    burst       INTEGER CHECK (burst > 0),
    source      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Each key that such a limit is applied to, until when the starts so far have used up its rate (nanoseconds), and
-- when the next of the jobs may start that wait for that (milliseconds with a fraction).
CREATE TABLE limit_keys (
    key     TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    next_at REAL,
    spent_ns INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX limit_keys_next ON limit_keys (next_at) WHERE next_at IS NOT NULL;

-- How far each priority of a fair queue has come.
CREATE TABLE turns (
    queue     TEXT    NOT NULL,
    priority  INTEGER NOT NULL,
    turn      INTEGER NOT NULL,
    raised_at INTEGER NOT NULL,
    PRIMARY KEY (queue, priority)
) STRICT, WITHOUT ROWID;

-- What is said of a queue as a whole; a queue of which nothing is said has no row.
CREATE TABLE queues (
    name         TEXT    PRIMARY KEY,
    fair         INTEGER NOT NULL DEFAULT 0 CHECK (fair BETWEEN 0 AND 1),
    paused_at    INTEGER,
    paused_until INTEGER
) STRICT, WITHOUT ROWID;
ALTER TABLE tasks ADD COLUMN paused_at INTEGER;
ALTER TABLE tasks ADD COLUMN paused_until INTEGER;
CREATE INDEX tasks_paused ON tasks (name) WHERE paused_at IS NOT NULL;  -- `told` is long: none is read for it

-- What is enqueued again and again, by a cron pattern or every so many milliseconds from `anchor` on. `source`
-- says who declared it, `family` under which name, `paused_config` whether it declared it paused.
CREATE TABLE schedules (
    name          TEXT    NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 400),
    source        TEXT    NOT NULL DEFAULT 'added',  -- config, code, or added at run time
    family        TEXT,                             -- the name of the family that declares it
    declared_by   TEXT    NOT NULL DEFAULT '[]',    -- the ids of those that do (JSON)
    task          TEXT    NOT NULL,
    cron          TEXT,
    every_ms      INTEGER,
    anchor        INTEGER NOT NULL DEFAULT 0
        CONSTRAINT "anchor is of the years 1 to 9999" CHECK (anchor BETWEEN -62135596800000 AND 253402300799999),
    timezone      TEXT    NOT NULL DEFAULT 'UTC',
    args          TEXT    NOT NULL DEFAULT '[]',
    kwargs        TEXT    NOT NULL DEFAULT '{}',
    keys          TEXT    NOT NULL DEFAULT '{}',    -- what functions of the task make of the arguments (JSON)
    queue         TEXT,
    catch_up      TEXT    NOT NULL DEFAULT 'latest',
    overlap       TEXT    NOT NULL DEFAULT 'allow',
    paused_config INTEGER NOT NULL DEFAULT 0,
    paused_at     INTEGER,
    last_tick     INTEGER NOT NULL                  -- up to here ticks have been looked after
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
        CONSTRAINT "last_tick is of the years 1 to 9999" CHECK (last_tick BETWEEN -62135596800000 AND 253402300799999),
    last_job      INTEGER,
    created_at    INTEGER NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    counts_from   INTEGER NOT NULL                  -- added, resumed or changed: no tick before it is missed
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
) STRICT;

-- The moments for which a schedule has enqueued a job: one for each, whoever comes first.
CREATE TABLE ticks (
    schedule TEXT    NOT NULL,
    tick     INTEGER NOT NULL,
    job      INTEGER NOT NULL,
    PRIMARY KEY (schedule, tick)
) STRICT, WITHOUT ROWID;

-- Keys that are held longer, or otherwise, than by an unfinished job: until a moment, or (NULL) as long as the
-- row of the job is there. `digest` is of what was asked for.
CREATE TABLE uniques (
    key    TEXT    PRIMARY KEY,
    job    INTEGER NOT NULL,
    until  INTEGER,
    digest TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX uniques_job ON uniques (job);
CREATE INDEX uniques_until ON uniques (until) WHERE until IS NOT NULL;

-- One more with each change of what is said of queues, tasks and limits: who has read them sees that they are old.
INSERT INTO meta (key, value) VALUES ('settings', '1');

DROP VIEW jobs_readable;
CREATE VIEW jobs_readable AS
SELECT id, state, task, args, kwargs, queue, priority, attempt, attempts_max, error, result, progress,
    strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', claimed_at / 1000.0, 'unixepoch') AS claimed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
    unique_key, deferred, cancel_requested, losses, owner, claim, headers, parent, company, cpu_ms,
    rss_bytes, limit_key, share, weight, turn, parked, limit_place,
    strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1000.0, 'unixepoch') AS expires_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', deadline_at / 1000.0, 'unixepoch') AS deadline_at, keep
FROM jobs;

PRAGMA user_version = 6;
