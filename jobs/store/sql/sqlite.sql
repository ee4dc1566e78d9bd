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
-- What `find` and its kin may be narrowed to; the moment of a row is its end, its beginning, or when it is due.
(:queue IS NULL OR queue = :queue) AND (:task IS NULL OR task = :task)
    AND (:error IS NULL OR instr(lower(error), lower(:error)) > 0)
    AND (:within IS NULL OR :now - :within
        <= coalesce(finished_at, CASE WHEN state = 'running' THEN claimed_at END, run_at))

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
-- The first pending rows of one queue become running under this owner and claim.
UPDATE jobs SET state = 'running', attempt = min(attempt, 999999999) + 1,
    claims = min(claims, 999999999) + 1, owner = :owner, claim = :claim, claimed_at = :now,
    started_at = :now, deferred = NULL, progress = NULL
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
    started_at = :now, deferred = NULL, progress = NULL
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
-- A finished row starts over; its history stays.
UPDATE jobs SET state = 'pending', attempt = 0, losses = 0, run_at = :now, deferred = NULL,
    cancel_requested = 0, expires_at = NULL, owner = NULL, claim = NULL, claimed_at = NULL,
    started_at = NULL, finished_at = NULL, result = NULL, error = NULL, progress = NULL,
    cpu_ms = NULL, rss_bytes = NULL
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
-- The newest jobs, of every state.
SELECT {job}
FROM jobs WHERE id < :before AND {wanted}
ORDER BY id DESC LIMIT :limit;

-- name: find_recent
-- The newest jobs of one state, among the newest ids alone: a page of a common state, without sorting all of it.
SELECT {job}
FROM jobs NOT INDEXED WHERE id < :before
    AND id >= coalesce(min(:before, (SELECT max(id) FROM jobs)) - :recent, 0)
    AND state = :state AND {wanted}
ORDER BY id DESC LIMIT :limit;

-- name: find_unfinished
-- The newest jobs of one unfinished state.
SELECT {job}
FROM jobs WHERE state = :state AND id < :before AND {wanted}
ORDER BY id DESC LIMIT :limit;

-- name: find_finished
-- The jobs of one finished state; the finished index finds the few failed among millions of others.
SELECT {job}
FROM jobs WHERE state = :state AND finished_at IS NOT NULL AND id < :before AND {wanted}
ORDER BY id DESC LIMIT :limit;

-- name: ids_unfinished
-- Only the ids of jobs of one unfinished state, the oldest first.
SELECT id FROM jobs WHERE state = :state AND id > :after AND {wanted} ORDER BY id LIMIT :limit;

-- name: ids_finished
-- Only the ids of jobs of one finished state, the oldest first.
SELECT id FROM jobs WHERE state = :state AND finished_at IS NOT NULL AND id > :after AND {wanted}
ORDER BY id LIMIT :limit;

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
