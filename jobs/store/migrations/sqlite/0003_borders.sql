-- What a stranger's plain SQL may have written beyond all bounds comes back within them: such a row
-- stopped every claim of its queue, or hid all others from `list`. This reads the table once.
UPDATE jobs SET
    run_at = min(max(run_at, -62135596800000), 253402300799999),
    expires_at = min(max(expires_at, -62135596800000), 253402300799999),
    created_at = min(max(created_at, -62135596800000), 253402300799999),
    claimed_at = min(max(claimed_at, -62135596800000), 253402300799999),
    started_at = min(max(started_at, -62135596800000), 253402300799999),
    finished_at = min(max(finished_at, -62135596800000), 253402300799999),
    attempt = min(max(attempt, 0), 1000000000),
    claims = min(max(claims, 0), 1000000000),
    losses = min(max(losses, 0), 1000000000)
WHERE NOT (run_at BETWEEN -62135596800000 AND 253402300799999
    AND coalesce(expires_at, 0) BETWEEN -62135596800000 AND 253402300799999
    AND created_at BETWEEN -62135596800000 AND 253402300799999
    AND coalesce(claimed_at, 0) BETWEEN -62135596800000 AND 253402300799999
    AND coalesce(started_at, 0) BETWEEN -62135596800000 AND 253402300799999
    AND coalesce(finished_at, 0) BETWEEN -62135596800000 AND 253402300799999
    AND attempt BETWEEN 0 AND 1000000000 AND claims BETWEEN 0 AND 1000000000 AND losses BETWEEN 0 AND 1000000000);

-- An id that is no number of a job gets one. The largest integer there is would be the last id.
UPDATE sqlite_sequence SET seq = coalesce((SELECT max(id) FROM jobs WHERE id BETWEEN 1 AND 1 << 62), 0)
WHERE name = 'jobs' AND seq > 1 << 62;
DELETE FROM attempts WHERE job NOT BETWEEN 1 AND 1 << 62;
UPDATE jobs SET id = fresh.id
FROM (SELECT id AS old, row_number() OVER (ORDER BY id)
        + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) AS id
    FROM jobs WHERE id NOT BETWEEN 1 AND 1 << 62) AS fresh
WHERE jobs.id = fresh.old;

-- SQLite adds a CHECK to a table only by rewriting it, or with a column: this one is computed, so it
-- takes no place and no row is rewritten. A trigger would cost each insert a quarter (measured), a CHECK
-- costs nothing that can be measured, and is not looked at by an UPDATE of other columns.
ALTER TABLE jobs ADD COLUMN bounds INTEGER GENERATED ALWAYS AS (NULL) VIRTUAL
    CONSTRAINT "id is 1 to 2**62" CHECK (id BETWEEN 1 AND 1 << 62)
    CONSTRAINT "run_at is in milliseconds, of the years 1 to 9999"
        CHECK (run_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "expires_at is in milliseconds, of the years 1 to 9999"
        CHECK (expires_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "created_at is in milliseconds, of the years 1 to 9999"
        CHECK (created_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "claimed_at is in milliseconds, of the years 1 to 9999"
        CHECK (claimed_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "started_at is in milliseconds, of the years 1 to 9999"
        CHECK (started_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "finished_at is in milliseconds, of the years 1 to 9999"
        CHECK (finished_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "attempt is 0 to 1_000_000_000" CHECK (attempt BETWEEN 0 AND 1000000000)
    CONSTRAINT "claims is 0 to 1_000_000_000" CHECK (claims BETWEEN 0 AND 1000000000)
    CONSTRAINT "losses is 0 to 1_000_000_000" CHECK (losses BETWEEN 0 AND 1000000000);

-- The same for the tables of processes: what is beyond these bounds nobody of ours has written.
DELETE FROM families WHERE NOT (started_at BETWEEN -62135596800000 AND 253402300799999
    AND heartbeat_at BETWEEN -62135596800000 AND 253402300799999
    AND dead_after_ms BETWEEN 1 AND 1000000000000 AND pid BETWEEN 0 AND 2147483647);
ALTER TABLE families ADD COLUMN bounds INTEGER GENERATED ALWAYS AS (NULL) VIRTUAL
    CONSTRAINT "started_at is in milliseconds, of the years 1 to 9999"
        CHECK (started_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "heartbeat_at is in milliseconds, of the years 1 to 9999"
        CHECK (heartbeat_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "dead_after_ms is 1 to 10**12" CHECK (dead_after_ms BETWEEN 1 AND 1000000000000)
    CONSTRAINT "pid is 0 to 2**31 - 1" CHECK (pid BETWEEN 0 AND 2147483647);
DELETE FROM owners WHERE NOT (started_at BETWEEN -62135596800000 AND 253402300799999
    AND pid BETWEEN 0 AND 2147483647);
ALTER TABLE owners ADD COLUMN bounds INTEGER GENERATED ALWAYS AS (NULL) VIRTUAL
    CONSTRAINT "started_at is in milliseconds, of the years 1 to 9999"
        CHECK (started_at BETWEEN -62135596800000 AND 253402300799999)
    CONSTRAINT "pid is 0 to 2**31 - 1" CHECK (pid BETWEEN 0 AND 2147483647);

-- What a drain waits for, what a person is told of: by indexes of their own, however large the table is.
CREATE INDEX jobs_deferred ON jobs (queue) WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze');
DROP INDEX jobs_retrying;
CREATE INDEX jobs_blocked ON jobs (queue) WHERE state = 'blocked';
CREATE INDEX jobs_unknown ON jobs (task) WHERE state = 'scheduled' AND deferred = 'unknown';

-- What changed, for those who follow it: a row for each transaction that changed jobs while somebody does.
-- `jobs` holds their ids between commas; NULL says that they are too many to be told.
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never goes back: a follower asks for what comes after it
    jobs   TEXT,
    at     INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 3;
