-- Every statement of the queue, SQLite's dialect. A name and a sentence each; the other dialects
-- keep the same names in the same order. Each statement that leaves `running` carries the whole
-- fence: id, state, owner, claim. Ends of runs come as ages and delays in milliseconds; :now, bound by
-- the store, is the only clock. A {fragment} stands for its columns.

-- fragment: job
-- The whole row of a job, as JobRow names it.
id, task, args, kwargs, queue, priority, state, run_at, attempt, attempts_max, claims, losses,
policy, timeout_ms, memory_bytes, unique_key, expires_at, deferred, cancel_requested, owner, claim,
created_at, claimed_at, started_at, finished_at, result, error, progress, headers, parent, company,
cpu_ms, rss_bytes

-- fragment: summary
-- A job in short, as SummaryRow names it: without what may be long.
id, task, queue, priority, state, run_at, attempt, attempts_max, deferred, cancel_requested,
claimed_at, started_at, finished_at, substr(error, 1, 300), progress

-- fragment: attempt
-- The whole row of an attempt, as AttemptRow names it.
job, attempt, owner, claim, outcome, error_type, message, traceback, host, pid, exit_code, signal,
verdict, started_at, finished_at, stack, said, cpu_ms, rss_bytes

-- fragment: claimed
-- What a worker needs of a claimed row, as Claimed names it.
id, task, args, kwargs, attempt, attempts_max, claims, policy, timeout_ms, memory_bytes,
expires_at - :now, queue, priority, headers, company, {waited}

-- fragment: waited
-- For how long it has been due; NULL stands here where nobody counts that.
:now - run_at

-- fragment: new_columns
-- Of a new job whose values are all known, in the order in which `new_rows` gives them.
id, task, args, kwargs, queue, priority, state, run_at, attempts_max, policy, timeout_ms, memory_bytes,
unique_key, expires_at, headers, parent, created_at

-- fragment: new_values
-- And what stands for them. Python's module spends more on a NULL than on the rest of a row, so what is
-- missing comes as a value that the column cannot have.
nullif(:id, 0), :task, :args, :kwargs, :queue, :priority, :state, :run_at, :attempts_max,
nullif(:policy, ''), :timeout_ms, :memory_bytes, nullif(:unique_key, ''), nullif(:expires_at, -62135596800001),
nullif(:headers, ''), nullif(:parent, 0), :now

-- fragment: told
-- What a changed row tells of itself, as Changed names it.
state, task, queue, attempt, attempts_max

-- fragment: wanted
-- What a Filter says, but for ids; lists are JSON. The moment of a row is its end, its beginning, or when it is due.
(:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:queue IS NULL OR queue = :queue)
    AND (:tasks IS NULL OR task IN (SELECT value FROM json_each(:tasks)))
    AND (:error IS NULL OR instr(lower(error), lower(:error)) > 0)
    AND (:error_type IS NULL OR {error_type} = :error_type)
    AND (:text IS NULL OR instr(lower(task), lower(:text)) > 0 OR instr(lower(error), lower(:text)) > 0
        OR instr(lower(unique_key), lower(:text)) > 0
        OR instr(lower(args), lower(:text_in_json)) > 0 OR instr(lower(kwargs), lower(:text_in_json)) > 0)
    AND (coalesce(:since, :since_ago) IS NULL OR {moment} >= coalesce(:since, :now - :since_ago))
    AND (coalesce(:until, :until_ago) IS NULL OR {moment} < coalesce(:until, :now - :until_ago))

-- fragment: error_type
-- What the error begins with. The index jobs_failures says the same words.
substr(coalesce(error, ''), 1, min(instr(coalesce(error, '') || ': ', ': ') - 1, 100))

-- fragment: moment
-- What `since` and `until` are about.
coalesce(finished_at, CASE WHEN state = 'running' THEN claimed_at END, run_at)

-- fragment: along_all
-- Which rows are walked along in the order of their ids: all.
jobs NOT INDEXED WHERE true

-- fragment: along_listed
-- Or those of one of these states, by an index of their own.
jobs INDEXED BY jobs_listed WHERE state = :state
    AND NOT (state > 'g' AND state <> 'scheduled')

-- fragment: source_scheduled
-- Where rows are found by an index of their own, whatever else is asked of them.
jobs INDEXED BY jobs_scheduled WHERE state = 'scheduled'

-- fragment: source_pending
-- Those that may be claimed.
jobs INDEXED BY jobs_pending WHERE state = 'pending'

-- fragment: source_pending_of_queue
-- Of one queue.
jobs INDEXED BY jobs_pending WHERE state = 'pending' AND queue = :queue

-- fragment: source_blocked
-- Those that wait for something else.
jobs INDEXED BY jobs_blocked WHERE state = 'blocked'

-- fragment: source_running
-- Those that a worker has.
jobs INDEXED BY jobs_running WHERE state = 'running'

-- fragment: source_succeeded
-- Those that ended well.
jobs INDEXED BY jobs_finished WHERE state = 'succeeded' AND finished_at IS NOT NULL

-- fragment: source_failed
-- Those that failed for good.
jobs INDEXED BY jobs_listed WHERE state = 'failed'
    AND NOT (state > 'g' AND state <> 'scheduled')

-- fragment: source_failed_of_task
-- Of one task.
jobs INDEXED BY jobs_failures WHERE state = 'failed' AND task = :task

-- fragment: source_failed_of_type
-- And with one type of error.
jobs INDEXED BY jobs_failures WHERE state = 'failed' AND task = :task AND {error_type} = :error_type

-- fragment: source_cancelled
-- Those that were cancelled.
jobs INDEXED BY jobs_listed WHERE state = 'cancelled'
    AND NOT (state > 'g' AND state <> 'scheduled')

-- fragment: followed
-- Whether somebody follows the changes; not longer than anybody may ask for, where a clock was set back.
EXISTS (SELECT 1 FROM meta WHERE key = 'followed_until' AND CAST(value AS INTEGER) - :now BETWEEN 1 AND 3600000)

-- fragment: unsuspected
-- A job that has ended no process, as far as is known, and whose memory limit is not its process's.
AND company IS NULL AND memory_bytes = 0

-- fragment: reach
-- And before the 10,001st suspect of its queue: a claim that passes over them may not read a million.
AND priority > coalesce((SELECT priority FROM jobs WHERE state = 'pending' AND queue = :queue
    AND (company IS NOT NULL OR memory_bytes > 0) ORDER BY priority DESC, id LIMIT 1 OFFSET 10000), -32769)

-- fragment: suspects
-- And one that may, or is. Its index says the same words.
AND (company IS NOT NULL OR memory_bytes > 0)

-- name: enqueue
-- A new job, pending or scheduled; no row comes back where its unique key is held by an unfinished one.
INSERT INTO jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, created_at)
VALUES (:task, :args, :kwargs, :queue, :priority,
    CASE WHEN coalesce(:run_at_ms, :now) + :run_in_ms > :now THEN 'scheduled' ELSE 'pending' END,
    coalesce(:run_at_ms, :now) + :run_in_ms, :attempts_max, :policy, :timeout_ms, :memory_bytes,
    :unique_key, coalesce(:run_at_ms, :now) + :run_in_ms + :expires_in_ms, :headers, :parent,
    :now)
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING {job};

-- name: holder
-- The unfinished job that holds a unique key.
SELECT id FROM jobs WHERE unique_key = :unique_key
    AND state IN ('scheduled', 'pending', 'blocked', 'running');

-- name: promote
-- Scheduled rows that are due become pending, a bounded number at a time.
UPDATE jobs SET state = 'pending' WHERE id IN
    (SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= :now ORDER BY run_at LIMIT :limit)
RETURNING id;

-- name: claim
-- The first pending rows of one queue become running under this owner and claim. How far an earlier run said
-- that it had come stays, for the task that goes on from there.
UPDATE jobs SET state = 'running', attempt = min(attempt, 999999999) + 1,
    claims = min(claims, 999999999) + 1, owner = :owner, claim = :claim, claimed_at = :now,
    started_at = :now, deferred = NULL
WHERE id IN (SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {whom} {reach}
    ORDER BY priority DESC, id LIMIT :limit)
RETURNING {claimed};

-- name: claimable
-- What a claim would take, but for rows that are known to be refused (a JSON list).
SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {whom} {reach}
    AND id NOT IN (SELECT value FROM json_each(:left)) ORDER BY priority DESC, id LIMIT :limit;

-- name: claim_row
-- One of them becomes running, by itself.
UPDATE jobs SET state = 'running', attempt = min(attempt, 999999999) + 1,
    claims = min(claims, 999999999) + 1, owner = :owner, claim = :claim, claimed_at = :now,
    started_at = :now, deferred = NULL
WHERE id = :job AND state = 'pending'
RETURNING {claimed};

-- name: due
-- What a promotion would take, but for rows that are known to be refused (a JSON list).
SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= :now
    AND id NOT IN (SELECT value FROM json_each(:left)) ORDER BY run_at LIMIT :limit;

-- name: promote_row
-- One of them becomes pending, by itself.
UPDATE jobs SET state = 'pending' WHERE id = :job AND state = 'scheduled' RETURNING id;

-- name: owned_rows
-- What an owner holds, but for rows that are known to be refused (a JSON list).
SELECT id, claim FROM jobs WHERE state = 'running' AND owner = :owner
    AND id NOT IN (SELECT value FROM json_each(:left)) LIMIT :limit;

-- name: fail_row
-- A row that the database refuses to move otherwise.
UPDATE jobs SET state = 'failed', error = :error, finished_at = :now
WHERE id = :job AND state IN ('scheduled', 'pending', 'running')
RETURNING {told};

-- name: has_pending
-- Whether one queue has a row to claim; in its index's order, because a mere EXISTS scans the table where
-- statistics promise many.
SELECT count(*) > 0 FROM (SELECT 1 FROM jobs WHERE state = 'pending' AND queue = :queue {whom} {reach}
    ORDER BY priority DESC, id LIMIT 1);

-- name: next_due
-- In how many milliseconds the next scheduled row is due; overdue is negative.
SELECT run_at - :now FROM jobs WHERE state = 'scheduled' ORDER BY run_at LIMIT 1;

-- name: unknown_tasks
-- Tasks that no worker knew, how many jobs wait for them, and what one of these was told.
-- The index by name: after an ANALYZE that saw none of them SQLite would read all that is scheduled.
SELECT task, count(*), max(error) FROM jobs INDEXED BY jobs_unknown WHERE state = 'scheduled' AND deferred = 'unknown'
GROUP BY task ORDER BY task LIMIT :limit;

-- name: succeed
-- A run that returned.
UPDATE jobs SET state = 'succeeded', result = :result, error = NULL,
    started_at = :now - :age - :duration, finished_at = :now - :age,
    company = NULL, cpu_ms = :cpu_ms, rss_bytes = :rss_bytes
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim;

-- name: succeed_and_forget
-- A run that returned, where succeeded rows are not kept.
DELETE FROM jobs WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim;

-- name: retry
-- A run that failed and may run again; without a duration it began when it was claimed.
UPDATE jobs SET
    state = CASE WHEN cancel_requested = 1 THEN 'cancelled'
        WHEN :delay <= :age THEN 'pending' ELSE 'scheduled' END,
    run_at = :now - :age + :delay, deferred = 'retry', error = :error,
    started_at = coalesce(:now - :age - :duration, claimed_at),
    finished_at = CASE WHEN cancel_requested = 1 THEN :now - :age END,
    company = :company, cpu_ms = :cpu_ms, rss_bytes = :rss_bytes
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
RETURNING {told};

-- name: snooze
-- A run put off by its task, or by a worker that does not know the task; the attempt is given back.
UPDATE jobs SET
    state = CASE WHEN cancel_requested = 1 THEN 'cancelled'
        WHEN :delay <= :age THEN 'pending' ELSE 'scheduled' END,
    run_at = :now - :age + :delay, deferred = :deferred, attempt = max(attempt - 1, 0),
    started_at = NULL,
    error = coalesce(:error, error),
    finished_at = CASE WHEN cancel_requested = 1 THEN :now - :age END,
    company = :company, cpu_ms = :cpu_ms, rss_bytes = :rss_bytes
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
RETURNING {told};

-- name: fail
-- A run that failed for good.
UPDATE jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'failed' END,
    error = :error, started_at = coalesce(:now - :age - :duration, claimed_at),
    finished_at = :now - :age, company = :company, cpu_ms = :cpu_ms, rss_bytes = :rss_bytes
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
RETURNING {told};

-- name: release
-- A run handed back as if it had never begun.
UPDATE jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    attempt = max(attempt - 1, 0), run_at = min(run_at, :now), started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 THEN :now END, company = coalesce(:company, company)
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
RETURNING {told};

-- name: release_rest
-- What an owner owns (of some claims, or of all; up to one) and does not hold goes back untouched; both
-- are JSON lists.
UPDATE jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    attempt = max(attempt - 1, 0), started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 THEN :now END
WHERE state = 'running' AND owner = :owner
    AND (:claims IS NULL OR claim IN (SELECT value FROM json_each(:claims)))
    AND (:up_to IS NULL OR claim <= :up_to)
    AND id NOT IN (SELECT value FROM json_each(:held))
RETURNING id, {told};

-- name: release_many
-- Runs handed back as if they had never begun; a JSON list of [job, claim, company]. With a + the planner
-- leaves the index of running rows alone, and finds each row by its id.
UPDATE jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    attempt = max(attempt - 1, 0), run_at = min(run_at, :now), started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 THEN :now END,
    company = coalesce(min(jobs.company, told.company), jobs.company, told.company)
FROM (SELECT json_extract(value, '$[0]') AS job, json_extract(value, '$[1]') AS claim,
    json_extract(value, '$[2]') AS company FROM json_each(:runs)) AS told
WHERE jobs.id = told.job AND +jobs.state = 'running' AND +jobs.owner = :owner AND jobs.claim = told.claim
RETURNING id, claim, {told};

-- name: vanish
-- Rows whose worker vanished without evidence go back uncharged, and are failed the fourth time.
UPDATE jobs SET
    state = CASE WHEN cancel_requested = 1 THEN 'cancelled'
        WHEN losses >= :losses_max THEN 'failed' ELSE 'pending' END,
    losses = min(losses, 999999999) + 1, attempt = max(attempt - 1, 0), started_at = NULL,
    error = CASE WHEN losses >= :losses_max THEN :error ELSE error END,
    finished_at = CASE WHEN cancel_requested = 1 OR losses >= :losses_max THEN :now END
WHERE id IN (SELECT id FROM jobs WHERE state = 'running' AND owner = :owner
    AND (:job IS NULL OR id = :job) ORDER BY id LIMIT :limit)
RETURNING id, coalesce(claim, 0), {told};

-- name: cancel_run
-- A run that ended because it was asked to.
UPDATE jobs SET state = 'cancelled', error = :error,
    started_at = coalesce(:now - :age - :duration, claimed_at), finished_at = :now - :age,
    company = :company, cpu_ms = :cpu_ms, rss_bytes = :rss_bytes
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
RETURNING {told};

-- name: block
-- Pending rows that must wait for something else.
UPDATE jobs SET state = 'blocked' WHERE id = :job AND state = 'pending'
RETURNING {told};

-- name: unblock
-- Rows that need wait no longer.
UPDATE jobs SET state = CASE WHEN run_at > :now THEN 'scheduled' ELSE 'pending' END
WHERE id = :job AND state = 'blocked'
RETURNING {told};

-- name: cancel
-- An unfinished row that does not run is cancelled at once.
UPDATE jobs SET state = 'cancelled', cancel_requested = 1, finished_at = :now
WHERE id = :job AND state IN ('scheduled', 'pending', 'blocked')
RETURNING {told};

-- name: request_cancel
-- A running row is asked to end; its family carries the word.
UPDATE jobs SET cancel_requested = 1 WHERE id = :job AND state = 'running' RETURNING state;

-- name: requeue
-- A finished row starts over; its history stays, and how far it had come where it did not succeed.
UPDATE jobs SET state = 'pending', attempt = 0, losses = 0, run_at = :now, deferred = NULL,
    cancel_requested = 0, expires_at = NULL, owner = NULL, claim = NULL, claimed_at = NULL,
    started_at = NULL, finished_at = NULL, result = NULL, error = NULL,
    progress = CASE WHEN state = 'succeeded' THEN NULL ELSE progress END, cpu_ms = NULL, rss_bytes = NULL
WHERE id = :job AND state IN ('failed', 'cancelled', 'succeeded')
RETURNING {told};

-- name: prune
-- Finished rows older than their time go, a bounded number at a time.
DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = :state
    AND finished_at IS NOT NULL AND finished_at <= :now - :age ORDER BY finished_at LIMIT :limit)
RETURNING id;

-- name: prunable
-- How many finished rows are older than their time.
SELECT count(*) FROM jobs
WHERE state = :state AND finished_at IS NOT NULL AND finished_at <= :now - :age;

-- name: add_attempt
-- The history of one unsuccessful run; a second telling of the same run changes nothing.
INSERT INTO attempts ({attempt})
VALUES (:job, :attempt, :owner, :claim, :outcome, :error_type, :message, :traceback, :host, :pid,
    :exit_code, :signal, :verdict,
    coalesce(:now - :age - :duration, (SELECT claimed_at FROM jobs WHERE id = :job)), :now - :age,
    :stack, :said, :cpu_ms, :rss_bytes)
ON CONFLICT (job, owner, claim) DO NOTHING;

-- name: keep_words
-- What a run said that has succeeded, in the history; only where the row stands as this run left it.
INSERT INTO attempts (job, attempt, owner, claim, outcome, host, pid, started_at, finished_at, said,
    cpu_ms, rss_bytes)
SELECT id, attempt, owner, claim, 'succeeded', :host, :pid, started_at, finished_at, :said, cpu_ms,
    rss_bytes
FROM jobs WHERE id = :job AND state = 'succeeded' AND owner = :owner AND claim = :claim
ON CONFLICT (job, owner, claim) DO NOTHING;

-- name: trim_attempts
-- Of the history of one job the newest stay.
DELETE FROM attempts WHERE job = :job AND id <= (SELECT id FROM attempts WHERE job = :job
    ORDER BY id DESC LIMIT 1 OFFSET :kept);

-- name: long_histories
-- Of these jobs (a JSON list) those with more runs in their history than are kept.
SELECT job FROM attempts WHERE job IN (SELECT value FROM json_each(:jobs))
GROUP BY job HAVING count(*) > :kept ORDER BY job;

-- name: outcome_of
-- How this run ended, as far as the history knows it.
SELECT outcome FROM attempts WHERE job = :job AND owner = :owner AND claim = :claim;

-- name: standing
-- Where a row stands: what a record that changed nothing is judged by.
SELECT state, owner, claim FROM jobs WHERE id = :job;

-- name: held
-- One running row, as the settler of its dead owner needs it.
SELECT attempt, attempts_max, policy, claim, timeout_ms, memory_bytes, company FROM jobs
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim;

-- name: progress
-- How far a running job has come.
UPDATE jobs SET progress = :progress
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim;

-- name: get
-- One job.
SELECT {job}
FROM jobs WHERE id = :job;

-- name: get_many
-- Some jobs; their ids come as a JSON list.
SELECT {job}
FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs));

-- name: summaries
-- The same in short.
SELECT {summary}
FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs));

-- name: find
-- The newest jobs between two ids, along all rows or along an index.
SELECT {job}
FROM {*along} AND id < :before AND id > :after AND {wanted}
ORDER BY id DESC LIMIT :limit;

-- name: find_few
-- The newest of few jobs that an index finds. With a + the planner does not walk along the ids.
SELECT {job}
FROM {*source} AND +id < :before AND {wanted}
ORDER BY +id DESC LIMIT :limit;

-- name: pending_kinds
-- Each queue and priority that a pending row has; a step of the index each.
WITH RECURSIVE queues_found (queue) AS (
    SELECT min(queue) FROM jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM jobs WHERE state = 'pending' AND jobs.queue > queues_found.queue)
    FROM queues_found WHERE queues_found.queue IS NOT NULL),
found (queue, priority) AS (
    SELECT queue, (SELECT max(priority) FROM jobs WHERE state = 'pending' AND jobs.queue = queues_found.queue)
    FROM queues_found WHERE queue IS NOT NULL AND (:queue IS NULL OR queue = :queue)
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT queue, priority FROM found WHERE priority IS NOT NULL LIMIT :limit;

-- name: newest_pending
-- The ids of the newest of each kind (a JSON list of pairs), of all together the newest.
SELECT jobs.id FROM json_each(:kinds) AS kind CROSS JOIN jobs ON jobs.id IN (
    SELECT each.id FROM jobs AS each INDEXED BY jobs_pending
    WHERE each.state = 'pending' AND each.queue = json_extract(kind.value, '$[0]')
        AND each.priority = json_extract(kind.value, '$[1]') AND each.id < :before
    ORDER BY each.id DESC LIMIT :limit)
ORDER BY jobs.id DESC LIMIT :limit;

-- name: find_these
-- The newest of some jobs; their ids come as a JSON list.
SELECT {job}
FROM jobs WHERE id IN (SELECT value FROM json_each(:ids)) AND id < :before AND {wanted}
ORDER BY id DESC LIMIT :limit;

-- name: ids
-- Only the ids of jobs between two ids, the oldest first.
SELECT id FROM {*along} AND id < :before AND id > :after AND {wanted}
ORDER BY id LIMIT :limit;

-- name: ids_few
-- Only the ids of few jobs that an index finds, the oldest first.
SELECT id FROM {*source} AND +id < :before AND +id > :after AND {wanted}
ORDER BY +id LIMIT :limit;

-- name: ids_these
-- Those of some ids (a JSON list) that are what is wanted, the oldest first.
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:ids)) AND id < :before AND id > :after AND {wanted}
ORDER BY id LIMIT :limit;

-- name: hold_these
-- The same within a transaction that writes, in which no other changes them.
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:ids)) AND id < :before AND id > :after AND {wanted}
ORDER BY id LIMIT :limit;

-- name: below
-- How many rows there are before an id, counted up to a limit, and the last of these.
SELECT count(*), min(id) FROM (
    SELECT id FROM {*along} AND id < :before ORDER BY id DESC LIMIT :most);

-- name: above
-- The same of those behind an id.
SELECT count(*), max(id) FROM (
    SELECT id FROM {*along} AND id > :after ORDER BY id LIMIT :most);

-- name: newest_id
-- The greatest id there is.
SELECT max(id) FROM jobs;

-- name: count
-- How many jobs between two ids are what is wanted, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {*along} AND id < :before AND id > :after AND {wanted} LIMIT :most);

-- name: count_few
-- The same of few jobs that an index finds.
SELECT count(*) FROM {*source} AND {wanted};

-- name: count_all
-- How many jobs an index finds, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {*source} LIMIT :most);

-- name: queues
-- In which queues the first of them are that an index finds.
SELECT queue, count(*) FROM (SELECT queue FROM {*source} LIMIT :most) GROUP BY queue;

-- name: pending_counts
-- How many pending rows each queue has, counted up to a limit.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM jobs WHERE state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue, (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_pending
    WHERE state = 'pending' AND jobs.queue = found.queue
    ORDER BY priority DESC, id LIMIT :most))
FROM found WHERE queue IS NOT NULL LIMIT :limit;

-- name: failure_groups
-- Each task and type of error that a failed job has, with the last time; a step of the index each.
WITH RECURSIVE tasks_found (task) AS (
    SELECT min(task) FROM jobs WHERE state = 'failed'
    UNION ALL
    SELECT (SELECT min(jobs.task) FROM jobs WHERE state = 'failed' AND jobs.task > tasks_found.task)
    FROM tasks_found WHERE tasks_found.task IS NOT NULL),
found (task, error_type) AS (
    SELECT task, (SELECT min({error_type}) FROM jobs WHERE state = 'failed' AND jobs.task = tasks_found.task)
    FROM tasks_found WHERE task IS NOT NULL
    UNION ALL
    SELECT task, (SELECT min({error_type}) FROM jobs
        WHERE state = 'failed' AND jobs.task = found.task AND {error_type} > found.error_type)
    FROM found WHERE error_type IS NOT NULL)
SELECT task, error_type, (SELECT max(finished_at) FROM jobs
    WHERE state = 'failed' AND jobs.task = found.task AND {error_type} = found.error_type)
FROM found WHERE error_type IS NOT NULL LIMIT :limit;

-- name: failures
-- Of some of them (a JSON list of pairs): how many, counted up to a limit, the first time, and the id of the last.
SELECT json_extract(each.value, '$[0]'), json_extract(each.value, '$[1]'),
    (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_failures WHERE state = 'failed' AND task = json_extract(each.value, '$[0]')
        AND {error_type} = json_extract(each.value, '$[1]') AND finished_at >= :from LIMIT :most)),
    (SELECT min(finished_at) FROM jobs INDEXED BY jobs_failures WHERE state = 'failed' AND task = json_extract(each.value, '$[0]')
        AND {error_type} = json_extract(each.value, '$[1]') AND finished_at >= :from),
    (SELECT id FROM jobs INDEXED BY jobs_failures WHERE state = 'failed' AND task = json_extract(each.value, '$[0]')
        AND {error_type} = json_extract(each.value, '$[1]') AND finished_at >= :from ORDER BY finished_at DESC LIMIT 1)
FROM json_each(:groups) AS each;

-- name: waiting
-- For how many milliseconds the longest waiting of the rows that a claim on each queue would take first has been due.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM jobs WHERE state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue, :now - (SELECT min(run_at) FROM (SELECT run_at FROM jobs INDEXED BY jobs_pending
    WHERE state = 'pending' AND jobs.queue = found.queue
    ORDER BY priority DESC, id LIMIT :most))
FROM found WHERE queue IS NOT NULL LIMIT :limit;

-- name: delete
-- Finished jobs go; their ids come as a JSON list.
DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs)) AND state IN ('succeeded', 'failed', 'cancelled')
RETURNING id;

-- name: repeat
-- A new job like another one, with other arguments where they are given.
INSERT INTO jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, headers, parent, created_at)
SELECT task, coalesce(:args, args), coalesce(:kwargs, kwargs), queue, priority, 'pending', :now, attempts_max,
    policy, timeout_ms, memory_bytes, headers, :parent, :now
FROM jobs WHERE id = :job
RETURNING {job};

-- name: task_names
-- The tasks of all jobs; reads the whole table.
SELECT DISTINCT task FROM jobs ORDER BY task LIMIT :limit;

-- name: attempts
-- The history of one job.
SELECT {attempt} FROM attempts WHERE job = :job ORDER BY id;

-- name: counts
-- How many rows of each queue are in each state.
SELECT queue, state, count(*) FROM jobs GROUP BY queue, state;

-- name: unfinished
-- How many rows of each queue are in each unfinished state, by the index of each; no finished row is read.
SELECT queue, 'scheduled', count(*) FROM jobs WHERE state = 'scheduled' GROUP BY queue
UNION ALL SELECT queue, 'pending', count(*) FROM jobs WHERE state = 'pending' GROUP BY queue
UNION ALL SELECT queue, 'blocked', count(*) FROM jobs WHERE state = 'blocked' GROUP BY queue
UNION ALL SELECT queue, 'running', count(*) FROM jobs WHERE state = 'running' GROUP BY queue;

-- name: pending_queues
-- The queues that have pending rows, one step of the index each, however many rows they have.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM jobs WHERE state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue FROM found WHERE queue IS NOT NULL LIMIT :limit;

-- name: oldest_pending
-- For how many milliseconds the oldest pending row of each queue has been due.
SELECT queue, :now - min(run_at) FROM jobs WHERE state = 'pending' GROUP BY queue;

-- name: latency
-- For how many milliseconds the longest waiting of the rows that a claim on one queue would take first has been due.
SELECT :now - min(run_at) FROM (SELECT run_at FROM jobs WHERE state = 'pending' AND queue = :queue
    ORDER BY priority DESC, id LIMIT :limit);

-- name: suspects
-- The suspects of one queue that a claim would take first.
SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {suspects}
ORDER BY priority DESC, id LIMIT :limit;

-- name: cancelling
-- Running rows of some owners (a JSON list) that were asked to end: of all of them, which are few.
SELECT id, owner, claim FROM jobs INDEXED BY jobs_cancelling WHERE state = 'running' AND cancel_requested = 1
    AND owner IN (SELECT value FROM json_each(:owners)) ORDER BY id;

-- name: owned
-- Whether an owner holds running rows.
SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND owner = :owner);

-- name: ownerless
-- Owners that nobody knows and that hold rows claimed long ago, or at no time that a claim has written.
SELECT DISTINCT owner FROM jobs WHERE state = 'running'
    AND (claimed_at IS NULL OR claimed_at NOT BETWEEN :now - :age AND :now + :age)
    AND owner NOT IN (SELECT owner FROM owners) LIMIT 1000;

-- name: adopt
-- A stranger's running row without an owner gets one that never lives, so that it can be rescued.
UPDATE jobs SET owner = 0, claim = coalesce(claim, 0) WHERE state = 'running' AND owner IS NULL RETURNING id;

-- name: has_work
-- Whether anything is left that a draining family waits for in one queue: pending rows, retries, snoozes.
SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'pending' AND queue = :queue
        ORDER BY priority DESC, id LIMIT 1))
    OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze') AND queue = :queue);

-- name: family_runs
-- Whether a family's own workers hold running rows.
SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running'
    AND owner IN (SELECT owner FROM owners WHERE family = :family));

-- name: add_family
-- A family enters.
INSERT INTO families (id, name, host, boot_id, pid_namespace, pid, start_ticks, version, state_dir,
    dead_after_ms, started_at, heartbeat_at)
VALUES (:family, :name, :host, :boot_id, :pid_namespace, :pid, :start_ticks, :version, :state_dir,
    :dead_after_ms, :now, :now)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = :now WHERE died_at IS NULL;

-- name: heartbeat
-- A family lives; zero rows mean that it was declared dead.
UPDATE families SET heartbeat_at = :now, dead_after_ms = coalesce(:dead_after_ms, dead_after_ms)
WHERE id = :family AND died_at IS NULL;

-- name: bury_family
-- A family is declared dead, unless it has beaten since it was looked at; before its rows are touched.
UPDATE families SET died_at = coalesce(died_at, :now)
WHERE id = :family AND heartbeat_at = :heartbeat_at;

-- name: families
-- Every family.
SELECT id, name, host, boot_id, pid_namespace, pid, start_ticks, version, state_dir, dead_after_ms,
    started_at, heartbeat_at, :now - heartbeat_at, died_at IS NOT NULL FROM families ORDER BY id;

-- name: remove_family
-- A family has left, or is dead and settled.
DELETE FROM families WHERE id = :family;

-- name: add_owner
-- A life that may own rows enters.
INSERT INTO owners (owner, family, name, host, boot_id, pid_namespace, pid, start_ticks, started_at)
VALUES (:owner, :family, :name, :host, :boot_id, :pid_namespace, :pid, :start_ticks, :now)
ON CONFLICT (owner) DO NOTHING;

-- name: owners
-- The lives of one family.
SELECT owner, family, name, host, boot_id, pid_namespace, pid, start_ticks, :now - started_at
FROM owners WHERE family = :family ORDER BY owner;

-- name: strays
-- Lives of no family.
SELECT owner, family, name, host, boot_id, pid_namespace, pid, start_ticks, :now - started_at
FROM owners WHERE family NOT IN (SELECT id FROM families) ORDER BY owner;

-- name: remove_owner
-- A settled life.
DELETE FROM owners WHERE owner = :owner;

-- name: running
-- How many rows run.
SELECT count(*) FROM jobs WHERE state = 'running';

-- name: export
-- Whole rows in the order of their ids, to be moved, and what o'clock it is.
SELECT {job}, :now FROM jobs WHERE id > :after
    AND (:finished OR state IN ('scheduled', 'pending', 'blocked', 'running'))
ORDER BY id LIMIT :limit;

-- name: export_attempts
-- The whole history of some rows; their ids come as a JSON list.
SELECT {attempt}
FROM attempts WHERE job IN (SELECT value FROM json_each(:jobs)) ORDER BY job, id;

-- name: known
-- What stands under some ids; they come as a JSON list.
SELECT id, task, created_at FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs));

-- name: import
-- A row from another database, under its own id.
INSERT INTO jobs ({job})
VALUES (:id, :task, :args, :kwargs, :queue, :priority, :state, :run_at, :attempt, :attempts_max,
    :claims, :losses, :policy, :timeout_ms, :memory_bytes, :unique_key, :expires_at, :deferred,
    :cancel_requested, :owner, :claim, :created_at, :claimed_at, :started_at, :finished_at, :result,
    :error, :progress, :headers, :parent, :company, :cpu_ms, :rss_bytes);

-- name: import_attempt
-- One run of the history of an imported row.
INSERT INTO attempts ({attempt})
VALUES (:job, :attempt, :owner, :claim, :outcome, :error_type, :message, :traceback, :host, :pid,
    :exit_code, :signal, :verdict, :started_at, :finished_at, :stack, :said, :cpu_ms, :rss_bytes);

-- name: meta
-- A fact about the database.
SELECT value FROM meta WHERE key = :key;

-- name: follow_anew
-- Nobody has followed for a while, and what changed meanwhile was not kept: more than can be told.
INSERT INTO changes (jobs, at) SELECT NULL, :now WHERE NOT {followed};

-- name: follow
-- Somebody follows the changes for so many milliseconds; a time that a clock set back has left goes.
INSERT INTO meta (key, value) VALUES ('followed_until', CAST(:now + :ms AS TEXT))
ON CONFLICT (key) DO UPDATE SET
    value = CAST(max(min(CAST(value AS INTEGER), :now + 3600000), :now + :ms) AS TEXT);

-- name: tell
-- What this transaction has changed, for those who follow; a row comes back where somebody does.
INSERT INTO changes (jobs, at) SELECT :jobs, :now WHERE {followed} RETURNING 1;

-- name: newest
-- Where the feed stands, as Standing names it.
SELECT {followed}, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0),
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0),
    (SELECT min(number) FROM changes), '', NULL, NULL;

-- name: changed
-- The changes of some ranges of numbers (a JSON list of pairs).
SELECT number, jobs FROM json_each(:ranges) AS told CROSS JOIN changes
WHERE number BETWEEN json_extract(told.value, '$[0]') AND json_extract(told.value, '$[1]') LIMIT :limit;

-- name: enqueued
-- The jobs of some ranges of ids (a JSON list of pairs).
SELECT jobs.id FROM json_each(:ranges) AS told CROSS JOIN jobs
WHERE jobs.id BETWEEN json_extract(told.value, '$[0]') AND json_extract(told.value, '$[1]') LIMIT :limit;

-- name: trim_changes
-- Of the oldest changes those go that are old or too many, but never the newest: it is how a follower
-- knows that nothing was trimmed between it and what comes next.
DELETE FROM changes WHERE number IN (SELECT number
    FROM (SELECT number, at FROM changes ORDER BY number LIMIT :limit)
    WHERE number < (SELECT max(number) FROM changes)
        AND (at <= :now - :age OR number <= (SELECT max(number) FROM changes) - :kept))
RETURNING number;

-- name: add_stats
-- What became of jobs in some minutes, a JSON list in the order of the columns, added to what is there.
INSERT INTO stats (minute, queue, enqueued, started, succeeded, failed, retried, cancelled, run_ms, cpu_ms,
    wait_ms, wait_max_ms, depth, oldest_ms)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
    json_extract(value, '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value, '$[7]'),
    json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value, '$[10]'), json_extract(value, '$[11]'),
    json_extract(value, '$[12]'), json_extract(value, '$[13]')
FROM json_each(:rows) WHERE true
ON CONFLICT (minute, queue) DO UPDATE SET
    enqueued = stats.enqueued + excluded.enqueued, started = stats.started + excluded.started,
    succeeded = stats.succeeded + excluded.succeeded, failed = stats.failed + excluded.failed,
    retried = stats.retried + excluded.retried, cancelled = stats.cancelled + excluded.cancelled,
    run_ms = stats.run_ms + excluded.run_ms, cpu_ms = stats.cpu_ms + excluded.cpu_ms,
    wait_ms = stats.wait_ms + excluded.wait_ms, wait_max_ms = max(stats.wait_max_ms, excluded.wait_max_ms),
    depth = max(coalesce(stats.depth, excluded.depth), coalesce(excluded.depth, stats.depth)),
    oldest_ms = max(coalesce(stats.oldest_ms, excluded.oldest_ms), coalesce(excluded.oldest_ms, stats.oldest_ms));

-- name: stats
-- Sums by so many minutes and queue.
SELECT minute / :step * :step, queue, sum(enqueued), sum(started), sum(succeeded), sum(failed), sum(retried),
    sum(cancelled), sum(run_ms), sum(cpu_ms), sum(wait_ms), max(wait_max_ms), max(depth), max(oldest_ms)
FROM stats WHERE minute >= :from AND minute < :to AND (:queue IS NULL OR queue = :queue)
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT :limit;

-- name: stats_of_all
-- The same of all queues together; their depths add up.
SELECT at, '', sum(enqueued), sum(started), sum(succeeded), sum(failed), sum(retried),
    sum(cancelled), sum(run_ms), sum(cpu_ms), sum(wait_ms), max(wait_max_ms), sum(depth), max(oldest_ms)
FROM (SELECT minute / :step * :step AS at, sum(enqueued) AS enqueued, sum(started) AS started,
        sum(succeeded) AS succeeded, sum(failed) AS failed, sum(retried) AS retried, sum(cancelled) AS cancelled,
        sum(run_ms) AS run_ms, sum(cpu_ms) AS cpu_ms, sum(wait_ms) AS wait_ms, max(wait_max_ms) AS wait_max_ms,
        max(depth) AS depth, max(oldest_ms) AS oldest_ms
    FROM stats WHERE minute >= :from AND minute < :to GROUP BY 1, queue)
GROUP BY at ORDER BY at LIMIT :limit;

-- name: trim_stats
-- Old minutes go, a bounded number at a time, and what a wrong clock has put far ahead.
DELETE FROM stats WHERE (minute, queue) IN (
    SELECT minute, queue FROM stats WHERE minute < :now - :age
    UNION ALL SELECT minute, queue FROM stats WHERE minute > :now + :age LIMIT :limit)
RETURNING minute;

-- name: note_action
-- Somebody has done something.
INSERT INTO actions (at, who, verb, what, number) VALUES (:now, :who, :verb, :what, :number)
RETURNING id;

-- name: grow_action
-- It was done to more.
UPDATE actions SET number = number + :more WHERE id = :id;

-- name: trim_actions
-- The newest stay.
DELETE FROM actions WHERE id <= (SELECT max(id) FROM actions) - :kept;

-- name: actions
-- The newest of them.
SELECT id, at, who, verb, what, number FROM actions WHERE id < :before ORDER BY id DESC LIMIT :limit;

-- name: note_request
-- A request is made for the first time; no row where its key is known.
INSERT INTO requests (key, digest, jobs, at) VALUES (:key, :digest, '[]', :now)
ON CONFLICT (key) DO NOTHING RETURNING key;

-- name: request
-- What the first one with this key was, and the jobs that it made.
SELECT digest, jobs FROM requests WHERE key = :key;

-- name: answer_request
-- The jobs that a request has made.
UPDATE requests SET jobs = :jobs WHERE key = :key;

-- name: trim_requests
-- A page of those that are too old goes, and this one if it is.
DELETE FROM requests WHERE at < :now - :age
    AND (key = :key OR key IN (SELECT key FROM requests WHERE at < :now - :age ORDER BY at LIMIT :limit));

-- name: note_tasks
-- Workers have registered tasks: a JSON list of pairs.
INSERT INTO tasks (name, told, seen_at)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), :now FROM json_each(:rows) WHERE true
ON CONFLICT (name) DO UPDATE SET told = excluded.told, seen_at = excluded.seen_at;

-- name: trim_tasks
-- Those that nobody has registered for long go, and of too many those that were seen longest ago.
DELETE FROM tasks WHERE seen_at < :now - :age
    OR name IN (SELECT name FROM tasks ORDER BY seen_at DESC, name LIMIT -1 OFFSET :kept);

-- name: tasks
-- The tasks that workers have registered.
SELECT name, told, seen_at FROM tasks WHERE name > :after_name ORDER BY name LIMIT :limit;

-- name: succeed_many
-- Runs of one claim that returned; the row of values is repeated, with what is missing as a value that the
-- column cannot have. With a + the planner leaves the index of running rows alone, and finds each row by its id.
UPDATE jobs SET state = 'succeeded', result = nullif(told.column2, ''), error = NULL,
    started_at = :now - told.column3 - told.column4, finished_at = :now - told.column3,
    company = NULL, cpu_ms = nullif(told.column5, -1), rss_bytes = nullif(told.column6, -1)
FROM (VALUES (:job, :result, :age, :duration, :cpu_ms, :rss_bytes)) AS told
WHERE jobs.id = told.column1 AND +jobs.state = 'running' AND +jobs.owner = :owner AND jobs.claim = :claim;

-- name: reserve
-- The greatest id that was given out; a writer may give out those after it.
SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0),
    coalesce((SELECT max(id) FROM jobs), 0));

-- name: enqueue_alone
-- One new job without a unique key, in a statement that is a transaction by itself. To bring it back by
-- RETURNING cost a fifth of all; the caller knows every value but the id.
INSERT INTO jobs ({new_columns})
VALUES ({new_values});

-- name: enqueue_many
-- New jobs under ids of ours; the row of values is repeated, and one whose key is held is left out.
INSERT INTO jobs ({new_columns})
VALUES ({new_values})
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING;
