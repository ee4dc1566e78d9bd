-- In the order in which a settle takes them.
LOCK TABLE {schema}.jobs, {schema}.attempts IN ACCESS EXCLUSIVE MODE;

-- What comes with a job, and what its runs left: `headers` of whoever enqueued it, the job that did (`parent`),
-- the company in which a suspect may run (NULL: in any), and what the last run cost. NOT VALID spares a look
-- at each row that is there: none has anything in these columns yet. New rows are held to it.
ALTER TABLE {schema}.jobs
    ADD COLUMN headers json,
    ADD COLUMN parent bigint,
    ADD COLUMN company smallint,
    ADD COLUMN cpu_ms bigint,
    ADD COLUMN rss_bytes bigint,
    ADD CONSTRAINT "headers is a JSON object of at most 4 KiB" CHECK (headers IS NULL
        OR json_typeof(headers) = 'object' AND octet_length(headers::text) <= 4096) NOT VALID,
    ADD CONSTRAINT "parent is 1 to 2**62" CHECK (parent BETWEEN 1 AND (1::bigint << 62)) NOT VALID,
    ADD CONSTRAINT "company is 1 to 32_767" CHECK (company >= 1) NOT VALID,
    ADD CONSTRAINT "cpu_ms is 0 to 10**12" CHECK (cpu_ms BETWEEN 0 AND 1000000000000) NOT VALID,
    ADD CONSTRAINT "rss_bytes is 0 to 2**62"
        CHECK (rss_bytes BETWEEN 0 AND (1::bigint << 62)) NOT VALID;

-- Pending jobs that run among none of the others.
CREATE INDEX jobs_suspects ON {schema}.jobs (queue, priority DESC, id)
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0);

-- Of a run that did not succeed: where it stood when it was killed, what it had said, and what it cost.
ALTER TABLE {schema}.attempts
    ADD COLUMN stack text,
    ADD COLUMN said text,
    ADD COLUMN cpu_ms bigint,
    ADD COLUMN rss_bytes bigint,
    ADD CONSTRAINT "stack is at most 8 KiB" CHECK (octet_length(stack) <= 8192) NOT VALID,
    ADD CONSTRAINT "said is at most 16 KiB" CHECK (octet_length(said) <= 16384) NOT VALID,
    ADD CONSTRAINT "cpu_ms is 0 to 10**12" CHECK (cpu_ms BETWEEN 0 AND 1000000000000) NOT VALID,
    ADD CONSTRAINT "rss_bytes is 0 to 2**62"
        CHECK (rss_bytes BETWEEN 0 AND (1::bigint << 62)) NOT VALID;

CREATE OR REPLACE VIEW {schema}.jobs_readable AS
SELECT id, state, task, args, kwargs, queue, priority, attempt, attempts_max, error, result, progress,
    run_at, created_at, claimed_at, started_at, finished_at, unique_key, deferred, cancel_requested,
    losses, owner, claim, headers, parent, company, cpu_ms, rss_bytes
FROM {schema}.jobs;
CREATE OR REPLACE VIEW {schema}.attempts_readable AS
SELECT job, attempt, outcome, error_type, message, verdict, signal, exit_code, host, pid, started_at,
    finished_at, traceback, stack, said, cpu_ms, rss_bytes
FROM {schema}.attempts;
