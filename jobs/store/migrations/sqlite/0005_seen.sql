-- What is shown of a queue beside its jobs. Sums by the minute and queue, of all families together; of the
-- last three columns the greatest that was seen.
CREATE TABLE stats (
    minute      INTEGER NOT NULL CHECK (minute BETWEEN 0 AND 253402300799999),  -- when it begins, in UTC milliseconds
    queue       TEXT    NOT NULL CHECK (length(queue) <= 400),
    enqueued    INTEGER NOT NULL DEFAULT 0,
    started     INTEGER NOT NULL DEFAULT 0,
    succeeded   INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    retried     INTEGER NOT NULL DEFAULT 0,
    cancelled   INTEGER NOT NULL DEFAULT 0,
    run_ms      INTEGER NOT NULL DEFAULT 0,
    cpu_ms      INTEGER NOT NULL DEFAULT 0,
    wait_ms     INTEGER NOT NULL DEFAULT 0,
    wait_max_ms INTEGER NOT NULL DEFAULT 0,
    depth       INTEGER,
    oldest_ms   INTEGER,
    PRIMARY KEY (minute, queue)
) STRICT, WITHOUT ROWID;

-- Who did what, and to how many.
CREATE TABLE actions (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    who    TEXT    NOT NULL,
    verb   TEXT    NOT NULL,
    what   TEXT    NOT NULL,
    number INTEGER
) STRICT;

-- The tasks that workers have registered, and what they have told of them (JSON).
CREATE TABLE tasks (
    name    TEXT    PRIMARY KEY,
    told    TEXT    NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

-- Requests that may come twice, by the key that their sender gave them, and the jobs (JSON) that the first made.
CREATE TABLE requests (
    key    TEXT    PRIMARY KEY,
    digest TEXT    NOT NULL,
    jobs   TEXT    NOT NULL,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_at ON requests (at);

-- Of a million jobs those that did not succeed, or wait for a time, the newest first; and the failed by their
-- task and the type of their error. A job that runs at once and succeeds is in neither.
-- (Blocked, cancelled and failed come before a g; each comparison is paid for by every row that changes, and
-- for an IN SQLite makes a table of its list each time. As a NOT, so that no statement about one of these
-- states takes it for the index it needs unless it says the same words.)
CREATE INDEX jobs_listed ON jobs (state, id)
    WHERE NOT (state > 'g' AND state <> 'scheduled');
CREATE INDEX jobs_failures ON jobs (task, substr(coalesce(error, ''), 1, min(instr(coalesce(error, '') || ': ', ': ') - 1, 100)), finished_at)
    WHERE state = 'failed';

PRAGMA user_version = 5;
