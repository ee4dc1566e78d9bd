-- Every statement of the queue, SQLite's dialect. A name and a sentence each; the other dialects
-- keep the same names in the same order, and what only one needs stands at its end. Each statement that leaves `running` carries the whole
-- fence: id, state, owner, claim. Ends of runs come as ages and delays in milliseconds; :now, bound by
-- the store, is the only clock. A {fragment} stands for its columns.

-- fragment: job
-- The whole row of a job, as JobRow names it.
id, task, args, kwargs, queue, priority, state, run_at, attempt, attempts_max, claims, losses,
policy, timeout_ms, memory_bytes, unique_key, expires_at, deferred, cancel_requested, owner, claim,
created_at, claimed_at, started_at, finished_at, result, error, progress, headers, parent, company,
cpu_ms, rss_bytes, special, turn, limit_key, share, weight, parked, limit_place, debounce_ms, deadline_at, keep,
held_key, held_until

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
expires_at - :now, queue, priority, headers, company, special | (limit_key IS NOT NULL), {waited}, NULL

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

-- fragment: term_columns
-- What only a job on terms has, in the order in which `rows_on_terms` gives them.
special, limit_key, share, weight, debounce_ms, deadline_at, keep

-- fragment: term_values
-- And what stands for them, with a value that the column cannot have where there is none.
:special, nullif(:limit_key, ''), nullif(:share, ''), nullif(:weight, 0), nullif(:debounce_ms, -1),
nullif(:deadline_at, -62135596800001), nullif(:keep, '')

-- fragment: told
-- What a changed row tells of itself, as Changed names it.
state, task, queue, attempt, attempts_max, limit_key

-- fragment: holds
-- Of a row of `uniques` and that of its job: whether it holds the key. A debounced job does while it waits.
(uniques.until IS NULL OR uniques.until > :now)
    AND (jobs.special & 128 = 0 OR jobs.state IN ('scheduled', 'pending', 'blocked'))

-- fragment: superseded
-- Whether a debounced job has lost its key, to a call that came after it had been claimed.
special & 128 <> 0 AND NOT EXISTS (SELECT 1 FROM uniques WHERE uniques.job = jobs.id)

-- fragment: supersedes
-- What is said of it then.
'superseded: a later call has its unique key'

-- fragment: wanted
-- What a Filter says, but for ids; lists are JSON. The moment of a row is its end, its beginning, or when it is due.
(:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:queue IS NULL OR queue = :queue)
    AND (:tasks IS NULL OR task IN (SELECT value FROM json_each(:tasks)))
    AND (:error IS NULL OR instr(lower(error), lower(:error)) > 0)
    AND (:error_type IS NULL OR {error_type} = :error_type)
    AND (:text IS NULL OR instr(lower(task), lower(:text)) > 0 OR instr(lower(error), lower(:text)) > 0
        OR instr(lower(unique_key), lower(:text)) > 0 OR instr(lower(held_key), lower(:text)) > 0
        OR instr(lower(args), lower(:text_in_json)) > 0 OR instr(lower(kwargs), lower(:text_in_json)) > 0)
    AND (coalesce(:since, :since_ago) IS NULL OR {moment} >= coalesce(:since, :now - :since_ago))
    AND (coalesce(:until, :until_ago) IS NULL OR {moment} < coalesce(:until, :now - :until_ago))

-- fragment: error_type
-- What the error begins with. The index jobs_failures says the same words.
substr(coalesce(error, ''), 1, min(instr(coalesce(error, '') || ': ', ': ') - 1, 100))

-- fragment: put_off
-- Whether a row that waits is no candidate for anything until its new time; one that waits for another job is none.
times.due > :now AND (state <> 'blocked' OR parked <> 'after')

-- fragment: timed
-- When time alone ends a waiting row, or removes one that says itself how long it is kept, its key included. The index
-- jobs_timed says the same words.
CASE WHEN finished_at IS NULL
        THEN min(coalesce(expires_at, 253402300800000), coalesce(deadline_at, 253402300800000))
        ELSE max(finished_at + json_extract(keep, '$.' || state), coalesce(held_until, 0)) END

-- fragment: ends
-- Rows whose end may come so.
(expires_at IS NOT NULL OR deadline_at IS NOT NULL OR keep IS NOT NULL)
    AND (finished_at IS NULL) = 1 AND state <> 'running'

-- fragment: kept
-- Finished rows that say themselves how long they are kept, and are so no longer.
(expires_at IS NOT NULL OR deadline_at IS NOT NULL OR keep IS NOT NULL)
    AND (finished_at IS NULL) = 0 AND {timed} <= :now

-- fragment: by_age
-- Whether the age of a finished row is all that counts: it says nothing itself, no key of it is held longer, and
-- its queue is meant.
(keep IS NULL OR json_extract(keep, '$.' || state) IS NULL)
    AND (queue IN (SELECT value FROM json_each(:queues))) = :within
    AND (held_until IS NULL OR held_until <= :now)

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
    AND (company IS NOT NULL OR memory_bytes > 0) ORDER BY priority DESC, turn, id LIMIT 1 OFFSET 10000), -32769)

-- fragment: suspects
-- And one that may, or is. Its index says the same words.
AND (company IS NOT NULL OR memory_bytes > 0)

-- fragment: schedule_columns
-- The whole row of a schedule, as ScheduleRow names it.
name, source, family, declared_by, task, cron, every_ms, anchor, timezone, args, kwargs, keys, queue,
catch_up, overlap, paused_config, paused_at, last_tick, last_job, created_at

-- fragment: schedule_seen
-- The same as it is seen: when, and with its newest tick.
:now, (SELECT max(tick) FROM ticks WHERE schedule = name), {schedule_columns}

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

-- name: enqueue_on_terms
-- The same of a job with a limit, a share, a deadline, or whatever else only few have.
INSERT INTO jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, {term_columns}, created_at)
VALUES (:task, :args, :kwargs, :queue, :priority,
    CASE WHEN coalesce(:run_at_ms, :now) + :run_in_ms > :now THEN 'scheduled' ELSE 'pending' END,
    coalesce(:run_at_ms, :now) + :run_in_ms, :attempts_max, :policy, :timeout_ms, :memory_bytes,
    :unique_key, coalesce(:expires_at_ms, coalesce(:run_at_ms, :now) + :run_in_ms + :expires_in_ms), :headers,
    :parent, :special, :limit_key, :share, :weight, :debounce_ms,
    coalesce(:deadline_at_ms, coalesce(:run_at_ms, :now) + :run_in_ms + :deadline_in_ms), :keep, :now)
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING {job};

-- name: holder
-- The job that holds a unique key, and its limit: while it is unfinished, or by a row of `uniques`.
SELECT id, limit_key FROM jobs WHERE unique_key = :unique_key
    AND state IN ('scheduled', 'pending', 'blocked', 'running')
UNION ALL
SELECT jobs.id, jobs.limit_key FROM uniques CROSS JOIN jobs ON jobs.id = uniques.job
WHERE uniques.key = :unique_key AND {holds};

-- name: held_keys
-- Those of some unique keys (a JSON list) that have a row of `uniques`, and whether that holds them.
SELECT uniques.key, jobs.id IS NOT NULL AND {holds}
FROM json_each(:keys) AS asked CROSS JOIN uniques ON uniques.key = asked.value
LEFT JOIN jobs ON jobs.id = uniques.job;

-- name: free_keys
-- Rows that hold nothing go (a JSON list of their keys): an unfinished job has the key from now on. Else a debounced
-- one that runs would find it its own when it comes back.
DELETE FROM uniques WHERE key IN (SELECT value FROM json_each(:keys));

-- name: give_way
-- A new job whose key was found held goes, before anybody has seen it.
DELETE FROM jobs WHERE id = :job;

-- name: take_key
-- A key is held by a row of its own from now on; no row comes back where another job holds it so. Whoever
-- comes here has the job in `jobs` under this key, so that no other enqueuer of it is on its way.
INSERT INTO uniques (key, job, until)
SELECT :unique_key, id, created_at + :held_ms FROM jobs WHERE id = :job
ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = excluded.until
WHERE NOT EXISTS (SELECT 1 FROM jobs
    WHERE jobs.id = uniques.job AND jobs.id <> excluded.job AND {holds})
RETURNING job;

-- name: hold_apart
-- And not by the job's state any more.
UPDATE jobs SET unique_key = NULL, held_key = :unique_key, held_until = created_at + :held_ms
WHERE id = :job
RETURNING {job};

-- name: hold_again
-- A debounced job that is to run once more comes under its key, until that has a row.
UPDATE jobs SET unique_key = held_key WHERE id = :job AND special & 128 <> 0 AND held_key IS NOT NULL
RETURNING held_key;

-- name: hold_place
-- From here on an attempt to replace a job is undone, with the locks that it took.
SAVEPOINT replacing;

-- name: replace
-- A waiting job gets what it was called with anew, and whether it is due then. How its key is held stays. One
-- that has run begins a new window of a debounce; any other runs by the end of its own, and of this call's.
UPDATE jobs SET task = :task, args = :args, kwargs = :kwargs, queue = :queue, priority = :priority,
    state = CASE WHEN state = 'blocked' AND coalesce(parked, 'after') = 'after' THEN 'blocked' ELSE 'scheduled' END,
    parked = CASE WHEN parked = 'after' THEN parked END,
    run_at = CASE WHEN :debounce_ms IS NULL THEN coalesce(:run_at_ms, :now) + :run_in_ms
        ELSE min(:now + min(:run_in_ms, :debounce_ms), CASE WHEN attempt > 0 OR deferred IS NOT NULL
            THEN :now + :debounce_ms ELSE created_at + coalesce(debounce_ms, :debounce_ms) END) END,
    debounce_ms = CASE WHEN special & 128 = 0 OR :debounce_ms IS NULL THEN debounce_ms
        WHEN attempt > 0 OR deferred IS NOT NULL THEN max(0, :now - created_at) + :debounce_ms
        ELSE min(debounce_ms, max(0, :now - created_at) + :debounce_ms) END,
    attempts_max = :attempts_max, policy = :policy, timeout_ms = :timeout_ms, memory_bytes = :memory_bytes,
    expires_at = coalesce(:expires_at_ms, coalesce(:run_at_ms, :now) + :run_in_ms + :expires_in_ms),
    headers = :headers, parent = :parent, turn = 0, limit_key = :limit_key, share = :share, weight = :weight,
    deadline_at = coalesce(:deadline_at_ms, coalesce(:run_at_ms, :now) + :run_in_ms + :deadline_in_ms),
    keep = :keep,
    special = (:special & 17) | (special & 136)
        | (CASE WHEN :keep IS NOT NULL OR held_until IS NOT NULL THEN 64 ELSE 0 END),
    attempt = 0, losses = 0, deferred = NULL, error = NULL, progress = NULL, owner = NULL, claim = NULL,
    claimed_at = NULL, started_at = NULL, company = NULL, cpu_ms = NULL, rss_bytes = NULL
WHERE id = :holder AND state IN ('scheduled', 'pending', 'blocked')
RETURNING {job}, state = 'scheduled' AND run_at <= :now;

-- name: let_go
-- It was not replaced: nothing of the attempt is left.
ROLLBACK TO replacing;

-- name: replaced
-- It was.
RELEASE replacing;

-- name: supersede
-- Debounced jobs of a claim (a JSON list) that had lost their key do not begin.
UPDATE jobs SET state = 'cancelled', attempt = max(attempt - 1, 0), started_at = NULL, finished_at = :now,
    error = {supersedes}
WHERE id IN (SELECT value FROM json_each(:jobs)) AND state = 'running' AND owner = :owner AND claim = :claim
    AND {superseded}
RETURNING id, {told};

-- name: held_by
-- Which of some jobs (a JSON list) hold a key by a row of `uniques`.
SELECT uniques.job FROM json_each(:jobs) AS asked CROSS JOIN uniques ON uniques.job = asked.value
CROSS JOIN jobs ON jobs.id = uniques.job
WHERE {holds};

-- name: import_key
-- An imported job holds its key again; no row comes back where another one does.
INSERT INTO uniques (key, job, until) SELECT held_key, id, held_until FROM jobs WHERE id = :job
ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = excluded.until
WHERE NOT EXISTS (SELECT 1 FROM jobs
    WHERE jobs.id = uniques.job AND jobs.id <> excluded.job AND {holds})
RETURNING job;

-- name: uniques_page
-- The rows of `uniques` behind a key, and whether each is of no use any more: its job is gone, or its time over.
SELECT uniques.key, uniques.job, jobs.id IS NULL OR coalesce(uniques.until <= :now, false)
FROM uniques LEFT JOIN jobs ON jobs.id = uniques.job
WHERE uniques.key > :after_key ORDER BY uniques.key LIMIT :limit;

-- name: trim_uniques
-- Some of them go (a JSON list of pairs), each as it was seen.
DELETE FROM uniques WHERE key IN (SELECT uniques.key FROM json_each(:rows) AS seen
    CROSS JOIN uniques ON uniques.key = json_extract(seen.value, '$[0]')
        AND uniques.job = json_extract(seen.value, '$[1]'))
RETURNING key;

-- name: look
-- What a turn has to know before it claims: the number of the settings, whether a row is due, and whether a key is
-- whose rate lets the next job begin. To compile this and no promotion is a tenth of a turn's time on SQLite.
SELECT (SELECT value FROM meta WHERE key = 'settings'),
    EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND run_at <= :now),
    EXISTS (SELECT 1 FROM limit_keys WHERE next_at IS NOT NULL AND next_at <= :now);

-- name: promote
-- Scheduled rows that are due become pending, a bounded number at a time; which of them have a share comes back.
UPDATE jobs SET state = 'pending' WHERE id IN
    (SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= :now ORDER BY run_at LIMIT :limit)
RETURNING id, share IS NOT NULL;

-- name: claim
-- The first pending rows of one queue become running under this owner and claim. How far an earlier run said
-- that it had come stays, for the task that goes on from there.
UPDATE jobs SET state = 'running', attempt = min(attempt, 999999999) + 1,
    claims = min(claims, 999999999) + 1, owner = :owner, claim = :claim, claimed_at = :now,
    started_at = :now, deferred = NULL, limit_place = NULL
WHERE id IN (SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {whom} {reach}
    ORDER BY priority DESC, turn, id LIMIT :limit)
RETURNING {claimed};

-- name: claimable
-- What a claim would take, but for rows that are known to be refused (a JSON list).
SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {whom} {reach}
    AND id NOT IN (SELECT value FROM json_each(:left)) ORDER BY priority DESC, turn, id LIMIT :limit;

-- name: claim_row
-- One of them becomes running, by itself.
UPDATE jobs SET state = 'running', attempt = min(attempt, 999999999) + 1,
    claims = min(claims, 999999999) + 1, owner = :owner, claim = :claim, claimed_at = :now,
    started_at = :now, deferred = NULL, limit_place = NULL
WHERE id = :job AND state = 'pending'
RETURNING {claimed};

-- name: due
-- What a promotion would take, but for rows that are known to be refused (a JSON list).
SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= :now
    AND id NOT IN (SELECT value FROM json_each(:left)) ORDER BY run_at LIMIT :limit;

-- name: promote_row
-- One of them becomes pending, by itself.
UPDATE jobs SET state = 'pending' WHERE id = :job AND state = 'scheduled' RETURNING id, share IS NOT NULL;

-- name: promote_due
-- One row becomes pending, if it is due.
UPDATE jobs SET state = 'pending' WHERE id = :job AND state = 'scheduled' AND run_at <= :now RETURNING id;

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
    ORDER BY priority DESC, turn, id LIMIT 1);

-- name: next_due
-- In how many milliseconds the next scheduled row is due, or a rate lets a job begin (overdue is negative), and the
-- number of the settings.
SELECT (SELECT min(due) FROM (
        SELECT (SELECT run_at - :now FROM jobs WHERE state = 'scheduled' ORDER BY run_at LIMIT 1) AS due
        UNION ALL SELECT (SELECT CAST(next_at - :now AS INTEGER) + (next_at - :now > CAST(next_at - :now AS INTEGER))
            FROM limit_keys WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1))),
    (SELECT value FROM meta WHERE key = 'settings');

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
-- A run that returned, where succeeded rows are not kept; but for one that is kept all the same.
DELETE FROM jobs WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
    AND special & 64 = 0;

-- name: retry
-- A run that failed and may run again; without a duration it began when it was claimed. A job of a share comes
-- to be pending by a promotion, which sees to its turn.
UPDATE jobs SET
    state = CASE WHEN cancel_requested = 1 OR {superseded} THEN 'cancelled'
        WHEN :delay <= :age AND share IS NULL THEN 'pending' ELSE 'scheduled' END,
    run_at = :now - :age + :delay, deferred = 'retry',
    error = CASE WHEN {superseded} THEN {supersedes} ELSE :error END,
    started_at = coalesce(:now - :age - :duration, claimed_at),
    finished_at = CASE WHEN cancel_requested = 1 OR {superseded} THEN :now - :age END,
    company = :company, cpu_ms = :cpu_ms, rss_bytes = :rss_bytes
WHERE id = :job AND state = 'running' AND owner = :owner AND claim = :claim
RETURNING {told};

-- name: snooze
-- A run put off by its task, or by a worker that does not know the task; the attempt is given back.
UPDATE jobs SET
    state = CASE WHEN cancel_requested = 1 OR {superseded} THEN 'cancelled'
        WHEN :delay <= :age AND share IS NULL THEN 'pending' ELSE 'scheduled' END,
    run_at = :now - :age + :delay, deferred = :deferred, attempt = max(attempt - 1, 0),
    started_at = NULL,
    error = CASE WHEN {superseded} THEN {supersedes} ELSE coalesce(:error, error) END,
    finished_at = CASE WHEN cancel_requested = 1 OR {superseded} THEN :now - :age END,
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
UPDATE jobs SET state = 'blocked', parked = NULL WHERE id = :job AND state = 'pending'
RETURNING {told};

-- name: unblock
-- Rows that need wait no longer.
UPDATE jobs SET state = CASE WHEN run_at > :now THEN 'scheduled' ELSE 'pending' END, parked = NULL
WHERE id = :job AND state = 'blocked'
RETURNING {told};

-- name: cancel
-- An unfinished row that does not run is cancelled at once.
UPDATE jobs SET state = 'cancelled', cancel_requested = 1, finished_at = :now, parked = NULL, turn = 0
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
    progress = CASE WHEN state = 'succeeded' THEN NULL ELSE progress END, cpu_ms = NULL, rss_bytes = NULL,
    special = special & ~16, deadline_at = NULL, limit_place = NULL, parked = NULL, turn = 0
WHERE id = :job AND state IN ('failed', 'cancelled', 'succeeded')
RETURNING share IS NOT NULL, unique_key, special & 128 <> 0 AND held_key IS NOT NULL, {told};

-- name: reschedule
-- A row that waits gets another time. One that is due by it becomes pending by a promotion, as any other does,
-- and one that is put off is given its turn by that.
UPDATE jobs SET deferred = NULL,
    run_at = CASE WHEN state = 'pending' AND times.due <= :now THEN min(run_at, times.due) ELSE times.due END,
    state = CASE WHEN {put_off} THEN 'scheduled' ELSE state END,
    parked = CASE WHEN {put_off} THEN NULL ELSE parked END,
    turn = CASE WHEN {put_off} THEN 0 ELSE turn END
FROM (SELECT coalesce(:run_at_ms, :now) + :run_in_ms AS due) AS times
WHERE id = :job AND state IN ('scheduled', 'pending', 'blocked')
    AND (expires_at IS NULL OR expires_at > max(times.due, :now))
    AND (deadline_at IS NULL OR deadline_at > max(times.due, :now))
RETURNING {told};

-- name: prune_look
-- A page of finished rows that are older than a time, the oldest first, and whether each of them goes.
SELECT id, finished_at, {by_age} FROM jobs WHERE state = :state AND finished_at IS NOT NULL
    AND finished_at <= :now - :age AND (finished_at, id) > (coalesce(:at, -9223372036854775807), :after)
ORDER BY finished_at, id LIMIT :limit;

-- name: prune
-- Some of them (a JSON list) go, if that is still so. With a + the planner finds each row by its id.
DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs)) AND +state = :state
    AND +finished_at <= :now - :age AND {by_age}
RETURNING id;

-- name: prunable
-- How many finished rows are older than their time.
SELECT count(*) FROM jobs
WHERE state = :state AND finished_at IS NOT NULL AND finished_at <= :now - :age AND {by_age};

-- name: prune_kept
-- Rows that say themselves how long they are kept, and are so no longer.
DELETE FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_timed
    WHERE {kept} ORDER BY {timed} LIMIT :limit)
RETURNING id;

-- name: prunable_kept
-- How many these are, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_timed
    WHERE {kept} LIMIT :limit);

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
SELECT attempt, attempts_max, policy, claim, timeout_ms, memory_bytes, company, deadline_at - :now FROM jobs
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
-- Each queue and priority that a pending row has, and the greatest turn there; a step of the index each.
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
SELECT queue, priority, (SELECT max(turn) FROM jobs
    WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority)
FROM found WHERE priority IS NOT NULL LIMIT :limit;

-- name: newest_pending
-- The ids of the newest of each kind without turns (a JSON list), of all together the newest.
SELECT jobs.id FROM json_each(:kinds) AS kind CROSS JOIN jobs ON jobs.id IN (
    SELECT each.id FROM jobs AS each INDEXED BY jobs_pending
    WHERE each.state = 'pending' AND each.queue = json_extract(kind.value, '$[0]')
        AND each.priority = json_extract(kind.value, '$[1]') AND each.turn = 0 AND each.id < :before
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
    ORDER BY priority DESC, turn, id LIMIT :most))
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
    ORDER BY priority DESC, turn, id LIMIT :most))
FROM found WHERE queue IS NOT NULL LIMIT :limit;

-- name: delete
-- Finished jobs go; their ids come as a JSON list.
DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs)) AND state IN ('succeeded', 'failed', 'cancelled')
RETURNING id;

-- name: repeat
-- A new job like another one, with other arguments where they are given.
INSERT INTO jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, headers, parent, special, limit_key, share, weight, keep, created_at)
SELECT task, coalesce(:args, args), coalesce(:kwargs, kwargs), queue, priority, 'pending', :now, attempts_max,
    policy, timeout_ms, memory_bytes, headers, :parent, special & 65, limit_key, share, weight, keep, :now
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
    ORDER BY priority DESC, turn, id LIMIT :limit);

-- name: before
-- How many pending rows a claim would take before one, of its queue, each half counted up to a limit.
SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'pending' AND queue = this.queue
        AND priority > this.priority LIMIT :most))
    + (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'pending' AND queue = this.queue
            AND priority = this.priority AND turn < this.turn
        UNION ALL SELECT 1 FROM jobs WHERE state = 'pending' AND queue = this.queue
            AND priority = this.priority AND turn = this.turn AND id < this.id LIMIT :most))
FROM jobs AS this WHERE this.id = :job;

-- name: held_back
-- How many rows wait for what, each by an index of its own and counted up to a limit. What is put off is
-- scheduled too.
SELECT 'later', count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_scheduled WHERE state = 'scheduled' LIMIT :most)
UNION ALL SELECT 'retry', count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_deferred
    WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze') LIMIT :most)
UNION ALL SELECT 'unknown_task', count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_unknown
    WHERE state = 'scheduled' AND deferred = 'unknown' LIMIT :most)
UNION ALL SELECT 'blocked', count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_blocked WHERE state = 'blocked' LIMIT :most)
UNION ALL SELECT 'company', count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_suspects
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0) LIMIT :most);

-- name: suspects
-- The suspects of one queue that a claim would take first.
SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {suspects}
ORDER BY priority DESC, turn, id LIMIT :limit;

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
-- Whether anything is left that a draining family waits for in one queue: pending rows, retries, snoozes, and what
-- waits for a limit that lets jobs begin (a step of the index for each key, one for all of any other limit).
SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'pending' AND queue = :queue
        ORDER BY priority DESC, turn, id LIMIT 1))
    OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze') AND queue = :queue)
    OR EXISTS (WITH RECURSIVE found (key) AS (
            SELECT (SELECT substr(min(parked), 7) FROM jobs INDEXED BY jobs_parked
                WHERE state = 'blocked' AND parked > 'limit:' AND parked < 'limit;')
            UNION ALL
            SELECT (SELECT substr(min(parked), 7) FROM jobs INDEXED BY jobs_parked
                WHERE state = 'blocked' AND parked < 'limit;' AND parked > 'limit:' || CASE
                    WHEN instr(found.key, ':') = 0 OR EXISTS (SELECT 1 FROM limits WHERE coalesce(concurrency, 1) > 0
                        AND limits.name = substr(found.key, 1, instr(found.key, ':') - 1))
                    THEN found.key ELSE substr(found.key, 1, instr(found.key, ':') - 1) || ';' END)
            FROM found WHERE found.key IS NOT NULL LIMIT 10000)
        SELECT 1 FROM found CROSS JOIN limits
            ON limits.name = substr(found.key, 1, instr(found.key || ':', ':') - 1) AND coalesce(concurrency, 1) > 0
        WHERE EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_parked
            WHERE state = 'blocked' AND parked = 'limit:' || found.key AND queue = :queue));

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

-- name: living_versions
-- The releases of the families that beat.
SELECT DISTINCT version FROM families WHERE died_at IS NULL AND :now - heartbeat_at <= dead_after_ms LIMIT 100;

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
    :error, :progress, :headers, :parent, :company, :cpu_ms, :rss_bytes, :special, :turn, :limit_key,
    :share, :weight, :parked, :limit_place, :debounce_ms, :deadline_at, :keep, :held_key, :held_until);

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
INSERT INTO stats (minute, queue, started, succeeded, failed, retried, cancelled, run_ms, cpu_ms,
    wait_ms, wait_max_ms, depth, oldest_ms)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
    json_extract(value, '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value, '$[7]'),
    json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value, '$[10]'), json_extract(value, '$[11]'),
    json_extract(value, '$[12]')
FROM json_each(:rows) WHERE true
ON CONFLICT (minute, queue) DO UPDATE SET
    started = stats.started + excluded.started,
    succeeded = stats.succeeded + excluded.succeeded, failed = stats.failed + excluded.failed,
    retried = stats.retried + excluded.retried, cancelled = stats.cancelled + excluded.cancelled,
    run_ms = stats.run_ms + excluded.run_ms, cpu_ms = stats.cpu_ms + excluded.cpu_ms,
    wait_ms = stats.wait_ms + excluded.wait_ms, wait_max_ms = max(stats.wait_max_ms, excluded.wait_max_ms),
    depth = max(coalesce(stats.depth, excluded.depth), coalesce(excluded.depth, stats.depth)),
    oldest_ms = max(coalesce(stats.oldest_ms, excluded.oldest_ms), coalesce(excluded.oldest_ms, stats.oldest_ms));

-- name: stats
-- Sums by so many minutes and queue.
SELECT minute / :step * :step, queue, sum(started), sum(succeeded), sum(failed), sum(retried),
    sum(cancelled), sum(run_ms), sum(cpu_ms), sum(wait_ms), max(wait_max_ms), max(depth), max(oldest_ms)
FROM stats WHERE minute >= :from AND minute < :to AND (:queue IS NULL OR queue = :queue)
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT :limit;

-- name: stats_of_all
-- The same of all queues together; their depths add up.
SELECT at, '', sum(started), sum(succeeded), sum(failed), sum(retried),
    sum(cancelled), sum(run_ms), sum(cpu_ms), sum(wait_ms), max(wait_max_ms), sum(depth), max(oldest_ms)
FROM (SELECT minute / :step * :step AS at, sum(started) AS started,
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
-- Those that nobody has registered for long go, and of too many those that were seen longest ago; what is
-- paused stays so.
DELETE FROM tasks WHERE paused_at IS NULL AND (seen_at < :now - :age
    OR name IN (SELECT name FROM tasks ORDER BY seen_at DESC, name LIMIT -1 OFFSET :kept));

-- name: tasks
-- The tasks that workers have registered; of one that was only paused nobody has told.
SELECT name, told, seen_at FROM tasks WHERE name > :after_name AND told <> 'null' ORDER BY name LIMIT :limit;

-- name: next_end
-- In how many milliseconds the first waiting row is to be ended because of the time alone; overdue is negative.
SELECT (SELECT {timed} FROM jobs INDEXED BY jobs_timed WHERE {ends} ORDER BY {timed} LIMIT 1) - :now;

-- name: expire
-- Waiting rows that no run may begin any more are cancelled, a bounded number at a time.
UPDATE jobs SET state = 'cancelled', error = :error, finished_at = :now, parked = NULL, turn = 0
WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_timed WHERE {ends} AND {timed} <= :now AND expires_at <= :now
    ORDER BY {timed} LIMIT :limit)
RETURNING id, {told};

-- name: expire_row
-- One of them, by itself.
UPDATE jobs SET state = 'cancelled', error = :error, finished_at = :now, parked = NULL, turn = 0
WHERE id = :job AND state IN ('scheduled', 'pending', 'blocked') AND expires_at <= :now
RETURNING id, {told};

-- name: expire_rows
-- Which these are, but for rows that are known to be refused (a JSON list).
SELECT id FROM jobs INDEXED BY jobs_timed WHERE {ends} AND {timed} <= :now AND expires_at <= :now
    AND id NOT IN (SELECT value FROM json_each(:left)) ORDER BY {timed} LIMIT :limit;

-- name: fail_overdue
-- Waiting rows that are past their deadline fail, a bounded number at a time; what they were told
-- last is kept. What runs then is ended by whoever judges it.
UPDATE jobs SET state = 'failed', error = substr(:error || coalesce('; its last error: ' || error, ''), 1, 2000),
    finished_at = :now, parked = NULL, turn = 0
WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_timed WHERE {ends} AND {timed} <= :now AND deadline_at <= :now
    ORDER BY {timed} LIMIT :limit)
RETURNING id, {told};

-- name: fail_overdue_row
-- One of them, by itself.
UPDATE jobs SET state = 'failed', error = substr(:error || coalesce('; its last error: ' || error, ''), 1, 2000),
    finished_at = :now, parked = NULL, turn = 0
WHERE id = :job AND state IN ('scheduled', 'pending', 'blocked') AND deadline_at <= :now
RETURNING id, {told};

-- name: fail_overdue_rows
-- Which these are, but for rows that are known to be refused (a JSON list).
SELECT id FROM jobs INDEXED BY jobs_timed WHERE {ends} AND {timed} <= :now AND deadline_at <= :now
    AND id NOT IN (SELECT value FROM json_each(:left)) ORDER BY {timed} LIMIT :limit;

-- name: deadlines
-- In how many milliseconds the deadline is of these jobs (a JSON list) that have one.
SELECT id, deadline_at - :now FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs)) AND deadline_at IS NOT NULL;

-- name: parked_tasks
-- The tasks that jobs are parked for and that are not paused, a step of the index each.
WITH RECURSIVE found (parked) AS (
    SELECT min(parked) FROM jobs INDEXED BY jobs_parked
    WHERE parked IS NOT NULL AND state = 'blocked' AND parked > 'task:' AND parked < 'task;'
    UNION ALL
    SELECT (SELECT min(jobs.parked) FROM jobs INDEXED BY jobs_parked
        WHERE parked IS NOT NULL AND state = 'blocked' AND jobs.parked > found.parked AND jobs.parked < 'task;')
    FROM found WHERE found.parked IS NOT NULL)
SELECT substr(parked, 6) FROM found WHERE parked IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks
    WHERE name = substr(parked, 6) AND paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now))
LIMIT :limit;

-- name: unpark
-- A page of the rows that are parked for something else than a limit may be claimed again.
UPDATE jobs SET state = 'pending', parked = NULL WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_parked
    WHERE parked IS NOT NULL AND state = 'blocked' AND parked = :parked ORDER BY queue, priority DESC, turn, id LIMIT :limit)
RETURNING id, share IS NOT NULL;

-- name: settings
-- The number that each change of a setting raises, and what is paused now: a JSON list of whether it is a
-- task, its name, and for how many milliseconds yet.
SELECT (SELECT value FROM meta WHERE key = 'settings'), json_group_array(json_array(is_task, name, ms))
FROM (SELECT 0 AS is_task, name, paused_until - :now AS ms FROM queues
    WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now)
    UNION ALL
    SELECT 1, name, paused_until - :now FROM tasks
    WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now)
    LIMIT :limit);

-- name: note_settings
-- A setting has changed: whoever keeps settings in memory reads them anew.
INSERT INTO meta (key, value) VALUES ('settings', '1')
ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT);

-- name: pause_queue
-- Nothing of this queue is claimed, until a moment, for so long, or until somebody resumes it; a moment that
-- has passed pauses nothing.
INSERT INTO queues (name, paused_at, paused_until)
SELECT :name, :now, coalesce(:until, :now + :for_ms) WHERE coalesce(:until, :now + :for_ms, :now + 1) > :now
ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until,
    paused_at = CASE WHEN paused_until IS NULL OR paused_until > :now THEN coalesce(paused_at, :now) ELSE :now END
RETURNING name, paused_at, paused_until;

-- name: resume_queue
-- Its jobs are claimed again.
UPDATE queues SET paused_at = NULL, paused_until = NULL
WHERE name = :name AND paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now)
RETURNING 1;

-- name: pause_task
-- The same of a task, which no worker may have told of.
INSERT INTO tasks (name, told, seen_at, paused_at, paused_until)
SELECT :name, 'null', :now, :now, coalesce(:until, :now + :for_ms) WHERE coalesce(:until, :now + :for_ms, :now + 1) > :now
ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until,
    paused_at = CASE WHEN paused_until IS NULL OR paused_until > :now THEN coalesce(paused_at, :now) ELSE :now END
RETURNING name, paused_at, paused_until;

-- name: resume_task
-- Its jobs are claimed again, once they are freed.
UPDATE tasks SET paused_at = NULL, paused_until = NULL
WHERE name = :name AND paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now)
RETURNING 1;

-- name: forget_queues
-- Pauses of queues that have ended by themselves some time ago go, and what is not said anything of any more.
DELETE FROM queues WHERE name IN (SELECT name FROM queues WHERE fair = 0
    AND (paused_at IS NULL OR paused_until < :now - :age) LIMIT :limit);

-- name: forget_pauses
-- The same of fair queues, which stay.
UPDATE queues SET paused_at = NULL, paused_until = NULL
WHERE fair = 1 AND paused_at IS NOT NULL AND paused_until < :now - :age;

-- name: forget_tasks
-- The same of tasks, of which nobody has told.
DELETE FROM tasks WHERE name IN (SELECT name FROM tasks WHERE told = 'null'
    AND (paused_at IS NULL OR paused_until < :now - :age) LIMIT :limit);

-- name: forget_task_pauses
-- The same of those that somebody has told of, which stay.
UPDATE tasks SET paused_at = NULL, paused_until = NULL
WHERE name IN (SELECT name FROM tasks WHERE paused_at IS NOT NULL AND told <> 'null'
    AND paused_until < :now - :age LIMIT :limit);

-- name: paused
-- The queues and tasks that are paused now, by name.
SELECT 'queue', name, paused_at, paused_until FROM queues
WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now)
UNION ALL
SELECT 'task', name, paused_at, paused_until FROM tasks
WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > :now)
ORDER BY 1, 2 LIMIT :limit;

-- name: has_schedules
-- Whether there is any schedule.
SELECT EXISTS (SELECT 1 FROM schedules);

-- name: schedules
-- All of them, by name.
SELECT {schedule_seen} FROM schedules WHERE name > :after_name ORDER BY name LIMIT :limit;

-- name: upcoming
-- When those tick that are not paused, by name: no more than a look needs, for it comes every second.
SELECT :now, name, task, cron, every_ms, anchor, timezone, last_tick
FROM schedules WHERE name > :after_name AND paused_config = 0 AND paused_at IS NULL ORDER BY name LIMIT :limit;

-- name: declared_by
-- Who declares those of one source and family, without a lock.
SELECT declared_by FROM schedules WHERE source = :source AND family = :family_name;

-- name: schedule
-- One.
SELECT {schedule_seen} FROM schedules WHERE name = :name;

-- name: hold_schedule
-- One, held until the end of the transaction; none where somebody else holds it.
SELECT {schedule_seen} FROM schedules WHERE name = :name;

-- name: lock_schedule
-- The same, whoever holds it.
SELECT {schedule_seen} FROM schedules WHERE name = :name;

-- name: hold_schedules
-- Who writes is alone anyway.
SELECT 1;

-- name: schedules_of
-- Those that families of this name have declared, held.
SELECT {schedule_seen} FROM schedules WHERE source = :source AND family = :family_name ORDER BY name;

-- name: store_schedule
-- A schedule is new, or another one; where its timing is another, or its pause over, ticks count from now on.
INSERT INTO schedules ({schedule_columns}, counts_from)
VALUES (:name, :source, :family_name, :declared_by, :task, :cron, :every_ms, :anchor, :timezone, :args, :kwargs,
    :keys, :queue, :catch_up, :overlap, :paused, NULL, :now, NULL, :now, :now)
ON CONFLICT (name) DO UPDATE SET source = excluded.source, family = excluded.family,
    declared_by = excluded.declared_by, task = excluded.task, cron = excluded.cron,
    every_ms = excluded.every_ms, anchor = excluded.anchor, timezone = excluded.timezone,
    args = excluded.args, kwargs = excluded.kwargs, keys = excluded.keys, queue = excluded.queue,
    catch_up = excluded.catch_up, overlap = excluded.overlap, paused_config = excluded.paused_config,
    last_tick = CASE WHEN schedules.cron IS NOT excluded.cron OR schedules.every_ms IS NOT excluded.every_ms
        OR schedules.anchor IS NOT excluded.anchor OR schedules.timezone IS NOT excluded.timezone
        OR schedules.paused_config > excluded.paused_config THEN :now ELSE schedules.last_tick END,
    counts_from = CASE WHEN schedules.cron IS NOT excluded.cron OR schedules.every_ms IS NOT excluded.every_ms
        OR schedules.anchor IS NOT excluded.anchor OR schedules.timezone IS NOT excluded.timezone
        OR schedules.paused_config > excluded.paused_config THEN :now ELSE schedules.counts_from END;

-- name: redeclare_schedule
-- Other families declare it still.
UPDATE schedules SET declared_by = :declared_by WHERE name = :name;

-- name: remove_schedule
-- Nobody wants it any more; its ticks stay for a while.
DELETE FROM schedules WHERE name = :name;

-- name: pause_schedule
-- It ticks no more.
UPDATE schedules SET paused_at = :now WHERE name = :name AND paused_at IS NULL;

-- name: resume_schedule
-- It ticks again; what the pause hid is not missed.
UPDATE schedules SET paused_at = NULL, last_tick = :now, counts_from = :now WHERE name = :name AND paused_at IS NOT NULL;

-- name: move_schedule
-- Its ticks have been looked after up to a moment.
UPDATE schedules SET last_tick = :last_tick, last_job = coalesce(:last_job, last_job) WHERE name = :name;

-- name: looked_after
-- After a clock was set back: up to which moment before another ticks have been looked after. None where it begins to
-- tick, or goes on after a pause, only behind that.
SELECT max(counts_from, coalesce((SELECT max(tick) FROM ticks WHERE schedule = name AND tick <= :until), counts_from))
FROM schedules WHERE name = :schedule AND counts_from <= :until;

-- name: has_tick
-- Whether a tick has made a job.
SELECT 1 FROM ticks WHERE schedule = :schedule AND tick = :tick;

-- name: add_tick
-- It has made this one.
INSERT INTO ticks (schedule, tick, job) VALUES (:schedule, :tick, :job);

-- name: trim_ticks
-- Old ticks go, and of a schedule that has too many the oldest, schedule by schedule.
DELETE FROM ticks WHERE (schedule, tick) IN (
    WITH RECURSIVE found (schedule) AS (
        SELECT min(schedule) FROM ticks
        UNION ALL
        SELECT (SELECT min(ticks.schedule) FROM ticks WHERE ticks.schedule > found.schedule)
        FROM found WHERE found.schedule IS NOT NULL)
    SELECT ticks.schedule, ticks.tick FROM found JOIN ticks ON ticks.schedule = found.schedule
    WHERE ticks.tick < max(:now - :age, coalesce((SELECT kept.tick FROM ticks AS kept
        WHERE kept.schedule = found.schedule ORDER BY kept.tick DESC LIMIT 1 OFFSET :kept), 0))
    LIMIT :limit);

-- name: import_schedule
-- A schedule from another database, unless one of its name is here.
INSERT INTO schedules ({schedule_columns}, counts_from)
VALUES (:name, :source, :family_name, :declared_by, :task, :cron, :every_ms, :anchor, :timezone, :args, :kwargs,
    :keys, :queue, :catch_up, :overlap, :paused_config, :paused_at, :last_tick, :last_job, :created_at, :now)
ON CONFLICT (name) DO NOTHING;

-- name: known_task
-- What workers have told of one task; of one that was only paused nobody has told.
SELECT name, told, seen_at FROM tasks WHERE name = :name AND told <> 'null';

-- name: limits
-- What is said of each limit, by name.
SELECT name, concurrency, rate, per_ms, burst, source FROM limits ORDER BY name LIMIT :limit;

-- name: set_limit
-- Somebody says at run time what a limit is.
INSERT INTO limits (name, concurrency, rate, per_ms, burst, source)
VALUES (:name, :concurrency, :rate, :per_ms, :burst, :source)
ON CONFLICT (name) DO UPDATE SET concurrency = :concurrency, rate = :rate, per_ms = :per_ms, burst = :burst,
    source = :source;

-- name: declare_limit
-- The file of a family says so: the last start counts, but what was set at run time stays.
INSERT INTO limits (name, concurrency, rate, per_ms, burst, source)
VALUES (:name, :concurrency, :rate, :per_ms, :burst, :source)
ON CONFLICT (name) DO UPDATE SET concurrency = :concurrency, rate = :rate, per_ms = :per_ms, burst = :burst
WHERE limits.source <> 'set' AND (limits.concurrency, limits.rate, limits.per_ms, limits.burst)
    IS NOT (:concurrency, :rate, :per_ms, :burst);

-- name: declare_missing_limit
-- The same where nobody says what it is any more.
INSERT INTO limits (name, concurrency, rate, per_ms, burst, source)
VALUES (:name, :concurrency, :rate, :per_ms, :burst, :source)
ON CONFLICT (name) DO NOTHING;

-- name: remove_limit
-- A limit goes; the jobs that have it wait.
DELETE FROM limits WHERE name = :name;

-- name: make_keys
-- The row of each key (a JSON list): whoever counts its jobs holds it.
INSERT INTO limit_keys (key, name)
SELECT value, substr(value, 1, instr(value || ':', ':') - 1) FROM json_each(:keys) WHERE true ORDER BY value
ON CONFLICT (key) DO NOTHING;

-- name: keys_page
-- Some keys behind one, in their order.
SELECT key FROM limit_keys WHERE key > :after_key ORDER BY key LIMIT :limit;

-- name: keys_of_limit
-- The same of one limit. What is asked for is looked up as a range, and the limit's own key is within it.
SELECT key FROM limit_keys WHERE key > :after_key AND key >= :name AND key < :name || ';'
    AND (key = :name OR key > :name || ':')
ORDER BY key LIMIT :limit;

-- name: trim_keys
-- Of these keys (a JSON list) those go that no job needs, and whose rate is not used up.
DELETE FROM limit_keys WHERE key IN (SELECT value FROM json_each(:keys))
    AND next_at IS NULL AND coalesce(spent_ns, 0) <= :now * 1000000
    AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_candidates
        WHERE limit_key = limit_keys.key AND limit_key IS NOT NULL AND state = 'pending')
    AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_places
        WHERE limit_key = limit_keys.key AND limit_key IS NOT NULL AND state = 'running')
    AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_parked
        WHERE parked = 'limit:' || limit_keys.key AND parked IS NOT NULL AND state = 'blocked')
RETURNING key;

-- name: due_keys
-- Keys whose jobs wait for a moment that has come.
SELECT key FROM limit_keys WHERE next_at IS NOT NULL AND next_at <= :now ORDER BY next_at LIMIT :limit;

-- name: next_key_due
-- In how many milliseconds the next such moment comes; overdue is negative.
SELECT CAST(next_at - :now AS INTEGER) + (next_at - :now > CAST(next_at - :now AS INTEGER)) FROM limit_keys
WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1;

-- name: parked_keys
-- Some keys behind one that jobs are parked for, in their order, a step of the index each; and whether one may
-- begin. A moment far ahead was left by a clock that was set back.
WITH RECURSIVE found (parked) AS (
    SELECT min(parked) FROM jobs INDEXED BY jobs_parked
    WHERE state = 'blocked' AND parked > 'limit:' || :after_key AND parked < 'limit;'
    UNION ALL
    SELECT (SELECT min(jobs.parked) FROM jobs INDEXED BY jobs_parked
        WHERE state = 'blocked' AND jobs.parked > found.parked AND jobs.parked < 'limit;')
    FROM found WHERE found.parked IS NOT NULL LIMIT :limit),
keys (key) AS (SELECT substr(parked, 7) FROM found WHERE parked IS NOT NULL)
SELECT keys.key, limits.name IS NOT NULL AND (limits.concurrency IS NULL OR limits.concurrency > (
        SELECT count(*) FROM jobs INDEXED BY jobs_places
        WHERE limit_key = keys.key AND limit_key IS NOT NULL AND state = 'running'))
    AND (limits.rate IS NULL OR coalesce((SELECT spent_ns FROM limit_keys WHERE limit_keys.key = keys.key), 0)
        NOT BETWEEN :now * 1000000 + (limits.burst - 1) * max(1, limits.per_ms * 1000000 / limits.rate) + 1
            AND :now * 1000000 + (limits.burst + 1) * max(1, limits.per_ms * 1000000 / limits.rate))
FROM keys LEFT JOIN limits ON limits.name = substr(keys.key, 1, instr(keys.key || ':', ':') - 1);

-- name: claimed_limited
-- What was just claimed and has a limit, key by key in the order of the claim.
SELECT id, limit_key FROM jobs INDEXED BY jobs_running
WHERE limit_key IS NOT NULL AND state = 'running' AND owner = :owner AND claim = :claim
ORDER BY limit_key, priority DESC, turn, id;

-- name: limited_keys
-- The keys that an owner's running rows have.
SELECT DISTINCT limit_key FROM jobs INDEXED BY jobs_running
WHERE limit_key IS NOT NULL AND state = 'running' AND owner = :owner LIMIT :limit;

-- name: still_running
-- Which of some jobs (a JSON list) run.
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs)) AND state = 'running';

-- name: limit_counts
-- How the jobs of one limit stand: how many run, how many are parked, how many keys it has; each counted up to a limit.
SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_places WHERE state = 'running' AND limit_key = :name
        UNION ALL SELECT 1 FROM jobs INDEXED BY jobs_places
        WHERE state = 'running' AND limit_key > :name || ':' AND limit_key < :name || ';' LIMIT :most)),
    (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked' AND parked = 'limit:' || :name
        UNION ALL SELECT 1 FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked'
        AND parked > 'limit:' || :name || ':' AND parked < 'limit:' || :name || ';' LIMIT :most)),
    (SELECT count(*) FROM (SELECT 1 FROM limit_keys WHERE key = :name
        UNION ALL SELECT 1 FROM limit_keys WHERE key > :name || ':' AND key < :name || ';' LIMIT :most));

-- name: unknown_limits
-- Limits that jobs are parked for and of which nobody says what they are; a step of the index for each name.
WITH RECURSIVE found (name) AS (
    SELECT (SELECT substr(min(parked), 7) FROM jobs INDEXED BY jobs_parked
        WHERE state = 'blocked' AND parked > 'limit:' AND parked < 'limit;')
    UNION ALL
    SELECT (SELECT substr(min(parked), 7) FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked'
        AND parked > 'limit:' || substr(found.name, 1, instr(found.name || ':', ':') - 1)
            || CASE WHEN instr(found.name, ':') > 0 THEN ';' ELSE '' END
        AND parked < 'limit;')
    FROM found WHERE found.name IS NOT NULL LIMIT 20000)
SELECT DISTINCT substr(name, 1, instr(name || ':', ':') - 1) FROM found WHERE name IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM limits WHERE limits.name = substr(found.name, 1, instr(found.name || ':', ':') - 1))
LIMIT :limit;

-- name: wait_of
-- For what a blocked row is parked, and what its line goes by.
SELECT parked, queue, priority, turn, limit_key FROM jobs WHERE id = :job AND state = 'blocked' AND parked IS NOT NULL;

-- name: ahead
-- How many of its queue come before a parked row, counted up to a limit: three ranges of the index.
SELECT count(*) FROM (
    SELECT 1 FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked' AND parked = :parked AND queue = :queue AND priority > :priority
    UNION ALL SELECT 1 FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked' AND parked = :parked AND queue = :queue
        AND priority = :priority AND turn < :turn
    UNION ALL SELECT 1 FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked' AND parked = :parked AND queue = :queue
        AND priority = :priority AND turn = :turn AND id < :job LIMIT :most);

-- name: key_standing
-- What is said of the limit of a key, until when its rate is used up, when the next job may start, and how many run.
SELECT limits.name, limits.concurrency, limits.rate, limits.per_ms, limits.burst, limits.source,
    limit_keys.spent_ns, CAST(limit_keys.next_at AS INTEGER),
    (SELECT count(*) FROM jobs INDEXED BY jobs_places
        WHERE limit_key = :key AND limit_key IS NOT NULL AND state = 'running')
FROM limits LEFT JOIN limit_keys ON limit_keys.key = :key
WHERE limits.name = substr(:key, 1, instr(:key || ':', ':') - 1);

-- name: fair_queues
-- The queues that are fair.
SELECT name FROM queues WHERE fair = 1 ORDER BY name LIMIT :limit;

-- name: set_fair
-- A queue is fair from now on, or is no more; a row comes back where that is new.
INSERT INTO queues (name, fair) SELECT :queue, :fair WHERE :fair = 1 OR EXISTS (SELECT 1 FROM queues WHERE name = :queue)
ON CONFLICT (name) DO UPDATE SET fair = excluded.fair WHERE queues.fair <> excluded.fair
RETURNING name;

-- name: begin_turns
-- A queue whose rows may have turns.
INSERT INTO turns (queue, priority, turn, raised_at) VALUES (:queue, 0, 0, :now)
ON CONFLICT (queue, priority) DO UPDATE SET raised_at = excluded.raised_at;

-- name: give_turns
-- Of these rows (a JSON list) those of a share that are pending in a fair queue, and have no turn yet or one that is
-- over (below the mark), get turns: one step behind the last of their share, and not before the present, which is the
-- first pending turn that is not below the mark; one step behind each other. In another queue they have none.
UPDATE jobs SET turn = given.turn FROM (
    SELECT id, coalesce(first_value(base) OVER line + sum(step) OVER line - first_value(step) OVER line, 0) AS turn
    FROM (
        SELECT id, queue, priority, share, run_at, step, CASE WHEN row_number() OVER line = 1 THEN max(
            coalesce((SELECT min(first.turn) FROM jobs AS first WHERE first.state = 'pending'
                AND first.queue = these.queue AND first.priority = these.priority AND first.turn >= these.mark), mark),
            coalesce((SELECT last.turn FROM jobs AS last INDEXED BY jobs_shares WHERE last.share IS NOT NULL
                AND last.queue = these.queue AND last.priority = these.priority AND last.share = these.share
                AND last.turn > max(0, these.mark - these.step) AND +last.state = 'pending'
                ORDER BY last.turn DESC LIMIT 1) + step, 0)) END AS base
        FROM (
            SELECT jobs.id, jobs.queue, jobs.priority, jobs.share, jobs.run_at, jobs.turn,
                1048576 / coalesce(jobs.weight, 1) AS step,
                CASE WHEN jobs.queue IN (SELECT name FROM queues WHERE fair = 1)
                    THEN max(1, coalesce((SELECT turn FROM turns WHERE turns.queue = jobs.queue
                        AND turns.priority = jobs.priority), 1)) END AS mark
            FROM json_each(:jobs) AS told CROSS JOIN jobs ON jobs.id = told.value
            WHERE jobs.state = 'pending' AND jobs.share IS NOT NULL) AS these
        WHERE CASE WHEN mark IS NULL THEN turn > 0 ELSE turn < mark END
        WINDOW line AS (PARTITION BY queue, priority, share ORDER BY run_at, id)) AS based
    WINDOW line AS (PARTITION BY queue, priority, share ORDER BY run_at, id)) AS given
WHERE jobs.id = given.id;

-- name: take_turns
-- The turns of what was just claimed.
SELECT id, turn FROM jobs INDEXED BY jobs_running
WHERE state = 'running' AND owner = :owner AND claim = :claim AND turn > 0;

-- name: raise_turns
-- How far a priority of a fair queue has come: to the greatest turn of what was just claimed, once in a while.
INSERT INTO turns (queue, priority, turn, raised_at)
SELECT queue, priority, max(turn), :now FROM jobs INDEXED BY jobs_running
WHERE state = 'running' AND owner = :owner AND claim = :claim AND turn > 0 GROUP BY queue, priority
ON CONFLICT (queue, priority) DO UPDATE SET turn = excluded.turn, raised_at = excluded.raised_at
WHERE turns.turn < excluded.turn AND turns.raised_at NOT BETWEEN excluded.raised_at - :each AND excluded.raised_at;

-- name: turned_kinds
-- Each queue that is fair no more, and priority, in which pending rows still have turns; a step of the index each.
WITH RECURSIVE found (queue, priority) AS (
    SELECT queue, (SELECT max(priority) FROM jobs WHERE state = 'pending' AND jobs.queue = unfair.queue)
    FROM (SELECT DISTINCT queue FROM turns WHERE queue NOT IN (SELECT name FROM queues WHERE fair = 1)) AS unfair
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT queue, priority FROM found WHERE priority IS NOT NULL AND (SELECT max(turn) FROM jobs
    WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority) > 0
LIMIT :limit;

-- name: level_turns
-- A page of them has none any more.
UPDATE jobs SET turn = 0 WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_pending
    WHERE state = 'pending' AND queue = :queue AND priority = :priority AND turn > 0 ORDER BY turn LIMIT :limit);

-- name: unturned_kinds
-- Each fair queue and priority in which pending rows have no turn; a step of the index each.
WITH RECURSIVE found (queue, priority) AS (
    SELECT name, (SELECT max(priority) FROM jobs WHERE state = 'pending' AND jobs.queue = queues.name)
    FROM queues WHERE fair = 1
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT queue, priority FROM found WHERE priority IS NOT NULL AND (SELECT min(turn) FROM jobs
    WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority) = 0
LIMIT :limit;

-- name: unturned
-- A page of those rows, and whether each has a share.
SELECT id, share IS NOT NULL FROM jobs INDEXED BY jobs_pending
WHERE state = 'pending' AND queue = :queue AND priority = :priority AND turn = 0 AND id > :after
ORDER BY id LIMIT :limit;

-- name: hold_unturned
-- Of some of them (a JSON list) those that are so still.
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:jobs)) AND state || '' = 'pending' AND turn = 0;

-- name: trim_turns
-- Marks of queues that have been fair no more for long go.
DELETE FROM turns WHERE raised_at < :now - :age AND queue NOT IN (SELECT name FROM queues WHERE fair = 1);

-- name: shares_in_vain
-- Queues that are not fair, and have rows with a share; a step of the index each.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM jobs INDEXED BY jobs_shares WHERE share IS NOT NULL
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM jobs INDEXED BY jobs_shares
        WHERE share IS NOT NULL AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue FROM found WHERE queue IS NOT NULL AND queue NOT IN (SELECT name FROM queues WHERE fair = 1) LIMIT :limit;

-- name: shareless
-- Queues that are fair, and have pending rows of no share, which go before all that have one; a step of the index for
-- each priority.
WITH RECURSIVE found (queue, priority) AS (
    SELECT name, (SELECT max(priority) FROM jobs WHERE state = 'pending' AND jobs.queue = queues.name)
    FROM queues WHERE fair = 1
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT DISTINCT queue FROM found WHERE priority IS NOT NULL AND (SELECT turn = 0 AND share IS NULL FROM jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority
        ORDER BY turn, id LIMIT 1)
ORDER BY queue LIMIT :limit;

-- name: succeed_many
-- Runs of one claim that returned; the row of values is repeated, with what is missing as a value that the
-- column cannot have. With a + the planner leaves the index of running rows alone, and finds each row by its id.
UPDATE jobs SET state = 'succeeded', result = nullif(told.column2, ''), error = NULL,
    started_at = :now - told.column3 - told.column4, finished_at = :now - told.column3,
    company = NULL, cpu_ms = nullif(told.column5, -1), rss_bytes = nullif(told.column6, -1)
FROM (VALUES (:job, :result, :age, :duration, :cpu_ms, :rss_bytes)) AS told
WHERE jobs.id = told.column1 AND +jobs.state = 'running' AND +jobs.owner = :owner AND jobs.claim = :claim;

-- name: claim_fair
-- What `claim` does in fair queues, with the turn of each row: to look for these afterwards cost a tenth of the claim.
UPDATE jobs SET state = 'running', attempt = min(attempt, 999999999) + 1,
    claims = min(claims, 999999999) + 1, owner = :owner, claim = :claim, claimed_at = :now,
    started_at = :now, deferred = NULL, limit_place = NULL
WHERE id IN (SELECT id FROM jobs WHERE state = 'pending' AND queue = :queue {whom} {reach}
    ORDER BY priority DESC, turn, id LIMIT :limit)
RETURNING {claimed}, turn;

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

-- name: enqueue_many_on_terms
-- The same of a page in which there is one on terms.
INSERT INTO jobs ({new_columns}, {term_columns})
VALUES ({new_values}, {term_values})
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING;

-- name: claimed_of_tasks
-- What was just claimed and is of a paused task (a JSON list).
SELECT id, task, limit_key FROM jobs WHERE state = 'running' AND owner = :owner AND claim = :claim
    AND task IN (SELECT value FROM json_each(:paused));

-- name: key_room
-- What is said of the limit of a key, until when its rate is used up, how many of it run beside what was just
-- claimed, and how many of them this owner has.
SELECT limits.concurrency, limits.rate, limits.per_ms, limits.burst, limit_keys.spent_ns,
    (SELECT count(*) FROM jobs INDEXED BY jobs_places WHERE limit_key = :key AND limit_key IS NOT NULL
        AND state = 'running' AND NOT (limit_place IS NULL AND owner = :owner AND claim = :claim)),
    (SELECT count(*) FROM jobs INDEXED BY jobs_places WHERE limit_key = :key AND limit_key IS NOT NULL
        AND state = 'running' AND owner = :owner AND NOT (limit_place IS NULL AND claim = :claim))
FROM limits LEFT JOIN limit_keys ON limit_keys.key = :key
WHERE limits.name = substr(:key, 1, instr(:key || ':', ':') - 1);

-- name: places_taken
-- The places of a key that are taken.
SELECT limit_place FROM jobs INDEXED BY jobs_places
WHERE limit_key = :key AND limit_key IS NOT NULL AND state = 'running' AND limit_place IS NOT NULL;

-- name: give_place
-- A row that was just claimed has a place of its limit.
UPDATE jobs SET limit_place = :place WHERE id = :job;

-- name: spend
-- Jobs of a key start: until when that uses up its rate, and when the next one may.
INSERT INTO limit_keys (key, name, spent_ns, next_at)
VALUES (:key, substr(:key, 1, instr(:key || ':', ':') - 1), :spent, :next_at)
ON CONFLICT (key) DO UPDATE SET spent_ns = :spent, next_at = :next_at;

-- name: key_next
-- When the next job of a key may start; what a clock set back has left far ahead comes nearer.
UPDATE limit_keys SET next_at = :next_at, spent_ns = min(spent_ns, :spent)
WHERE key = :key AND (next_at IS NOT :next_at OR spent_ns > :spent);

-- name: park_claimed
-- Rows that were just claimed (a JSON list) must wait, as if they had not been.
UPDATE jobs SET state = 'blocked', parked = :parked, attempt = max(attempt - 1, 0), claims = max(claims - 1, 0),
    started_at = NULL
WHERE id IN (SELECT value FROM json_each(:jobs));

-- name: return_claimed
-- Rows that were just claimed (a JSON list) are somebody else's to claim, as if they had not been.
UPDATE jobs SET state = 'pending', attempt = max(attempt - 1, 0), claims = max(claims - 1, 0), started_at = NULL
WHERE id IN (SELECT value FROM json_each(:jobs));

-- name: parked_queues
-- The queues that have rows parked for a key, a step of the index each.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM jobs INDEXED BY jobs_parked WHERE state = 'blocked' AND parked = :parked
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM jobs INDEXED BY jobs_parked
        WHERE state = 'blocked' AND jobs.parked = :parked AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue FROM found WHERE queue IS NOT NULL;

-- name: admissible
-- The rows of one queue that are parked for a key and may be claimed: those that are among its first, together with
-- the candidates.
SELECT id FROM (
    SELECT id, priority, turn, waits FROM (SELECT id, priority, turn, true AS waits FROM jobs INDEXED BY jobs_parked
        WHERE state = 'blocked' AND parked = :parked AND queue = :queue ORDER BY priority DESC, turn, id LIMIT :first)
    UNION ALL
    SELECT id, priority, turn, waits FROM (SELECT id, priority, turn, false AS waits FROM jobs INDEXED BY jobs_candidates
        WHERE limit_key = :key AND limit_key IS NOT NULL AND state = 'pending' AND queue = :queue
        ORDER BY priority DESC, turn, id LIMIT :first)
    ORDER BY priority DESC, turn, id LIMIT :first)
WHERE waits;

-- name: admit_rows
-- They (a JSON list) may be claimed.
UPDATE jobs SET state = 'pending', parked = NULL WHERE id IN (SELECT value FROM json_each(:jobs));
