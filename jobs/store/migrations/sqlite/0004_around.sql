-- What comes with a job, and what its runs left: `headers` of whoever enqueued it, the job that did (`parent`),
-- the company in which a suspect may run (NULL: in any), and what the last run cost.
ALTER TABLE jobs ADD COLUMN headers TEXT;
ALTER TABLE jobs ADD COLUMN parent INTEGER;
ALTER TABLE jobs ADD COLUMN company INTEGER;
ALTER TABLE jobs ADD COLUMN cpu_ms INTEGER;
-- With the last column come the bounds of all: for each column that brings a CHECK SQLite reads the table once.
ALTER TABLE jobs ADD COLUMN rss_bytes INTEGER
    CONSTRAINT "headers is a JSON object of at most 4 KiB" CHECK (CASE WHEN headers IS NULL THEN 1
        WHEN length(CAST(headers AS BLOB)) > 4096 OR NOT json_valid(headers) THEN 0
        ELSE json_type(headers) = 'object' END)
    CONSTRAINT "parent is 1 to 2**62" CHECK (parent BETWEEN 1 AND 1 << 62)
    CONSTRAINT "company is 1 to 32_767" CHECK (company BETWEEN 1 AND 32767)
    CONSTRAINT "cpu_ms is 0 to 10**12" CHECK (cpu_ms BETWEEN 0 AND 1000000000000)
    CONSTRAINT "rss_bytes is 0 to 2**62" CHECK (rss_bytes BETWEEN 0 AND 1 << 62);

-- Pending jobs that run among none of the others.
CREATE INDEX jobs_suspects ON jobs (queue, priority DESC, id)
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0);

-- Of a run that did not succeed: where it stood when it was killed, what it had said, and what it cost.
ALTER TABLE attempts ADD COLUMN stack TEXT;
ALTER TABLE attempts ADD COLUMN said TEXT;
ALTER TABLE attempts ADD COLUMN cpu_ms INTEGER;
ALTER TABLE attempts ADD COLUMN rss_bytes INTEGER
    CONSTRAINT "stack is at most 8 KiB" CHECK (length(CAST(stack AS BLOB)) <= 8192)
    CONSTRAINT "said is at most 16 KiB" CHECK (length(CAST(said AS BLOB)) <= 16384)
    CONSTRAINT "cpu_ms is 0 to 10**12" CHECK (cpu_ms BETWEEN 0 AND 1000000000000)
    CONSTRAINT "rss_bytes is 0 to 2**62" CHECK (rss_bytes BETWEEN 0 AND 1 << 62);

DROP VIEW jobs_readable;
CREATE VIEW jobs_readable AS
SELECT id, state, task, args, kwargs, queue, priority, attempt, attempts_max, error, result, progress,
    strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', claimed_at / 1000.0, 'unixepoch') AS claimed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
    unique_key, deferred, cancel_requested, losses, owner, claim, headers, parent, company, cpu_ms,
    rss_bytes
FROM jobs;
DROP VIEW attempts_readable;
CREATE VIEW attempts_readable AS
SELECT job, attempt, outcome, error_type, message, verdict, signal, exit_code, host, pid,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
    traceback, stack, said, cpu_ms, rss_bytes
FROM attempts;

PRAGMA user_version = 4;
