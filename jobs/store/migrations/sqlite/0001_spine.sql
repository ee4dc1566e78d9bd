-- The queue: one row per job. Times are integer UTC milliseconds; arguments and results are JSON text.
-- A stranger's plain INSERT needs only `task`: every other column has the default of an ordinary job.
CREATE TABLE jobs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: wait and cancel must not mean another job
    task             TEXT    NOT NULL CHECK (task <> ''),
    args             TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(args)),
    kwargs           TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(kwargs)),
    queue            TEXT    NOT NULL DEFAULT 'default' CHECK (queue NOT IN ('', '*')),
    priority         INTEGER NOT NULL DEFAULT 0,
    -- One by one: in a CHECK SQLite makes a table of the list of an IN anew for each row, which was a third of
    -- the work of an insert and a fifth of that of a turn. (Databases of 0.3.0 and before have the IN.)
    state            TEXT    NOT NULL DEFAULT 'pending' CHECK (state = 'pending' OR state = 'running'
        OR state = 'succeeded' OR state = 'scheduled' OR state = 'failed' OR state = 'cancelled'
        OR state = 'blocked'),
    run_at           INTEGER NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    attempt          INTEGER NOT NULL DEFAULT 0,
    attempts_max     INTEGER NOT NULL DEFAULT 4 CHECK (attempts_max > 0),
    claims           INTEGER NOT NULL DEFAULT 0,
    losses           INTEGER NOT NULL DEFAULT 0,
    policy           TEXT,
    timeout_ms       INTEGER NOT NULL DEFAULT 0 CHECK (timeout_ms >= 0),
    memory_bytes     INTEGER NOT NULL DEFAULT 0 CHECK (memory_bytes >= 0),
    unique_key       TEXT,
    expires_at       INTEGER,
    deferred         TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    owner            INTEGER,
    claim            INTEGER,
    created_at       INTEGER NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    claimed_at       INTEGER,
    started_at       INTEGER,
    finished_at      INTEGER,
    result           TEXT,
    error            TEXT,
    progress         TEXT
) STRICT;

-- Partial indexes only: a scheduled, blocked or finished row costs a claim nothing.
CREATE INDEX jobs_pending ON jobs (queue, priority DESC, id) WHERE state = 'pending';
CREATE INDEX jobs_scheduled ON jobs (run_at) WHERE state = 'scheduled';
CREATE INDEX jobs_retrying ON jobs (queue) WHERE state = 'scheduled' AND deferred = 'retry';
CREATE INDEX jobs_running ON jobs (owner) WHERE state = 'running';
CREATE INDEX jobs_cancelling ON jobs (id) WHERE state = 'running' AND cancel_requested = 1;
CREATE INDEX jobs_finished ON jobs (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running');

-- The history of unsuccessful runs; one row per job, owner and claim, so a record applied twice is one row.
CREATE TABLE attempts (
    id          INTEGER PRIMARY KEY,
    job         INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    attempt     INTEGER NOT NULL,
    owner       INTEGER NOT NULL,
    claim       INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    error_type  TEXT,
    message     TEXT,
    traceback   TEXT,
    host        TEXT,
    pid         INTEGER,
    exit_code   INTEGER,
    signal      TEXT,
    verdict     TEXT,
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    UNIQUE (job, owner, claim)
) STRICT;

-- One row per family: its identity and its heartbeat.
CREATE TABLE families (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,
    host          TEXT    NOT NULL,
    boot_id       TEXT    NOT NULL,
    pid_namespace INTEGER NOT NULL,
    pid           INTEGER NOT NULL,
    start_ticks   INTEGER NOT NULL,
    version       TEXT    NOT NULL,
    state_dir     TEXT    NOT NULL,
    dead_after_ms INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    heartbeat_at  INTEGER NOT NULL
) STRICT;

-- One row per life that may own running rows; it goes when the life is settled.
CREATE TABLE owners (
    owner         INTEGER PRIMARY KEY,
    family        INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    host          TEXT    NOT NULL,
    boot_id       TEXT    NOT NULL,
    pid_namespace INTEGER NOT NULL,
    pid           INTEGER NOT NULL,
    start_ticks   INTEGER NOT NULL,
    started_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX owners_family ON owners (family);

-- Facts about the database itself.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO meta (key, value) VALUES ('database_id', lower(hex(randomblob(16))));
-- The oldest schema number a release may know and still work here; older releases stop claiming.
INSERT INTO meta (key, value) VALUES ('oldest_schema', '1');

-- The same rows with times people can read, for sqlite3, sqlite-utils and Datasette.
CREATE VIEW jobs_readable AS
SELECT id, state, task, args, kwargs, queue, priority, attempt, attempts_max, error, result, progress,
    strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', claimed_at / 1000.0, 'unixepoch') AS claimed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
    unique_key, deferred, cancel_requested, losses, owner, claim
FROM jobs;
CREATE VIEW attempts_readable AS
SELECT job, attempt, outcome, error_type, message, verdict, signal, exit_code, host, pid,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
    traceback
FROM attempts;

PRAGMA user_version = 1;
