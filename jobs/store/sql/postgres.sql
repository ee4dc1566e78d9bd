-- Every statement of the queue, PostgreSQL's dialect: the names of the other dialect in the same order, and
-- what only this one needs at the end. Each statement that leaves `running` carries the whole fence: id,
-- state, owner, claim. Ends of runs come as ages and delays in milliseconds; {schema}.clock() is the only
-- clock. A claim finds and locks its rows first, then changes them by their place (ctid): no plan made
-- while the table was small can scan it when it is large. A row that changed meanwhile is left out that
-- way, so where none may be missed the second look is by id.

-- fragment: job
-- The whole row of a job, as JobRow names it.
{ordinary}, special, turn, limit_key, share, weight, parked, limit_place, debounce_ms,
{schema}.ms(deadline_at), keep::text, held_key, {schema}.ms(held_until)

-- fragment: ordinary
-- The same of a new job without terms, of which the rest is what JobRow says.
id, task, args::text, kwargs::text, queue, priority, state, {schema}.ms(run_at), attempt, attempts_max,
claims, losses, policy::text, timeout_ms, memory_bytes, unique_key, {schema}.ms(expires_at), deferred,
cancel_requested, owner, claim, {schema}.ms(created_at), {schema}.ms(claimed_at),
{schema}.ms(started_at), {schema}.ms(finished_at), result::text, error, progress::text, headers::text, parent,
company, cpu_ms, rss_bytes

-- fragment: job_columns
-- The same columns, to be written.
id, task, args, kwargs, queue, priority, state, run_at, attempt, attempts_max, claims, losses,
policy, timeout_ms, memory_bytes, unique_key, expires_at, deferred, cancel_requested, owner, claim,
created_at, claimed_at, started_at, finished_at, result, error, progress, headers, parent, company,
cpu_ms, rss_bytes, special, turn, limit_key, share, weight, parked, limit_place, debounce_ms, deadline_at, keep,
held_key, held_until

-- fragment: summary
-- A job in short, as SummaryRow names it: without what may be long.
id, task, queue, priority, state, {schema}.ms(run_at), attempt, attempts_max, deferred, cancel_requested,
{schema}.ms(claimed_at), {schema}.ms(started_at), {schema}.ms(finished_at), substr(error, 1, 300),
progress::text

-- fragment: attempt
-- The whole row of an attempt, as AttemptRow names it.
job, attempt, owner, claim, outcome, error_type, message, traceback, host, pid, exit_code, signal,
verdict, {schema}.ms(started_at), {schema}.ms(finished_at), stack, said, cpu_ms, rss_bytes

-- fragment: attempt_columns
-- The same columns, to be written.
job, attempt, owner, claim, outcome, error_type, message, traceback, host, pid, exit_code, signal,
verdict, started_at, finished_at, stack, said, cpu_ms, rss_bytes

-- fragment: claimed
-- What a worker needs of a claimed row, as Claimed names it.
-- Where no `place` follows the claim, a row with a limit refuses it.
id, task, args::text, kwargs::text, attempt, attempts_max, claims, policy::text, timeout_ms, memory_bytes,
{schema}.ms(expires_at) - {schema}.ms({schema}.clock()), queue, priority, headers::text, company,
CASE WHEN limit_key IS NULL THEN special WHEN %(places)s THEN special | 1 ELSE {schema}.must_place() END, {waited}, NULL

-- fragment: waited
-- For how long it has been due, of a large claim each eighth; NULL stands here where nobody counts that.
CASE WHEN %(limit)s < 64 OR (id & 7) = 0 THEN {schema}.ms({schema}.clock()) - {schema}.ms(run_at) END

-- fragment: term_columns
-- What only a job on terms has.
special, turn, limit_key, share, weight, debounce_ms, deadline_at, keep

-- fragment: turn_in_line
-- Where `base` is of the first of a line, and each has its `step`: how far behind it the others come.
first_value(base) OVER line + (sum(step) OVER line)::bigint - first_value(step) OVER line

-- fragment: out_of_line
-- Of a row `these`: whether it is of a share and has no turn yet, or one that is over (below the mark), or that means
-- nothing because its queue is not fair.
these.share IS NOT NULL AND these.turn < CASE WHEN these.queue IN (SELECT name FROM {schema}.queues WHERE fair = 1)
    THEN greatest(1, (SELECT turns.turn FROM {schema}.turns
        WHERE turns.queue = these.queue AND turns.priority = these.priority))
    ELSE 9223372036854775807 END

-- fragment: told
-- What a changed row tells of itself, as Changed names it.
state, task, queue, attempt, attempts_max, limit_key

-- fragment: holds
-- Of a row of `uniques` and that of its job: whether it holds the key. A debounced job does while it waits.
(uniques.until IS NULL OR uniques.until > {schema}.clock())
    AND (jobs.special & 128 = 0 OR jobs.state IN ('scheduled', 'pending', 'blocked'))

-- fragment: superseded
-- Whether a debounced job has lost its key, to a call that came after it had been claimed.
special & 128 <> 0 AND NOT EXISTS (SELECT 1 FROM {schema}.uniques WHERE uniques.job = jobs.id)

-- fragment: supersedes
-- What is said of it then.
'superseded: a later call has its unique key'

-- fragment: wanted
-- What a Filter says, but for ids; lists are JSON. The moment of a row is its end, its beginning, or when it is due.
(%(states)s::json IS NULL OR state IN (SELECT json_array_elements_text(%(states)s::json)))
    AND (%(queue)s::text IS NULL OR queue = %(queue)s)
    AND (%(tasks)s::json IS NULL OR task IN (SELECT json_array_elements_text(%(tasks)s::json)))
    AND (%(error)s::text IS NULL OR position(lower(%(error)s) IN lower(error)) > 0)
    AND (%(error_type)s::text IS NULL OR {error_type} = %(error_type)s)
    AND (%(text)s::text IS NULL OR position(lower(%(text)s) IN lower(task)) > 0
        OR position(lower(%(text)s) IN lower(error)) > 0 OR position(lower(%(text)s) IN lower(unique_key)) > 0
        OR position(lower(%(text)s) IN lower(held_key)) > 0
        OR position(lower(%(text_in_json)s) IN lower(args::text)) > 0
        OR position(lower(%(text_in_json)s) IN lower(kwargs::text)) > 0)
    AND (coalesce(%(since)s::bigint, %(since_ago)s::bigint) IS NULL OR {moment} >= coalesce(
        {schema}.moment(%(since)s::bigint), {schema}.clock() - %(since_ago)s::bigint * interval '1 ms'))
    AND (coalesce(%(until)s::bigint, %(until_ago)s::bigint) IS NULL OR {moment} < coalesce(
        {schema}.moment(%(until)s::bigint), {schema}.clock() - %(until_ago)s::bigint * interval '1 ms'))

-- fragment: error_type
-- What the error begins with. The index jobs_failures says the same words.
left(split_part(coalesce(error, ''), ': ', 1), 100)

-- fragment: of_task
-- And the task, as far as that index has room for it.
left(task, 400)

-- fragment: put_off
-- Whether a row that waits is no candidate for anything until its new time; one that waits for another job is none.
times.due > {schema}.clock() AND (state <> 'blocked' OR parked <> 'after')

-- fragment: timed
-- When time alone ends a waiting row, or removes one that says itself how long it is kept, its key included. The index
-- jobs_timed says the same words.
CASE WHEN finished_at IS NULL THEN least(expires_at, deadline_at)
    ELSE {schema}.kept_until(finished_at, keep, state, held_until) END

-- fragment: ends
-- Rows whose end may come so.
(expires_at IS NOT NULL OR deadline_at IS NOT NULL OR keep IS NOT NULL)
    AND num_nulls(finished_at) = 1 AND state <> 'running'

-- fragment: kept
-- Finished rows that say themselves how long they are kept, and are so no longer.
(expires_at IS NOT NULL OR deadline_at IS NOT NULL OR keep IS NOT NULL)
    AND num_nulls(finished_at) = 0 AND keep IS NOT NULL AND {timed} <= {schema}.clock()

-- fragment: by_age
-- Whether the age of a finished row is all that counts: it says nothing itself, no key of it is held longer, and
-- its queue is meant.
(keep IS NULL OR keep ->> state IS NULL)
    AND (queue IN (SELECT json_array_elements_text(%(queues)s::json))) = %(within)s
    AND (held_until IS NULL OR held_until <= {schema}.clock())

-- fragment: moment
-- What `since` and `until` are about.
coalesce(finished_at, CASE WHEN state = 'running' THEN claimed_at END, run_at)

-- fragment: along_all
-- Which rows are walked along in the order of their ids: all.
{schema}.jobs WHERE true

-- fragment: before_all
-- Those before an id.
id < %(before)s

-- fragment: after_all
-- Those behind an id.
id > %(after)s

-- fragment: down_all
-- From the newest on.
id DESC

-- fragment: up_all
-- From the oldest on.
id

-- fragment: along_listed
-- Or those of one of these states, by an index of their own. By comparisons of rows, because a planner that
-- takes them for spread evenly would walk along all ids.
{schema}.jobs WHERE state IN ('scheduled', 'blocked', 'failed', 'cancelled')

-- fragment: before_listed
-- Those before an id.
(state, id) < (%(state)s, %(before)s)

-- fragment: after_listed
-- Those behind an id.
(state, id) > (%(state)s, %(after)s)

-- fragment: down_listed
-- From the newest on.
state DESC, id DESC

-- fragment: up_listed
-- From the oldest on.
state, id

-- fragment: source_scheduled
-- Where rows are found by an index of their own, whatever else is asked of them.
{schema}.jobs WHERE state = 'scheduled'

-- fragment: source_pending
-- Those that may be claimed.
{schema}.jobs WHERE state = 'pending'

-- fragment: source_pending_of_queue
-- Of one queue.
{schema}.jobs WHERE state = 'pending' AND queue = %(queue)s

-- fragment: source_blocked
-- Those that wait for something else.
{schema}.jobs WHERE state = 'blocked'

-- fragment: source_running
-- Those that a worker has.
{schema}.jobs WHERE state = 'running'

-- fragment: source_succeeded
-- Those that ended well.
{schema}.jobs WHERE state = 'succeeded' AND finished_at IS NOT NULL

-- fragment: source_failed
-- Those that failed for good.
{schema}.jobs WHERE state = 'failed' AND state IN ('scheduled', 'blocked', 'failed', 'cancelled')

-- fragment: source_failed_of_task
-- Of one task.
{schema}.jobs WHERE state = 'failed' AND {of_task} = %(task)s

-- fragment: source_failed_of_type
-- And with one type of error.
{schema}.jobs WHERE state = 'failed' AND {of_task} = %(task)s AND {error_type} = %(error_type)s

-- fragment: source_cancelled
-- Those that were cancelled.
{schema}.jobs WHERE state = 'cancelled' AND state IN ('scheduled', 'blocked', 'failed', 'cancelled')

-- fragment: unsuspected
-- A job that has ended no process, as far as is known, and whose memory limit is not its process's.
AND company IS NULL AND memory_bytes = 0

-- fragment: reach
-- And before the 10,001st suspect of its queue: a claim that passes over them may not read a million.
AND priority > coalesce((SELECT priority FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s
    AND (company IS NOT NULL OR memory_bytes > 0) ORDER BY priority DESC, turn, id LIMIT 1 OFFSET 10000), -32769)

-- fragment: suspects
-- And one that may, or is. Its index says the same words.
AND (company IS NOT NULL OR memory_bytes > 0)

-- fragment: schedule_columns
-- The columns of a schedule, in the order of ScheduleRow.
name, source, family, declared_by, task, cron, every_ms, anchor, timezone, args, kwargs, keys, queue,
catch_up, overlap, paused_config, paused_at, last_tick, last_job, created_at

-- fragment: schedule_seen
-- The same as values, with when it is seen, and its newest tick.
{schema}.ms({schema}.clock()), {schema}.ms((SELECT max(tick) FROM {schema}.ticks WHERE schedule = name)),
name, source, family, declared_by, task, cron, every_ms, {schema}.ms(anchor), timezone, args::text,
kwargs::text, keys, queue, catch_up, overlap, paused_config, {schema}.ms(paused_at), {schema}.ms(last_tick),
last_job, {schema}.ms(created_at)

-- name: enqueue
-- A new job, pending or scheduled; no row comes back where its unique key is held by an unfinished one.
INSERT INTO {schema}.jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, created_at)
SELECT %(task)s, %(args)s::json, %(kwargs)s::json, %(queue)s, %(priority)s,
    CASE WHEN due > {schema}.clock() THEN 'scheduled' ELSE 'pending' END,
    due, %(attempts_max)s, %(policy)s::json, %(timeout_ms)s, %(memory_bytes)s, %(unique_key)s,
    due + %(expires_in_ms)s::bigint * interval '1 ms', %(headers)s::json, %(parent)s::bigint, {schema}.clock()
FROM (SELECT coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock())
    + %(run_in_ms)s::bigint * interval '1 ms' AS due) AS times
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING {ordinary};

-- name: enqueue_on_terms
-- The same of a job with a limit, a share, a deadline, or whatever else only few have.
INSERT INTO {schema}.jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, {term_columns}, created_at)
SELECT %(task)s, %(args)s::json, %(kwargs)s::json, %(queue)s, %(priority)s,
    CASE WHEN due > {schema}.clock() THEN 'scheduled' ELSE 'pending' END,
    due, %(attempts_max)s, %(policy)s::json, %(timeout_ms)s, %(memory_bytes)s, %(unique_key)s,
    coalesce({schema}.moment(%(expires_at_ms)s::bigint), due + %(expires_in_ms)s::bigint * interval '1 ms'),
    %(headers)s::json, %(parent)s::bigint, %(special)s, CASE WHEN due > {schema}.clock() OR %(share)s::text IS NULL THEN 0
        ELSE {schema}.fair_turn(%(queue)s, %(priority)s::integer, %(share)s, %(weight)s::integer) END, %(limit_key)s, %(share)s,
    %(weight)s::integer, %(debounce_ms)s::bigint,
    coalesce({schema}.moment(%(deadline_at_ms)s::bigint), due + %(deadline_in_ms)s::bigint * interval '1 ms'),
    %(keep)s::json, {schema}.clock()
FROM (SELECT coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock())
    + %(run_in_ms)s::bigint * interval '1 ms' AS due) AS times
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING {job};

-- name: holder
-- The job that holds a unique key, and its limit: while it is unfinished, or by a row of `uniques`.
SELECT id, limit_key FROM {schema}.jobs WHERE unique_key = %(unique_key)s
    AND state IN ('scheduled', 'pending', 'blocked', 'running')
UNION ALL
SELECT jobs.id, jobs.limit_key FROM {schema}.uniques JOIN {schema}.jobs ON jobs.id = uniques.job
WHERE uniques.key = %(unique_key)s AND {holds};

-- name: held_keys
-- Those of some unique keys (a JSON list) that have a row of `uniques`, and whether that holds them.
SELECT uniques.key, jobs.id IS NOT NULL AND {holds}
FROM {schema}.uniques LEFT JOIN {schema}.jobs ON jobs.id = uniques.job
WHERE uniques.key = ANY (ARRAY(SELECT json_array_elements_text(%(keys)s::json)));

-- name: free_keys
-- Rows that hold nothing go (a JSON list of their keys): an unfinished job has the key from now on. Else a debounced
-- one that runs would find it its own when it comes back.
DELETE FROM {schema}.uniques WHERE key = ANY (ARRAY(SELECT json_array_elements_text(%(keys)s::json)));

-- name: give_way
-- A new job whose key was found held goes, before anybody has seen it.
DELETE FROM {schema}.jobs WHERE id = %(job)s;

-- name: take_key
-- A key is held by a row of its own from now on; no row comes back where another job holds it so. Whoever
-- comes here has, by an earlier statement, the job in `jobs` under this key: no other enqueuer of it is on its
-- way, and what those before it have committed is seen.
INSERT INTO {schema}.uniques (key, job, until)
SELECT %(unique_key)s, id, created_at + %(held_ms)s::bigint * interval '1 ms' FROM {schema}.jobs WHERE id = %(job)s
ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = excluded.until
WHERE NOT EXISTS (SELECT 1 FROM {schema}.jobs
    WHERE jobs.id = uniques.job AND jobs.id <> excluded.job AND {holds})
RETURNING job;

-- name: hold_apart
-- And not by the job's state any more. A new debounced job may have waited for others who wanted the key: its
-- times count from here, or it would be due at once, as would be those of all others who have waited with it.
UPDATE {schema}.jobs SET unique_key = NULL, held_key = %(unique_key)s,
    held_until = created_at + %(held_ms)s::bigint * interval '1 ms',
    created_at = CASE WHEN %(delays)s THEN now ELSE created_at END,
    run_at = CASE WHEN %(delays)s THEN run_at + (now - created_at) ELSE run_at END,
    expires_at = CASE WHEN %(expires)s THEN expires_at + (now - created_at) ELSE expires_at END,
    deadline_at = CASE WHEN %(ends)s THEN deadline_at + (now - created_at) ELSE deadline_at END
FROM (SELECT {schema}.clock() AS now) AS times
WHERE id = %(job)s
RETURNING {job};

-- name: hold_again
-- A debounced job that is to run once more comes under its key, until that has a row.
UPDATE {schema}.jobs SET unique_key = held_key WHERE id = %(job)s AND special & 128 <> 0 AND held_key IS NOT NULL
RETURNING held_key;

-- name: hold_place
-- From here on an attempt to replace a job is undone, with the locks that it took: an UPDATE that has waited for
-- a claim keeps the lock of the row that runs by then, though it changes nothing.
SAVEPOINT replacing;

-- name: replace
-- A waiting job gets what it was called with anew, and whether it is due then. How its key is held stays. One
-- that has run begins a new window of a debounce; any other runs by the end of its own, and of this call's.
UPDATE {schema}.jobs SET task = %(task)s, args = %(args)s::json, kwargs = %(kwargs)s::json, queue = %(queue)s,
    priority = %(priority)s,
    state = CASE WHEN state = 'blocked' AND coalesce(parked, 'after') = 'after' THEN 'blocked' ELSE 'scheduled' END,
    parked = CASE WHEN parked = 'after' THEN parked END,
    run_at = CASE WHEN %(debounce_ms)s::bigint IS NULL
        THEN coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock()) + %(run_in_ms)s::bigint * interval '1 ms'
        ELSE least({schema}.clock() + least(%(run_in_ms)s::bigint, %(debounce_ms)s::bigint) * interval '1 ms',
            CASE WHEN attempt > 0 OR deferred IS NOT NULL
                THEN {schema}.clock() + %(debounce_ms)s::bigint * interval '1 ms'
                ELSE created_at + coalesce(debounce_ms, %(debounce_ms)s::bigint) * interval '1 ms' END) END,
    debounce_ms = CASE WHEN special & 128 = 0 OR %(debounce_ms)s::bigint IS NULL THEN debounce_ms
        WHEN attempt > 0 OR deferred IS NOT NULL
            THEN greatest({schema}.ms({schema}.clock()) - {schema}.ms(created_at), 0) + %(debounce_ms)s::bigint
        ELSE least(debounce_ms,
            greatest({schema}.ms({schema}.clock()) - {schema}.ms(created_at), 0) + %(debounce_ms)s::bigint) END,
    attempts_max = %(attempts_max)s, policy = %(policy)s::json, timeout_ms = %(timeout_ms)s,
    memory_bytes = %(memory_bytes)s,
    expires_at = coalesce({schema}.moment(%(expires_at_ms)s::bigint),
        coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock())
            + (%(run_in_ms)s::bigint + %(expires_in_ms)s::bigint) * interval '1 ms'),
    headers = %(headers)s::json, parent = %(parent)s::bigint, turn = 0, limit_key = %(limit_key)s, share = %(share)s,
    weight = %(weight)s::integer,
    deadline_at = coalesce({schema}.moment(%(deadline_at_ms)s::bigint),
        coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock())
            + (%(run_in_ms)s::bigint + %(deadline_in_ms)s::bigint) * interval '1 ms'),
    keep = %(keep)s::json,
    special = (%(special)s::integer & 17) | (special & 136)
        | (CASE WHEN %(keep)s::json IS NOT NULL OR held_until IS NOT NULL THEN 64 ELSE 0 END),
    attempt = 0, losses = 0, deferred = NULL, error = NULL, progress = NULL, owner = NULL, claim = NULL,
    claimed_at = NULL, started_at = NULL, company = NULL, cpu_ms = NULL, rss_bytes = NULL
WHERE id = %(holder)s AND state IN ('scheduled', 'pending', 'blocked')
RETURNING {job}, state = 'scheduled' AND run_at <= {schema}.clock();

-- name: let_go
-- It was not replaced: nothing of the attempt is left.
ROLLBACK TO replacing;

-- name: replaced
-- It was.
RELEASE replacing;

-- name: supersede
-- Debounced jobs of a claim (a JSON list) that had lost their key do not begin.
UPDATE {schema}.jobs SET state = 'cancelled', attempt = greatest(attempt - 1, 0), started_at = NULL,
    finished_at = {schema}.clock(), error = {supersedes}
WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint)) AND state || '' = 'running'
    AND owner = %(owner)s AND claim = %(claim)s AND {superseded}
RETURNING id, {told};

-- name: held_by
-- Which of some jobs (a JSON list) hold a key by a row of `uniques`.
SELECT uniques.job FROM {schema}.uniques
WHERE uniques.job = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint))
    AND (SELECT count(*) FROM {schema}.jobs WHERE jobs.id = uniques.job AND {holds}) > 0;

-- name: import_key
-- An imported job holds its key again; no row comes back where another one does.
INSERT INTO {schema}.uniques (key, job, until) SELECT held_key, id, held_until FROM {schema}.jobs WHERE id = %(job)s
ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = excluded.until
WHERE NOT EXISTS (SELECT 1 FROM {schema}.jobs
    WHERE jobs.id = uniques.job AND jobs.id <> excluded.job AND {holds})
RETURNING job;

-- name: uniques_page
-- The rows of `uniques` behind a key, and whether each is of no use any more: its job is gone, or its time over.
-- Of an EXISTS the planner makes a hash of all jobs.
SELECT page.key, page.job, (SELECT count(*) FROM {schema}.jobs WHERE jobs.id = page.job) = 0
    OR coalesce(page.until <= {schema}.clock(), false)
FROM (SELECT key, job, until FROM {schema}.uniques WHERE key > %(after_key)s ORDER BY key LIMIT %(limit)s) AS page
ORDER BY page.key;

-- name: trim_uniques
-- Some of them go (a JSON list of pairs), each as it was seen; what an enqueuer holds is left to it.
DELETE FROM {schema}.uniques WHERE key = ANY (ARRAY(SELECT uniques.key FROM {schema}.uniques
        JOIN json_array_elements(%(rows)s::json) AS seen
            ON uniques.key = seen.value ->> 0 AND uniques.job = (seen.value ->> 1)::bigint
    FOR UPDATE OF uniques SKIP LOCKED))
RETURNING key;

-- name: look
-- What a turn has to know before it claims: the number of the settings, whether a row is due, and whether a key is
-- whose rate lets the next job begin. To compile this and no promotion is a tenth of a turn's time on SQLite.
SELECT (SELECT value FROM {schema}.meta WHERE key = 'settings'),
    EXISTS (SELECT 1 FROM {schema}.jobs WHERE state = 'scheduled' AND run_at <= {schema}.clock()),
    EXISTS (SELECT 1 FROM {schema}.limit_keys WHERE next_at IS NOT NULL AND next_at <= {schema}.clock());

-- name: promote
-- Scheduled rows that are due become pending, a bounded number at a time. Where no queue is fair, so that what has a
-- turn from when one was has none any more.
UPDATE {schema}.jobs SET state = 'pending', turn = 0 WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.jobs WHERE state = 'scheduled' AND run_at <= {schema}.clock()
    ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING id, false;

-- name: claim
-- The first pending rows of one queue become running under this owner and claim. How far an earlier run said
-- that it had come stays, for the task that goes on from there. What the queues before
-- it have filled of this claim is taken off the limit, so that all queues are asked in one round trip.
-- An owner that entered and is gone was settled: what it had sent before its death claims nothing. Nor does
-- one that was woken and has not locked its row of `owners`, and so has written nothing yet. Nor one that knows
-- other settings than there are: what it takes for open may be paused.
UPDATE {schema}.jobs SET state = 'running', attempt = least(attempt, 999999999) + 1,
    claims = least(claims, 999999999) + 1,
    owner = %(owner)s, claim = %(claim)s, claimed_at = {schema}.clock(), started_at = {schema}.clock(),
    deferred = NULL, limit_place = NULL
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s {whom} {reach}
    ORDER BY priority DESC, turn, id
    LIMIT CASE
        WHEN (SELECT value FROM {schema}.meta WHERE key = 'settings') IS DISTINCT FROM %(settings)s::text THEN 0
        WHEN %(entered)s AND NOT EXISTS (SELECT 1 FROM {schema}.owners WHERE owner = %(owner)s) THEN 0
        WHEN %(woken)s AND pg_current_xact_id_if_assigned() IS NULL THEN 0
        WHEN %(first)s THEN %(limit)s
        ELSE %(limit)s - (SELECT count(*) FROM {schema}.jobs
            WHERE state = 'running' AND owner = %(owner)s AND claim = %(claim)s) END
    FOR UPDATE SKIP LOCKED))
RETURNING {claimed};

-- name: claimable
-- What a claim would take, but for rows that are known to be refused (a JSON list).
SELECT id FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s {whom} {reach}
    AND id NOT IN (SELECT json_array_elements_text(%(left)s::json)::bigint)
ORDER BY priority DESC, turn, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: claim_row
-- One of them becomes running, by itself.
UPDATE {schema}.jobs SET state = 'running', attempt = least(attempt, 999999999) + 1,
    claims = least(claims, 999999999) + 1, owner = %(owner)s, claim = %(claim)s,
    claimed_at = {schema}.clock(), started_at = {schema}.clock(), deferred = NULL, limit_place = NULL
WHERE id = %(job)s AND state = 'pending'
RETURNING {claimed};

-- name: due
-- What a promotion would take, but for rows that are known to be refused (a JSON list).
SELECT id FROM {schema}.jobs WHERE state = 'scheduled' AND run_at <= {schema}.clock()
    AND id NOT IN (SELECT json_array_elements_text(%(left)s::json)::bigint)
ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: promote_row
-- One of them becomes pending, by itself.
UPDATE {schema}.jobs SET state = 'pending' WHERE id = %(job)s AND state = 'scheduled' RETURNING id, share IS NOT NULL;

-- name: promote_due
-- One row becomes pending, if it is due.
UPDATE {schema}.jobs SET state = 'pending' WHERE id = %(job)s AND state = 'scheduled' AND run_at <= {schema}.clock() RETURNING id;

-- name: owned_rows
-- What an owner holds, but for rows that are known to be refused (a JSON list).
SELECT id, claim FROM {schema}.jobs WHERE state = 'running' AND owner = %(owner)s
    AND id NOT IN (SELECT json_array_elements_text(%(left)s::json)::bigint) LIMIT %(limit)s;

-- name: fail_row
-- A row that the database refuses to move otherwise.
UPDATE {schema}.jobs SET state = 'failed', error = %(error)s, finished_at = {schema}.clock()
WHERE id = %(job)s AND state IN ('scheduled', 'pending', 'running')
RETURNING {told};

-- name: has_pending
-- Whether one queue has a row to claim; in its index's order, because a mere EXISTS scans the table where
-- statistics promise many.
SELECT count(*) > 0 FROM (SELECT 1 FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s {whom} {reach}
    ORDER BY priority DESC, turn, id LIMIT 1) AS found;

-- name: next_due
-- In how many milliseconds the next scheduled row is due, or a rate lets a job begin (overdue is negative), and the
-- number of the settings.
SELECT least((SELECT {schema}.ms(run_at) - {schema}.ms({schema}.clock()) FROM {schema}.jobs
        WHERE state = 'scheduled' ORDER BY run_at LIMIT 1),
    (SELECT ceil(date_part('epoch', next_at - {schema}.clock()) * 1000)::bigint FROM {schema}.limit_keys
        WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1)),
    (SELECT value FROM {schema}.meta WHERE key = 'settings');

-- name: unknown_tasks
-- Tasks that no worker knew, how many jobs wait for them, and what one of these was told.
-- The order within is there for the index.
SELECT task, count(*), max(error) FROM (SELECT task, error FROM {schema}.jobs
    WHERE state = 'scheduled' AND deferred = 'unknown' ORDER BY queue OFFSET 0) AS found
GROUP BY task ORDER BY task LIMIT %(limit)s;

-- name: succeed
-- A run that returned.
UPDATE {schema}.jobs SET state = 'succeeded', result = %(result)s::json, error = NULL,
    started_at = {schema}.clock() - (%(age)s + %(duration)s) * interval '1 ms',
    finished_at = {schema}.clock() - %(age)s * interval '1 ms',
    company = NULL, cpu_ms = %(cpu_ms)s::bigint, rss_bytes = %(rss_bytes)s::bigint
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s;

-- name: succeed_and_forget
-- A run that returned, where succeeded rows are not kept; but for one that is kept all the same.
DELETE FROM {schema}.jobs
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s AND special & 64 = 0;

-- name: retry
-- A run that failed and may run again; without a duration it began when it was claimed. A job of a share comes
-- to be pending by a promotion, which sees to its turn.
UPDATE {schema}.jobs SET
    state = CASE WHEN cancel_requested = 1 OR {superseded} THEN 'cancelled'
        WHEN %(delay)s <= %(age)s AND share IS NULL THEN 'pending' ELSE 'scheduled' END,
    run_at = {schema}.clock() + (%(delay)s - %(age)s) * interval '1 ms', deferred = 'retry',
    error = CASE WHEN {superseded} THEN {supersedes} ELSE %(error)s END,
    started_at = coalesce(
        {schema}.clock() - (%(age)s + %(duration)s::bigint) * interval '1 ms', claimed_at),
    finished_at = CASE WHEN cancel_requested = 1 OR {superseded}
        THEN {schema}.clock() - %(age)s * interval '1 ms' END,
    company = %(company)s::smallint, cpu_ms = %(cpu_ms)s::bigint, rss_bytes = %(rss_bytes)s::bigint
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s
RETURNING {told};

-- name: snooze
-- A run put off by its task, or by a worker that does not know the task; the attempt is given back.
UPDATE {schema}.jobs SET
    state = CASE WHEN cancel_requested = 1 OR {superseded} THEN 'cancelled'
        WHEN %(delay)s <= %(age)s AND share IS NULL THEN 'pending' ELSE 'scheduled' END,
    run_at = {schema}.clock() + (%(delay)s - %(age)s) * interval '1 ms', deferred = %(deferred)s,
    attempt = greatest(attempt - 1, 0), error = CASE WHEN {superseded} THEN {supersedes} ELSE coalesce(%(error)s, error) END, started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 OR {superseded}
        THEN {schema}.clock() - %(age)s * interval '1 ms' END,
    company = %(company)s::smallint, cpu_ms = %(cpu_ms)s::bigint, rss_bytes = %(rss_bytes)s::bigint
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s
RETURNING {told};

-- name: fail
-- A run that failed for good.
UPDATE {schema}.jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'failed' END,
    error = %(error)s,
    started_at = coalesce(
        {schema}.clock() - (%(age)s + %(duration)s::bigint) * interval '1 ms', claimed_at),
    finished_at = {schema}.clock() - %(age)s * interval '1 ms',
    company = %(company)s::smallint, cpu_ms = %(cpu_ms)s::bigint, rss_bytes = %(rss_bytes)s::bigint
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s
RETURNING {told};

-- name: release
-- A run handed back as if it had never begun.
UPDATE {schema}.jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    attempt = greatest(attempt - 1, 0), run_at = least(run_at, {schema}.clock()),
    started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 THEN {schema}.clock() END,
    company = coalesce(%(company)s::smallint, company)
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s
RETURNING {told};

-- name: release_rest
-- What an owner owns (of some claims, or of all; up to one) and does not hold goes back untouched; both
-- are JSON lists.
UPDATE {schema}.jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    attempt = greatest(attempt - 1, 0), started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 THEN {schema}.clock() END
WHERE id = ANY (ARRAY(SELECT id FROM {schema}.jobs WHERE state = 'running' AND owner = %(owner)s
        AND (%(claims)s::json IS NULL
            OR claim IN (SELECT json_array_elements_text(%(claims)s::json)::bigint))
        AND (%(up_to)s::bigint IS NULL OR claim <= %(up_to)s::bigint)
        AND id NOT IN (SELECT json_array_elements_text(%(held)s::json)::bigint)
    ORDER BY id FOR UPDATE)) AND state = 'running' AND owner = %(owner)s
RETURNING id, {told};

-- name: release_many
-- Runs handed back as if they had never begun; a JSON list of [job, claim, company].
UPDATE {schema}.jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    attempt = greatest(attempt - 1, 0), run_at = least(run_at, {schema}.clock()),
    started_at = NULL,
    finished_at = CASE WHEN cancel_requested = 1 THEN {schema}.clock() END,
    company = least(company, (told.value ->> 2)::smallint)
FROM json_array_elements(%(runs)s::json) AS told
WHERE id = ANY (ARRAY(SELECT jobs.id FROM {schema}.jobs
        JOIN json_array_elements(%(runs)s::json) AS told
            ON jobs.id = (told.value ->> 0)::bigint AND jobs.claim = (told.value ->> 1)::bigint
    WHERE jobs.state = 'running' AND jobs.owner = %(owner)s
    ORDER BY jobs.id FOR UPDATE OF jobs)) AND state = 'running' AND owner = %(owner)s
    AND id = (told.value ->> 0)::bigint AND claim = (told.value ->> 1)::bigint
RETURNING id, claim, {told};

-- name: vanish
-- Rows whose worker vanished without evidence go back uncharged, and are failed the fourth time. The page
-- is chosen first and then put in order: asked for both, a planner walks the whole primary key.
UPDATE {schema}.jobs SET
    state = CASE WHEN cancel_requested = 1 THEN 'cancelled'
        WHEN losses >= %(losses_max)s THEN 'failed' ELSE 'pending' END,
    losses = least(losses, 999999999) + 1, attempt = greatest(attempt - 1, 0),
    started_at = NULL,
    error = CASE WHEN losses >= %(losses_max)s THEN %(error)s ELSE error END,
    finished_at = CASE WHEN cancel_requested = 1 OR losses >= %(losses_max)s
        THEN {schema}.clock() END
WHERE id = ANY (ARRAY(SELECT id FROM {schema}.jobs WHERE id = ANY (ARRAY(
            SELECT id FROM {schema}.jobs WHERE state = 'running' AND owner = %(owner)s
                AND (%(job)s::bigint IS NULL OR id = %(job)s) LIMIT %(limit)s))
        AND state = 'running' AND owner = %(owner)s
    ORDER BY id FOR UPDATE)) AND state = 'running' AND owner = %(owner)s
RETURNING id, coalesce(claim, 0), {told};

-- name: cancel_run
-- A run that ended because it was asked to.
UPDATE {schema}.jobs SET state = 'cancelled', error = %(error)s,
    started_at = coalesce(
        {schema}.clock() - (%(age)s + %(duration)s::bigint) * interval '1 ms', claimed_at),
    finished_at = {schema}.clock() - %(age)s * interval '1 ms',
    company = %(company)s::smallint, cpu_ms = %(cpu_ms)s::bigint, rss_bytes = %(rss_bytes)s::bigint
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s
RETURNING {told};

-- name: block
-- Pending rows that must wait for something else.
UPDATE {schema}.jobs SET state = 'blocked', parked = NULL WHERE id = %(job)s AND state = 'pending'
RETURNING {told};

-- name: unblock
-- Rows that need wait no longer.
UPDATE {schema}.jobs
SET state = CASE WHEN run_at > {schema}.clock() THEN 'scheduled' ELSE 'pending' END, parked = NULL
WHERE id = %(job)s AND state = 'blocked'
RETURNING {told};

-- name: cancel
-- An unfinished row that does not run is cancelled at once.
UPDATE {schema}.jobs SET state = 'cancelled', cancel_requested = 1, finished_at = {schema}.clock(), parked = NULL, turn = 0
WHERE id = %(job)s AND state IN ('scheduled', 'pending', 'blocked')
RETURNING {told};

-- name: request_cancel
-- A running row is asked to end; its family carries the word.
UPDATE {schema}.jobs SET cancel_requested = 1 WHERE id = %(job)s AND state = 'running' RETURNING state;

-- name: requeue
-- A finished row starts over; its history stays, and how far it had come where it did not succeed.
UPDATE {schema}.jobs SET state = 'pending', attempt = 0, losses = 0, run_at = {schema}.clock(),
    deferred = NULL, cancel_requested = 0, expires_at = NULL, owner = NULL, claim = NULL,
    claimed_at = NULL, started_at = NULL, finished_at = NULL, result = NULL, error = NULL,
    progress = CASE WHEN state = 'succeeded' THEN NULL ELSE progress END, cpu_ms = NULL, rss_bytes = NULL,
    special = special & ~16, deadline_at = NULL, limit_place = NULL, parked = NULL, turn = 0
WHERE id = %(job)s AND state IN ('failed', 'cancelled', 'succeeded')
RETURNING share IS NOT NULL, unique_key, special & 128 <> 0 AND held_key IS NOT NULL, {told};

-- name: reschedule
-- A row that waits gets another time. One that is due by it becomes pending by a promotion, as any other does,
-- and one that is put off is given its turn by that.
UPDATE {schema}.jobs SET deferred = NULL,
    run_at = CASE WHEN state = 'pending' AND times.due <= {schema}.clock() THEN least(run_at, times.due) ELSE times.due END,
    state = CASE WHEN {put_off} THEN 'scheduled' ELSE state END,
    parked = CASE WHEN {put_off} THEN NULL ELSE parked END,
    turn = CASE WHEN {put_off} THEN 0 ELSE turn END
FROM (SELECT coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock())
    + %(run_in_ms)s::bigint * interval '1 ms' AS due) AS times
WHERE id = %(job)s AND state IN ('scheduled', 'pending', 'blocked')
    AND (expires_at IS NULL OR expires_at > greatest(times.due, {schema}.clock()))
    AND (deadline_at IS NULL OR deadline_at > greatest(times.due, {schema}.clock()))
RETURNING {told};

-- name: prune_look
-- A page of finished rows that are older than a time, the oldest first, and whether each of them goes.
SELECT id, finished_at::text AS at, {by_age} FROM {schema}.jobs WHERE state = %(state)s AND finished_at IS NOT NULL
    AND finished_at <= {schema}.clock() - %(age)s * interval '1 ms'
    AND (finished_at, id) > (coalesce(%(at)s::timestamptz, '-infinity'), %(after)s)
ORDER BY finished_at, id LIMIT %(limit)s;

-- name: prune
-- Some of them (a JSON list) go, if that is still so and nobody else has them. Found by their ids: statistics of a
-- time when nothing was finished would have all that is finished read for each page.
SELECT {schema}.remove(ARRAY(SELECT id FROM {schema}.jobs
    WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint)) AND state || '' = %(state)s
        AND coalesce(finished_at, 'infinity') <= {schema}.clock() - %(age)s * interval '1 ms' AND {by_age}
    ORDER BY id FOR UPDATE SKIP LOCKED), true);

-- name: prunable
-- How many finished rows are older than their time.
SELECT count(*) FROM {schema}.jobs WHERE state = %(state)s AND finished_at IS NOT NULL
    AND finished_at <= {schema}.clock() - %(age)s * interval '1 ms' AND {by_age};

-- name: prune_kept
-- Rows that say themselves how long they are kept, and are so no longer.
SELECT {schema}.remove(ARRAY(SELECT id FROM {schema}.jobs
    WHERE {kept} ORDER BY {timed} LIMIT %(limit)s FOR UPDATE SKIP LOCKED), true);

-- name: prunable_kept
-- How many these are, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE {kept} LIMIT %(limit)s) AS found;

-- name: add_attempt
-- The history of one unsuccessful run; a second telling of the same run changes nothing.
INSERT INTO {schema}.attempts ({attempt_columns})
VALUES (%(job)s, %(attempt)s, %(owner)s, %(claim)s, %(outcome)s, %(error_type)s, %(message)s,
    %(traceback)s, %(host)s, %(pid)s, %(exit_code)s, %(signal)s, %(verdict)s,
    coalesce({schema}.clock() - (%(age)s + %(duration)s::bigint) * interval '1 ms',
        (SELECT claimed_at FROM {schema}.jobs WHERE id = %(job)s)),
    {schema}.clock() - %(age)s * interval '1 ms', %(stack)s, %(said)s, %(cpu_ms)s::bigint,
    %(rss_bytes)s::bigint)
ON CONFLICT (job, owner, claim) DO NOTHING;

-- name: keep_words
-- What a run said that has succeeded, in the history; only where the row stands as this run left it.
INSERT INTO {schema}.attempts (job, attempt, owner, claim, outcome, host, pid, started_at, finished_at, said,
    cpu_ms, rss_bytes)
SELECT id, attempt, owner, claim, 'succeeded', %(host)s, %(pid)s, started_at, finished_at, %(said)s,
    cpu_ms, rss_bytes
FROM {schema}.jobs WHERE id = %(job)s AND state = 'succeeded' AND owner = %(owner)s AND claim = %(claim)s
ON CONFLICT (job, owner, claim) DO NOTHING;

-- name: trim_attempts
-- Of the history of one job the newest stay.
DELETE FROM {schema}.attempts WHERE job = %(job)s AND id <= (SELECT id FROM {schema}.attempts WHERE job = %(job)s
    ORDER BY id DESC LIMIT 1 OFFSET %(kept)s);

-- name: long_histories
-- Of these jobs (a JSON list) those with more runs in their history than are kept.
SELECT job FROM {schema}.attempts
WHERE job = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint))
GROUP BY job HAVING count(*) > %(kept)s ORDER BY job;

-- name: outcome_of
-- How this run ended, as far as the history knows it.
SELECT outcome FROM {schema}.attempts
WHERE job = %(job)s AND owner = %(owner)s AND claim = %(claim)s;

-- name: standing
-- Where a row stands: what a record that changed nothing is judged by.
SELECT state, owner, claim FROM {schema}.jobs WHERE id = %(job)s;

-- name: held
-- One running row, as the settler of its dead owner needs it.
SELECT attempt, attempts_max, policy::text, claim, timeout_ms, memory_bytes, company,
    {schema}.ms(deadline_at) - {schema}.ms({schema}.clock())
FROM {schema}.jobs
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s;

-- name: progress
-- How far a running job has come.
UPDATE {schema}.jobs SET progress = %(progress)s::json
WHERE id = %(job)s AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s;

-- name: get
-- One job.
SELECT {job}
FROM {schema}.jobs WHERE id = %(job)s;

-- name: get_many
-- Some jobs; their ids come as a JSON list.
SELECT {job}
FROM {schema}.jobs WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint));

-- name: summaries
-- The same in short.
SELECT {summary}
FROM {schema}.jobs WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint));

-- name: find
-- The newest jobs between two ids, along all rows or along an index.
SELECT {job}
FROM {*along} AND {*before} AND {*after} AND {wanted}
ORDER BY {*down} LIMIT %(limit)s;

-- name: find_few
-- The newest of few jobs that an index finds. With a sum the planner does not walk along the ids.
SELECT {job}
FROM {*source} AND id + 0 < %(before)s AND {wanted}
ORDER BY id + 0 DESC LIMIT %(limit)s;

-- name: pending_kinds
-- Each queue and priority that a pending row has, and the greatest turn there; a step of the index each.
WITH RECURSIVE queues_found (queue) AS (
    SELECT min(queue) FROM {schema}.jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue > queues_found.queue)
    FROM queues_found WHERE queues_found.queue IS NOT NULL),
found (queue, priority) AS (
    SELECT queue, (SELECT max(priority) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue = queues_found.queue)
    FROM queues_found WHERE queue IS NOT NULL AND (%(queue)s::text IS NULL OR queue = %(queue)s)
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM {schema}.jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT queue, priority, (SELECT max(turn) FROM {schema}.jobs
    WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority)
FROM found WHERE priority IS NOT NULL LIMIT %(limit)s;

-- name: newest_pending
-- The ids of the newest of each kind without turns (a JSON list), of all together the newest.
SELECT newest.id FROM json_array_elements(%(kinds)s::json) AS kind CROSS JOIN LATERAL (
    SELECT id FROM {schema}.jobs
    WHERE state = 'pending' AND queue = kind.value ->> 0 AND priority = (kind.value ->> 1)::integer
        AND turn = 0 AND id < %(before)s
    ORDER BY queue DESC, priority, turn DESC, id DESC LIMIT %(limit)s) AS newest
ORDER BY newest.id DESC LIMIT %(limit)s;

-- name: find_these
-- The newest of some jobs; their ids come as a JSON list.
SELECT {job}
FROM {schema}.jobs WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(ids)s::json)::bigint)) AND id < %(before)s AND {wanted}
ORDER BY id DESC LIMIT %(limit)s;

-- name: ids
-- Only the ids of jobs between two ids, the oldest first.
SELECT id FROM {*along} AND {*before} AND {*after} AND {wanted}
ORDER BY {*up} LIMIT %(limit)s;

-- name: ids_few
-- Only the ids of few jobs that an index finds, the oldest first.
SELECT id FROM {*source} AND id + 0 < %(before)s AND id + 0 > %(after)s AND {wanted}
ORDER BY id + 0 LIMIT %(limit)s;

-- name: ids_these
-- Those of some ids (a JSON list) that are what is wanted, the oldest first.
SELECT id FROM {schema}.jobs WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(ids)s::json)::bigint)) AND id < %(before)s AND id > %(after)s AND {wanted}
ORDER BY id LIMIT %(limit)s;

-- name: hold_these
-- The same, held until the transaction ends: who has waited for a row sees what has become of it.
SELECT id FROM {schema}.jobs WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(ids)s::json)::bigint)) AND id < %(before)s AND id > %(after)s AND {wanted}
ORDER BY id LIMIT %(limit)s FOR UPDATE;

-- name: below
-- How many rows there are before an id, counted up to a limit, and the last of these.
SELECT count(*), min(id) FROM (
    SELECT id FROM {*along} AND {*before} AND {*after} ORDER BY {*down} LIMIT %(most)s) AS found;

-- name: above
-- The same of those behind an id.
SELECT count(*), max(id) FROM (
    SELECT id FROM {*along} AND {*after} AND {*before} ORDER BY {*up} LIMIT %(most)s) AS found;

-- name: newest_id
-- The greatest id there is.
SELECT max(id) FROM {schema}.jobs;

-- name: count
-- How many jobs between two ids are what is wanted, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {*along} AND {*before} AND {*after} AND {wanted} LIMIT %(most)s) AS found;

-- name: count_few
-- The same of few jobs that an index finds.
SELECT count(*) FROM {*source} AND {wanted};

-- name: count_all
-- How many jobs an index finds, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM {*source} LIMIT %(most)s) AS found;

-- name: queues
-- In which queues the first of them are that an index finds.
SELECT queue, count(*) FROM (SELECT queue FROM {*source} LIMIT %(most)s) AS found GROUP BY queue;

-- name: pending_counts
-- How many pending rows each queue has, counted up to a limit.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM {schema}.jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue, (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE state = 'pending' AND jobs.queue = found.queue
    ORDER BY priority DESC, turn, id LIMIT %(most)s) AS found)
FROM found WHERE queue IS NOT NULL LIMIT %(limit)s;

-- name: failure_groups
-- Each task and type of error that a failed job has, with the last time; a step of the index each.
WITH RECURSIVE tasks_found (task) AS (
    SELECT min({of_task}) FROM {schema}.jobs WHERE state = 'failed'
    UNION ALL
    SELECT (SELECT min({of_task}) FROM {schema}.jobs WHERE state = 'failed' AND {of_task} > tasks_found.task)
    FROM tasks_found WHERE tasks_found.task IS NOT NULL),
found (task, error_type) AS (
    SELECT tasks_found.task, (SELECT min({error_type}) FROM {schema}.jobs
        WHERE state = 'failed' AND {of_task} = tasks_found.task)
    FROM tasks_found WHERE tasks_found.task IS NOT NULL
    UNION ALL
    SELECT found.task, (SELECT min({error_type}) FROM {schema}.jobs
        WHERE state = 'failed' AND {of_task} = found.task AND {error_type} > found.error_type)
    FROM found WHERE found.error_type IS NOT NULL)
SELECT found.task, found.error_type, (SELECT {schema}.ms(max(finished_at)) FROM {schema}.jobs
    WHERE state = 'failed' AND {of_task} = found.task AND {error_type} = found.error_type)
FROM found WHERE found.error_type IS NOT NULL LIMIT %(limit)s;

-- name: failures
-- Of some of them (a JSON list of pairs): how many, counted up to a limit, the first time, and the id of the last.
SELECT each.value ->> 0, each.value ->> 1,
    (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs WHERE state = 'failed' AND {of_task} = each.value ->> 0
        AND {error_type} = each.value ->> 1 AND finished_at >= {schema}.moment(%(from)s) LIMIT %(most)s) AS found),
    (SELECT {schema}.ms(min(finished_at)) FROM {schema}.jobs WHERE state = 'failed' AND {of_task} = each.value ->> 0
        AND {error_type} = each.value ->> 1 AND finished_at >= {schema}.moment(%(from)s)),
    (SELECT id FROM {schema}.jobs WHERE state = 'failed' AND {of_task} = each.value ->> 0
        AND {error_type} = each.value ->> 1 AND finished_at >= {schema}.moment(%(from)s) ORDER BY finished_at DESC LIMIT 1)
FROM json_array_elements(%(groups)s::json) AS each;

-- name: waiting
-- For how many milliseconds the longest waiting of the rows that a claim on each queue would take first has been due.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM {schema}.jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue, {schema}.ms({schema}.clock()) - (SELECT {schema}.ms(min(run_at)) FROM (SELECT run_at FROM {schema}.jobs
    WHERE state = 'pending' AND jobs.queue = found.queue
    ORDER BY priority DESC, turn, id LIMIT %(most)s) AS first)
FROM found WHERE queue IS NOT NULL LIMIT %(limit)s;

-- name: delete
-- Finished jobs go; their ids come as a JSON list.
SELECT {schema}.remove(ARRAY(SELECT id FROM {schema}.jobs
    WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint))
        AND state || '' IN ('succeeded', 'failed', 'cancelled')
    ORDER BY id FOR UPDATE), false);

-- name: repeat
-- A new job like another one, with other arguments where they are given.
INSERT INTO {schema}.jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, headers, parent, special, limit_key, share, weight, keep, created_at)
SELECT task, coalesce(%(args)s::json, args), coalesce(%(kwargs)s::json, kwargs), queue, priority, 'pending', {schema}.clock(), attempts_max,
    policy, timeout_ms, memory_bytes, headers, %(parent)s::bigint, special & 65, limit_key, share, weight, keep, {schema}.clock()
FROM {schema}.jobs WHERE id = %(job)s
RETURNING {job};

-- name: task_names
-- The tasks of all jobs; reads the whole table.
SELECT DISTINCT task FROM {schema}.jobs ORDER BY task LIMIT %(limit)s;

-- name: attempts
-- The history of one job.
SELECT {attempt}
FROM {schema}.attempts WHERE job = %(job)s ORDER BY id;

-- name: counts
-- How many rows of each queue are in each state.
SELECT queue, state, count(*) FROM {schema}.jobs GROUP BY queue, state;

-- name: unfinished
-- How many rows of each queue are in each unfinished state, by the index of each; no finished row is read.
SELECT queue, 'scheduled', count(*) FROM {schema}.jobs WHERE state = 'scheduled' GROUP BY queue
UNION ALL SELECT queue, 'pending', count(*) FROM {schema}.jobs WHERE state = 'pending' GROUP BY queue
UNION ALL SELECT queue, 'blocked', count(*) FROM {schema}.jobs WHERE state = 'blocked' GROUP BY queue
UNION ALL SELECT queue, 'running', count(*) FROM {schema}.jobs WHERE state = 'running' GROUP BY queue;

-- name: pending_queues
-- The queues that have pending rows, one step of the index each, however many rows they have.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM {schema}.jobs WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue FROM found WHERE queue IS NOT NULL LIMIT %(limit)s;

-- name: oldest_pending
-- For how many milliseconds the oldest pending row of each queue has been due.
SELECT queue, {schema}.ms({schema}.clock()) - {schema}.ms(min(run_at)) FROM {schema}.jobs
WHERE state = 'pending' GROUP BY queue;

-- name: latency
-- For how many milliseconds the longest waiting of the rows that a claim on one queue would take first has been due.
SELECT {schema}.ms({schema}.clock()) - {schema}.ms(min(run_at)) FROM (
    SELECT run_at FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s
    ORDER BY priority DESC, turn, id LIMIT %(limit)s) AS first;

-- name: before
-- How many pending rows a claim would take before one, of its queue, each half counted up to a limit.
SELECT (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs WHERE state = 'pending' AND queue = this.queue
        AND priority > this.priority LIMIT %(most)s) AS found)
    + (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs WHERE state = 'pending' AND queue = this.queue
        AND priority = this.priority AND (turn, id) < (this.turn, this.id) LIMIT %(most)s) AS found)
FROM {schema}.jobs AS this WHERE this.id = %(job)s;

-- name: held_back
-- How many rows wait for what, each by an index of its own and counted up to a limit. What is put off is
-- scheduled too. The order is there for the index: for a LIMIT alone a table would be read from its front, past
-- all that are finished.
SELECT 'later', count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE state = 'scheduled' ORDER BY run_at LIMIT %(most)s) AS found
UNION ALL SELECT 'retry', count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze') ORDER BY state, queue LIMIT %(most)s) AS found
UNION ALL SELECT 'unknown_task', count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE state = 'scheduled' AND deferred = 'unknown' ORDER BY state, queue LIMIT %(most)s) AS found
UNION ALL SELECT 'blocked', count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE state = 'blocked' ORDER BY queue LIMIT %(most)s) AS found
UNION ALL SELECT 'company', count(*) FROM (SELECT 1 FROM {schema}.jobs
    WHERE state = 'pending' AND (company IS NOT NULL OR memory_bytes > 0) ORDER BY queue LIMIT %(most)s) AS found;

-- name: suspects
-- The suspects of one queue that a claim would take first.
SELECT id FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s {suspects}
ORDER BY priority DESC, turn, id LIMIT %(limit)s;

-- name: cancelling
-- Running rows of some owners (a JSON list) that were asked to end. Put in order at last: asked for both, a planner
-- walks the whole primary key.
WITH asked AS MATERIALIZED (SELECT id, owner, claim FROM {schema}.jobs WHERE state = 'running' AND cancel_requested = 1
    AND owner = ANY (ARRAY(SELECT json_array_elements_text(%(owners)s::json)::bigint)))
SELECT id, owner, claim FROM asked ORDER BY id;

-- name: owned
-- Whether an owner holds running rows.
SELECT EXISTS (SELECT 1 FROM {schema}.jobs WHERE state = 'running' AND owner = %(owner)s);

-- name: ownerless
-- Owners that nobody knows and that hold rows claimed long ago, or at no time that a claim has written.
SELECT DISTINCT owner FROM {schema}.jobs WHERE state = 'running'
    AND (claimed_at IS NULL
        OR claimed_at NOT BETWEEN {schema}.clock() - %(age)s * interval '1 ms'
            AND {schema}.clock() + %(age)s * interval '1 ms')
    AND owner NOT IN (SELECT owner FROM {schema}.owners) LIMIT 1000;

-- name: adopt
-- A stranger's running row without an owner gets one that never lives, so that it can be rescued.
UPDATE {schema}.jobs SET owner = 0, claim = coalesce(claim, 0) WHERE state = 'running' AND owner IS NULL RETURNING id;

-- name: has_work
-- Whether anything is left that a draining family waits for in one queue: pending rows, retries, snoozes, and what
-- waits for a limit that lets jobs begin (a step of the index for each key, one for all of any other limit).
SELECT 0 < (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs
        WHERE state = 'pending' AND queue = %(queue)s ORDER BY priority DESC, turn, id LIMIT 1) AS found)
    OR EXISTS (SELECT 1 FROM {schema}.jobs
        WHERE state = 'scheduled' AND deferred IN ('retry', 'snooze') AND queue = %(queue)s)
    OR EXISTS (WITH RECURSIVE found (key) AS (
            SELECT (SELECT substr(min(parked), 7) FROM {schema}.jobs
                WHERE state = 'blocked' AND parked > 'limit:' AND parked < 'limit;')
            UNION ALL
            SELECT (SELECT substr(min(parked), 7) FROM {schema}.jobs
                WHERE state = 'blocked' AND parked < 'limit;' AND parked > 'limit:' || CASE
                    WHEN position(':' IN found.key) = 0 OR EXISTS (SELECT 1 FROM {schema}.limits
                        WHERE coalesce(concurrency, 1) > 0 AND limits.name = split_part(found.key, ':', 1))
                    THEN found.key ELSE split_part(found.key, ':', 1) || ';' END)
            FROM found WHERE found.key IS NOT NULL)
        SELECT 1 FROM (SELECT key FROM found WHERE key IS NOT NULL LIMIT 10000) AS waiting
        JOIN {schema}.limits ON limits.name = split_part(waiting.key, ':', 1) AND coalesce(concurrency, 1) > 0
        WHERE 0 < (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs
            WHERE state = 'blocked' AND parked = 'limit:' || waiting.key AND queue = %(queue)s LIMIT 1) AS one));

-- name: family_runs
-- Whether a family's own workers hold running rows.
SELECT EXISTS (SELECT 1 FROM {schema}.jobs WHERE state = 'running'
    AND owner IN (SELECT owner FROM {schema}.owners WHERE family = %(family)s));

-- name: add_family
-- A family enters.
INSERT INTO {schema}.families (id, name, host, boot_id, pid_namespace, pid, start_ticks, version,
    state_dir, dead_after_ms, started_at, heartbeat_at)
VALUES (%(family)s, %(name)s, %(host)s, %(boot_id)s, %(pid_namespace)s, %(pid)s, %(start_ticks)s,
    %(version)s, %(state_dir)s, %(dead_after_ms)s, {schema}.clock(), {schema}.clock())
ON CONFLICT (id) DO UPDATE SET heartbeat_at = {schema}.clock() WHERE families.died_at IS NULL;

-- name: heartbeat
-- A family lives; zero rows mean that it was declared dead.
UPDATE {schema}.families SET heartbeat_at = {schema}.clock(),
    dead_after_ms = coalesce(%(dead_after_ms)s::bigint, dead_after_ms)
WHERE id = %(family)s AND died_at IS NULL;

-- name: bury_family
-- A family is declared dead, unless it has beaten since it was looked at; before its rows are touched. A
-- row that is locked is perhaps beating just now: it is passed over, and looked at again.
UPDATE {schema}.families SET died_at = coalesce(died_at, {schema}.clock())
WHERE id = ANY (ARRAY(SELECT id FROM {schema}.families
    WHERE id = %(family)s AND {schema}.ms(heartbeat_at) = %(heartbeat_at)s FOR UPDATE SKIP LOCKED));

-- name: families
-- Every family.
SELECT id, name, host, boot_id, pid_namespace, pid, start_ticks, version, state_dir, dead_after_ms,
    {schema}.ms(started_at), {schema}.ms(heartbeat_at),
    {schema}.ms({schema}.clock()) - {schema}.ms(heartbeat_at), died_at IS NOT NULL
FROM {schema}.families ORDER BY id;

-- name: living_versions
-- The releases of the families that beat.
SELECT DISTINCT version FROM {schema}.families
WHERE died_at IS NULL AND heartbeat_at >= {schema}.clock() - dead_after_ms * interval '1 ms' LIMIT 100;

-- name: remove_family
-- A family has left, or is dead and settled.
DELETE FROM {schema}.families WHERE id = %(family)s;

-- name: add_owner
-- A life that may own rows enters.
INSERT INTO {schema}.owners (owner, family, name, host, boot_id, pid_namespace, pid, start_ticks,
    started_at)
VALUES (%(owner)s, %(family)s, %(name)s, %(host)s, %(boot_id)s, %(pid_namespace)s, %(pid)s,
    %(start_ticks)s, {schema}.clock())
ON CONFLICT (owner) DO NOTHING;

-- name: owners
-- The lives of one family.
SELECT owner, family, name, host, boot_id, pid_namespace, pid, start_ticks,
    {schema}.ms({schema}.clock()) - {schema}.ms(started_at)
FROM {schema}.owners WHERE family = %(family)s ORDER BY owner;

-- name: strays
-- Lives of no family.
SELECT owner, family, name, host, boot_id, pid_namespace, pid, start_ticks,
    {schema}.ms({schema}.clock()) - {schema}.ms(started_at)
FROM {schema}.owners WHERE family NOT IN (SELECT id FROM {schema}.families) ORDER BY owner;

-- name: remove_owner
-- A settled life.
DELETE FROM {schema}.owners WHERE owner = %(owner)s;

-- name: running
-- How many rows run.
SELECT count(*) FROM {schema}.jobs WHERE state = 'running';

-- name: export
-- Whole rows in the order of their ids, to be moved, and what o'clock it is.
SELECT {job}, {schema}.ms({schema}.clock()) FROM {schema}.jobs WHERE id > %(after)s
    AND (%(finished)s OR state IN ('scheduled', 'pending', 'blocked', 'running'))
ORDER BY id LIMIT %(limit)s;

-- name: export_attempts
-- The whole history of some rows; their ids come as a JSON list.
SELECT {attempt}
FROM {schema}.attempts
WHERE job = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint)) ORDER BY job, id;

-- name: known
-- What stands under some ids; they come as a JSON list.
SELECT id, task, {schema}.ms(created_at) FROM {schema}.jobs
WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint));

-- name: import
-- Rows from another database, under their own ids, any number in one statement.
INSERT INTO {schema}.jobs ({job_columns})
SELECT id, task, args::json, kwargs::json, queue, priority, state, {schema}.moment(run_at), attempt,
    attempts_max, claims, losses, policy::json, timeout_ms, memory_bytes, unique_key,
    {schema}.moment(expires_at), deferred, cancel_requested, owner, claim,
    {schema}.moment(created_at), {schema}.moment(claimed_at), {schema}.moment(started_at),
    {schema}.moment(finished_at), result::json, error, progress::json, headers::json, parent, company, cpu_ms,
    rss_bytes, special, turn, limit_key, share, weight, parked, limit_place, debounce_ms,
    {schema}.moment(deadline_at), keep::json, held_key, {schema}.moment(held_until)
FROM unnest(%(id)s::bigint[], %(task)s::text[], %(args)s::text[], %(kwargs)s::text[], %(queue)s::text[],
    %(priority)s::bigint[], %(state)s::text[], %(run_at)s::bigint[], %(attempt)s::bigint[],
    %(attempts_max)s::bigint[], %(claims)s::bigint[], %(losses)s::bigint[], %(policy)s::text[],
    %(timeout_ms)s::bigint[], %(memory_bytes)s::bigint[], %(unique_key)s::text[],
    %(expires_at)s::bigint[], %(deferred)s::text[], %(cancel_requested)s::bigint[],
    %(owner)s::bigint[], %(claim)s::bigint[], %(created_at)s::bigint[], %(claimed_at)s::bigint[],
    %(started_at)s::bigint[], %(finished_at)s::bigint[], %(result)s::text[], %(error)s::text[],
    %(progress)s::text[], %(headers)s::text[], %(parent)s::bigint[], %(company)s::bigint[],
    %(cpu_ms)s::bigint[], %(rss_bytes)s::bigint[], %(special)s::bigint[], %(turn)s::bigint[],
    %(limit_key)s::text[], %(share)s::text[], %(weight)s::bigint[], %(parked)s::text[],
    %(limit_place)s::bigint[], %(debounce_ms)s::bigint[], %(deadline_at)s::bigint[], %(keep)s::text[],
    %(held_key)s::text[], %(held_until)s::bigint[])
    AS told ({job_columns});

-- name: import_attempt
-- The history of imported rows, any number of runs in one statement, in the order of the arrays.
INSERT INTO {schema}.attempts ({attempt_columns})
SELECT job, attempt, owner, claim, outcome, error_type, message, traceback, host, pid, exit_code, signal,
    verdict, {schema}.moment(started_at), {schema}.moment(finished_at), stack, said, cpu_ms, rss_bytes
FROM unnest(%(job)s::bigint[], %(attempt)s::bigint[], %(owner)s::bigint[], %(claim)s::bigint[],
    %(outcome)s::text[], %(error_type)s::text[], %(message)s::text[], %(traceback)s::text[],
    %(host)s::text[], %(pid)s::bigint[], %(exit_code)s::bigint[], %(signal)s::text[],
    %(verdict)s::text[], %(started_at)s::bigint[], %(finished_at)s::bigint[], %(stack)s::text[],
    %(said)s::text[], %(cpu_ms)s::bigint[], %(rss_bytes)s::bigint[])
    WITH ORDINALITY AS told ({attempt_columns}, place)
ORDER BY place;

-- name: meta
-- A fact about the database.
SELECT value FROM {schema}.meta WHERE key = %(key)s;

-- name: follow_anew
-- Nobody has followed for a while, and what changed meanwhile was not kept: more than can be told.
SELECT {schema}.follow_anew();

-- name: follow
-- Somebody follows the changes for so many milliseconds.
SELECT {schema}.follow(%(ms)s::bigint);

-- name: tell
-- What this transaction has changed, for those who follow; whether somebody does.
SELECT {schema}.tell(%(jobs)s::text, NULL, NULL);

-- name: newest
-- Where the feed stands, as Standing names it. The end of a snapshot is behind the transactions under way
-- that are newer than the last one to end; its age leads from there to the number that is given out next.
SELECT {schema}.is_followed(), coalesce(pg_sequence_last_value({changes_number}), 0), coalesce(pg_sequence_last_value({jobs_id}), 0),
    (SELECT min(number) FROM {schema}.changes), coalesce({schema}.incarnation(false), ''),
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint + age(pg_snapshot_xmax(pg_current_snapshot())::xid);

-- name: changed
-- The changes of some ranges of numbers (a JSON list of pairs); each by the index, in its order.
SELECT number, jobs FROM json_array_elements(%(ranges)s::json) AS told, LATERAL (
    SELECT number, jobs FROM {schema}.changes
    WHERE number BETWEEN (told.value->>0)::bigint AND (told.value->>1)::bigint
    ORDER BY number LIMIT %(limit)s) AS found
LIMIT %(limit)s;

-- name: enqueued
-- The jobs of some ranges of ids (a JSON list of pairs).
SELECT id FROM json_array_elements(%(ranges)s::json) AS told, LATERAL (
    SELECT id FROM {schema}.jobs WHERE id BETWEEN (told.value->>0)::bigint AND (told.value->>1)::bigint
    ORDER BY id LIMIT %(limit)s) AS found
LIMIT %(limit)s;

-- name: trim_changes
-- Of the oldest changes those go that are old or too many, but never the newest.
SELECT {schema}.trim_changes(%(age)s::bigint, %(kept)s::bigint, %(limit)s::bigint);

-- name: hold_owner
-- A settling, which removes this row first, comes before the rest of this transaction or after it. What comes
-- back is the number of the settings.
SELECT (SELECT value FROM {schema}.meta WHERE key = 'settings')
FROM {schema}.owners WHERE owner = %(owner)s FOR KEY SHARE;

-- name: hold_owner_alone
-- The same for a turn that releases what it does not hold: one before it, whose answer was lost and that
-- is still under way, ends before this one looks.
SELECT (SELECT value FROM {schema}.meta WHERE key = 'settings')
FROM {schema}.owners WHERE owner = %(owner)s FOR UPDATE;

-- name: hold_owner_woken
-- The same for a turn of a worker that was woken, where a row is pending that nobody has locked (or had, and
-- rolled back: that is found by the look to come, as are those behind the first hundred). Else nothing is
-- locked, and so nothing written. Of one that knows other settings than there are the queues may be others.
SELECT (SELECT value FROM {schema}.meta WHERE key = 'settings')
FROM {schema}.owners WHERE owner = %(owner)s AND ((SELECT value FROM {schema}.meta WHERE key = 'settings') IS DISTINCT FROM %(settings)s::text OR EXISTS (
    SELECT 1 FROM unnest(%(queues)s::text[]) AS listed (queue), LATERAL (
        SELECT 1 FROM (SELECT company, memory_bytes FROM {schema}.jobs
            WHERE state = 'pending' AND jobs.queue = listed.queue AND jobs.xmax = 0
            ORDER BY priority DESC, turn, id LIMIT 100) AS first
        WHERE true {whom} LIMIT 1) AS found))
FOR KEY SHARE;

-- name: claim_further
-- The pending rows of one queue behind the last claim, of the same priority: while somebody's old snapshot
-- keeps the dead entries of all claimed rows in the index, a claim from the front steps over each of them.
UPDATE {schema}.jobs SET state = 'running', attempt = least(attempt, 999999999) + 1,
    claims = least(claims, 999999999) + 1,
    owner = %(owner)s, claim = %(claim)s, claimed_at = {schema}.clock(), started_at = {schema}.clock(),
    deferred = NULL, limit_place = NULL
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.jobs WHERE state = 'pending' AND queue = %(queue)s {whom} {reach}
        AND priority = %(priority)s AND (turn, id) > (%(turn)s, %(after)s)
    ORDER BY turn, id
    LIMIT CASE
        WHEN (SELECT value FROM {schema}.meta WHERE key = 'settings') IS DISTINCT FROM %(settings)s::text THEN 0
        WHEN %(entered)s AND NOT EXISTS (SELECT 1 FROM {schema}.owners WHERE owner = %(owner)s) THEN 0
        WHEN %(first)s THEN %(limit)s
        ELSE %(limit)s - (SELECT count(*) FROM {schema}.jobs
            WHERE state = 'running' AND owner = %(owner)s AND claim = %(claim)s) END
    FOR UPDATE SKIP LOCKED))
RETURNING {claimed};

-- name: tell_turn
-- The same of a turn, which is sent before it is known what it will have claimed.
SELECT {schema}.tell(%(jobs)s::text, %(owner)s::bigint, %(claim)s::bigint);

-- name: promote_and_tell
-- What `promote` does, told to those who follow.
WITH promoted AS (UPDATE {schema}.jobs SET state = 'pending', turn = 0 WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.jobs WHERE state = 'scheduled' AND run_at <= {schema}.clock()
    ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)) RETURNING id)
SELECT {schema}.tell(string_agg(id::text, ','), NULL, NULL) FROM promoted HAVING count(*) > 0;

-- name: add_stats
-- What became of jobs in some minutes, a JSON list in the order of the columns, added to what is there.
INSERT INTO {schema}.stats (minute, queue, started, succeeded, failed, retried, cancelled, run_ms, cpu_ms,
    wait_ms, wait_max_ms, depth, oldest_ms)
SELECT (told.value ->> 0)::bigint, told.value ->> 1, (told.value ->> 2)::bigint, (told.value ->> 3)::bigint,
    (told.value ->> 4)::bigint, (told.value ->> 5)::bigint, (told.value ->> 6)::bigint, (told.value ->> 7)::bigint,
    (told.value ->> 8)::bigint, (told.value ->> 9)::bigint, (told.value ->> 10)::bigint, (told.value ->> 11)::bigint,
    (told.value ->> 12)::bigint
FROM json_array_elements(%(rows)s::json) AS told
ON CONFLICT (minute, queue) DO UPDATE SET
    started = stats.started + excluded.started,
    succeeded = stats.succeeded + excluded.succeeded, failed = stats.failed + excluded.failed,
    retried = stats.retried + excluded.retried, cancelled = stats.cancelled + excluded.cancelled,
    run_ms = stats.run_ms + excluded.run_ms, cpu_ms = stats.cpu_ms + excluded.cpu_ms,
    wait_ms = stats.wait_ms + excluded.wait_ms, wait_max_ms = greatest(stats.wait_max_ms, excluded.wait_max_ms),
    depth = greatest(stats.depth, excluded.depth),
    oldest_ms = greatest(stats.oldest_ms, excluded.oldest_ms);

-- name: stats
-- Sums by so many minutes and queue.
SELECT minute / %(step)s * %(step)s, queue, sum(started)::bigint, sum(succeeded)::bigint, sum(failed)::bigint, sum(retried)::bigint,
    sum(cancelled)::bigint, sum(run_ms)::bigint, sum(cpu_ms)::bigint, sum(wait_ms)::bigint, max(wait_max_ms), max(depth), max(oldest_ms)
FROM {schema}.stats WHERE minute >= %(from)s AND minute < %(to)s AND (%(queue)s::text IS NULL OR queue = %(queue)s)
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT %(limit)s;

-- name: stats_of_all
-- The same of all queues together; their depths add up.
SELECT at, '', sum(started)::bigint, sum(succeeded)::bigint, sum(failed)::bigint, sum(retried)::bigint,
    sum(cancelled)::bigint, sum(run_ms)::bigint, sum(cpu_ms)::bigint, sum(wait_ms)::bigint, max(wait_max_ms), sum(depth)::bigint, max(oldest_ms)
FROM (SELECT minute / %(step)s * %(step)s AS at, sum(started)::bigint AS started,
        sum(succeeded)::bigint AS succeeded, sum(failed)::bigint AS failed, sum(retried)::bigint AS retried, sum(cancelled)::bigint AS cancelled,
        sum(run_ms)::bigint AS run_ms, sum(cpu_ms)::bigint AS cpu_ms, sum(wait_ms)::bigint AS wait_ms, max(wait_max_ms) AS wait_max_ms,
        max(depth) AS depth, max(oldest_ms) AS oldest_ms
    FROM {schema}.stats WHERE minute >= %(from)s AND minute < %(to)s GROUP BY 1, queue) AS each_queue
GROUP BY at ORDER BY at LIMIT %(limit)s;

-- name: trim_stats
-- Old minutes go, a bounded number at a time, and what a wrong clock has put far ahead.
DELETE FROM {schema}.stats WHERE (minute, queue) IN (
    SELECT minute, queue FROM {schema}.stats WHERE minute < {schema}.ms({schema}.clock()) - %(age)s
    UNION ALL SELECT minute, queue FROM {schema}.stats WHERE minute > {schema}.ms({schema}.clock()) + %(age)s LIMIT %(limit)s)
RETURNING minute;

-- name: note_action
-- Somebody has done something.
INSERT INTO {schema}.actions (at, who, verb, what, number) VALUES ({schema}.clock(), %(who)s, %(verb)s, %(what)s, %(number)s)
RETURNING id;

-- name: grow_action
-- It was done to more.
UPDATE {schema}.actions SET number = number + %(more)s WHERE id = %(id)s;

-- name: trim_actions
-- The newest stay.
DELETE FROM {schema}.actions WHERE id <= (SELECT max(id) FROM {schema}.actions) - %(kept)s;

-- name: actions
-- The newest of them.
SELECT id, {schema}.ms(at), who, verb, what, number FROM {schema}.actions WHERE id < %(before)s ORDER BY id DESC LIMIT %(limit)s;

-- name: note_request
-- A request is made for the first time; no row where its key is known. Another one with it is waited for.
INSERT INTO {schema}.requests (key, digest, jobs, at) VALUES (%(key)s, %(digest)s, '[]', {schema}.clock())
ON CONFLICT (key) DO NOTHING RETURNING key;

-- name: request
-- What the first one with this key was, and the jobs that it made.
SELECT digest, jobs FROM {schema}.requests WHERE key = %(key)s;

-- name: answer_request
-- The jobs that a request has made.
UPDATE {schema}.requests SET jobs = %(jobs)s WHERE key = %(key)s;

-- name: trim_requests
-- A page of those that are too old goes, and this one if it is; what others hold is left to them.
DELETE FROM {schema}.requests WHERE key IN (
    SELECT key FROM (SELECT key FROM {schema}.requests WHERE key = %(key)s
        AND at < {schema}.clock() - %(age)s::bigint * interval '1 ms' FOR UPDATE SKIP LOCKED) AS own
    UNION ALL SELECT key FROM (SELECT key FROM {schema}.requests
        WHERE at < {schema}.clock() - %(age)s::bigint * interval '1 ms' ORDER BY at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS page);

-- name: note_tasks
-- Workers have registered tasks: a JSON list of pairs.
INSERT INTO {schema}.tasks (name, told, seen_at)
SELECT told.value ->> 0, told.value ->> 1, {schema}.clock() FROM json_array_elements(%(rows)s::json) AS told
ON CONFLICT (name) DO UPDATE SET told = excluded.told, seen_at = excluded.seen_at;

-- name: trim_tasks
-- Those that nobody has registered for long go, and of too many those that were seen longest ago; what is
-- paused stays so.
DELETE FROM {schema}.tasks WHERE paused_at IS NULL AND (seen_at < {schema}.clock() - %(age)s * interval '1 ms'
    OR name IN (SELECT name FROM {schema}.tasks ORDER BY seen_at DESC, name OFFSET %(kept)s));

-- name: tasks
-- The tasks that workers have registered; of one that was only paused nobody has told.
SELECT name, told, {schema}.ms(seen_at) FROM {schema}.tasks WHERE name > %(after_name)s AND told <> 'null' ORDER BY name LIMIT %(limit)s;

-- name: next_end
-- In how many milliseconds the first waiting row is to be ended because of the time alone; overdue is negative.
SELECT {schema}.ms((SELECT {timed} FROM {schema}.jobs WHERE {ends} ORDER BY {timed} LIMIT 1))
    - {schema}.ms({schema}.clock());

-- name: expire
-- Waiting rows that no run may begin any more are cancelled, a bounded number at a time.
UPDATE {schema}.jobs SET state = 'cancelled', error = %(error)s, finished_at = {schema}.clock(), parked = NULL, turn = 0
WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.jobs WHERE {ends}
        AND {timed} <= {schema}.clock() AND expires_at <= {schema}.clock()
    ORDER BY {timed} LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING id, {told};

-- name: expire_row
-- One of them, by itself.
UPDATE {schema}.jobs SET state = 'cancelled', error = %(error)s, finished_at = {schema}.clock(), parked = NULL, turn = 0
WHERE id = %(job)s AND state IN ('scheduled', 'pending', 'blocked') AND expires_at <= {schema}.clock()
RETURNING id, {told};

-- name: expire_rows
-- Which these are, but for rows that are known to be refused (a JSON list).
SELECT id FROM {schema}.jobs WHERE {ends} AND {timed} <= {schema}.clock() AND expires_at <= {schema}.clock()
    AND id NOT IN (SELECT json_array_elements_text(%(left)s::json)::bigint)
ORDER BY {timed} LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: fail_overdue
-- Waiting rows that are past their deadline fail, a bounded number at a time; what they were told
-- last is kept. What runs then is ended by whoever judges it.
UPDATE {schema}.jobs SET state = 'failed', error = left(%(error)s || coalesce('; its last error: ' || error, ''), 2000),
    finished_at = {schema}.clock(), parked = NULL, turn = 0
WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.jobs WHERE {ends}
        AND {timed} <= {schema}.clock() AND deadline_at <= {schema}.clock()
    ORDER BY {timed} LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING id, {told};

-- name: fail_overdue_row
-- One of them, by itself.
UPDATE {schema}.jobs SET state = 'failed', error = left(%(error)s || coalesce('; its last error: ' || error, ''), 2000),
    finished_at = {schema}.clock(), parked = NULL, turn = 0
WHERE id = %(job)s AND state IN ('scheduled', 'pending', 'blocked') AND deadline_at <= {schema}.clock()
RETURNING id, {told};

-- name: fail_overdue_rows
-- Which these are, but for rows that are known to be refused (a JSON list).
SELECT id FROM {schema}.jobs WHERE {ends} AND {timed} <= {schema}.clock() AND deadline_at <= {schema}.clock()
    AND id NOT IN (SELECT json_array_elements_text(%(left)s::json)::bigint)
ORDER BY {timed} LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: deadlines
-- In how many milliseconds the deadline is of these jobs (a JSON list) that have one.
SELECT id, {schema}.ms(deadline_at) - {schema}.ms({schema}.clock()) FROM {schema}.jobs
WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint)) AND deadline_at IS NOT NULL;

-- name: parked_tasks
-- The tasks that jobs are parked for and that are not paused, a step of the index each.
WITH RECURSIVE found (parked) AS (
    SELECT (SELECT min(parked) FROM {schema}.jobs
        WHERE parked IS NOT NULL AND state = 'blocked' AND parked > 'task:' AND parked < 'task;')
    UNION ALL
    SELECT (SELECT min(jobs.parked) FROM {schema}.jobs
        WHERE parked IS NOT NULL AND state = 'blocked' AND jobs.parked > found.parked AND jobs.parked < 'task;')
    FROM found WHERE found.parked IS NOT NULL)
SELECT substr(parked, 6) FROM found WHERE parked IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {schema}.tasks
    WHERE name = substr(parked, 6) AND paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock()))
LIMIT %(limit)s;

-- name: unpark
-- A page of the rows that are parked for something else than a limit may be claimed again.
UPDATE {schema}.jobs SET state = 'pending', parked = NULL WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.jobs
    WHERE parked IS NOT NULL AND state = 'blocked' AND parked = %(parked)s ORDER BY queue, priority DESC, turn, id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED))
RETURNING id, share IS NOT NULL;

-- name: settings
-- The number that each change of a setting raises, and what is paused now: a JSON list of whether it is a
-- task, its name, and for how many milliseconds yet.
SELECT (SELECT value FROM {schema}.meta WHERE key = 'settings'), (SELECT json_agg(json_build_array(is_task, name, ms))::text
FROM (SELECT false AS is_task, name, {schema}.ms(paused_until) - {schema}.ms({schema}.clock()) AS ms FROM {schema}.queues
    WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock())
    UNION ALL
    SELECT true, name, {schema}.ms(paused_until) - {schema}.ms({schema}.clock()) FROM {schema}.tasks
    WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock())
    LIMIT %(limit)s) AS found);

-- name: note_settings
-- A setting has changed: whoever keeps settings in memory reads them anew.
SELECT {schema}.note_settings();

-- name: pause_queue
-- Nothing of this queue is claimed, until a moment, for so long, or until somebody resumes it; a moment that
-- has passed pauses nothing.
INSERT INTO {schema}.queues AS known (name, paused_at, paused_until)
SELECT %(name)s, {schema}.clock(), until
FROM (SELECT coalesce({schema}.moment(%(until)s::bigint), {schema}.clock() + %(for_ms)s::bigint * interval '1 ms') AS until) AS told
WHERE until IS NULL OR until > {schema}.clock()
ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until,
    paused_at = CASE WHEN known.paused_until IS NULL OR known.paused_until > {schema}.clock()
        THEN coalesce(known.paused_at, {schema}.clock()) ELSE {schema}.clock() END
RETURNING name, {schema}.ms(paused_at), {schema}.ms(paused_until);

-- name: resume_queue
-- Its jobs are claimed again.
UPDATE {schema}.queues SET paused_at = NULL, paused_until = NULL
WHERE name = %(name)s AND paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock())
RETURNING 1;

-- name: pause_task
-- The same of a task, which no worker may have told of.
INSERT INTO {schema}.tasks AS known (name, told, seen_at, paused_at, paused_until)
SELECT %(name)s, 'null', {schema}.clock(), {schema}.clock(), until
FROM (SELECT coalesce({schema}.moment(%(until)s::bigint), {schema}.clock() + %(for_ms)s::bigint * interval '1 ms') AS until) AS told
WHERE until IS NULL OR until > {schema}.clock()
ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until,
    paused_at = CASE WHEN known.paused_until IS NULL OR known.paused_until > {schema}.clock()
        THEN coalesce(known.paused_at, {schema}.clock()) ELSE {schema}.clock() END
RETURNING name, {schema}.ms(paused_at), {schema}.ms(paused_until);

-- name: resume_task
-- Its jobs are claimed again, once they are freed.
UPDATE {schema}.tasks SET paused_at = NULL, paused_until = NULL
WHERE name = %(name)s AND paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock())
RETURNING 1;

-- name: forget_queues
-- Pauses of queues that have ended by themselves some time ago go, and what is not said anything of any more.
DELETE FROM {schema}.queues WHERE name = ANY (ARRAY(SELECT name FROM {schema}.queues WHERE fair = 0
    AND (paused_at IS NULL OR paused_until < {schema}.clock() - %(age)s * interval '1 ms')
    ORDER BY name LIMIT %(limit)s FOR UPDATE SKIP LOCKED));

-- name: forget_pauses
-- The same of fair queues, which stay.
UPDATE {schema}.queues SET paused_at = NULL, paused_until = NULL WHERE name = ANY (ARRAY(SELECT name FROM {schema}.queues
    WHERE fair = 1 AND paused_at IS NOT NULL AND paused_until < {schema}.clock() - %(age)s * interval '1 ms'
    ORDER BY name FOR UPDATE SKIP LOCKED));

-- name: forget_tasks
-- The same of tasks, of which nobody has told.
DELETE FROM {schema}.tasks WHERE name = ANY (ARRAY(SELECT name FROM {schema}.tasks WHERE told = 'null'
    AND (paused_at IS NULL OR paused_until < {schema}.clock() - %(age)s * interval '1 ms')
    ORDER BY name LIMIT %(limit)s FOR UPDATE SKIP LOCKED));

-- name: forget_task_pauses
-- The same of those that somebody has told of, which stay.
UPDATE {schema}.tasks SET paused_at = NULL, paused_until = NULL WHERE name = ANY (ARRAY(SELECT name FROM {schema}.tasks
    WHERE paused_at IS NOT NULL AND told <> 'null' AND paused_until < {schema}.clock() - %(age)s * interval '1 ms'
    ORDER BY name LIMIT %(limit)s FOR UPDATE SKIP LOCKED));

-- name: paused
-- The queues and tasks that are paused now, by name.
SELECT 'queue', name, {schema}.ms(paused_at), {schema}.ms(paused_until) FROM {schema}.queues
WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock())
UNION ALL
SELECT 'task', name, {schema}.ms(paused_at), {schema}.ms(paused_until) FROM {schema}.tasks
WHERE paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {schema}.clock())
ORDER BY 1, 2 LIMIT %(limit)s;

-- name: has_schedules
-- Whether there is any schedule.
SELECT EXISTS (SELECT 1 FROM {schema}.schedules);

-- name: schedules
-- All of them, by name.
SELECT {schedule_seen} FROM {schema}.schedules WHERE name > %(after_name)s ORDER BY name LIMIT %(limit)s;

-- name: upcoming
-- When those tick that are not paused, by name: no more than a look needs, for it comes every second.
SELECT {schema}.ms({schema}.clock()), name, task, cron, every_ms, {schema}.ms(anchor), timezone, {schema}.ms(last_tick)
FROM {schema}.schedules WHERE name > %(after_name)s AND paused_config = 0 AND paused_at IS NULL
ORDER BY name LIMIT %(limit)s;

-- name: declared_by
-- Who declares those of one source and family, without a lock.
SELECT declared_by FROM {schema}.schedules WHERE source = %(source)s AND family = %(family_name)s;

-- name: schedule
-- One.
SELECT {schedule_seen} FROM {schema}.schedules WHERE name = %(name)s;

-- name: hold_schedule
-- One, held until the end of the transaction; none where somebody else holds it.
SELECT {schedule_seen} FROM {schema}.schedules WHERE name = %(name)s FOR UPDATE SKIP LOCKED;

-- name: lock_schedule
-- The same, whoever holds it.
SELECT {schedule_seen} FROM {schema}.schedules WHERE name = %(name)s FOR UPDATE;

-- name: hold_schedules
-- From here to the end of the transaction nobody else declares one: two that declare a new name find no row to wait on.
SELECT pg_advisory_xact_lock(hashtextextended('jobvisor schedules', '{schema}.schedules'::regclass::oid::bigint));

-- name: schedules_of
-- Those that families of this name have declared, held.
SELECT {schedule_seen} FROM {schema}.schedules WHERE source = %(source)s AND family = %(family_name)s ORDER BY name
FOR UPDATE;

-- name: store_schedule
-- A schedule is new, or another one; where its timing is another, or its pause over, ticks count from now on.
INSERT INTO {schema}.schedules ({schedule_columns}, counts_from)
VALUES (%(name)s, %(source)s, %(family_name)s, %(declared_by)s, %(task)s, %(cron)s, %(every_ms)s, {schema}.moment(%(anchor)s), %(timezone)s,
    %(args)s::json, %(kwargs)s::json,
    %(keys)s, %(queue)s, %(catch_up)s, %(overlap)s, %(paused)s, NULL, {schema}.clock(), NULL, {schema}.clock(), {schema}.clock())
ON CONFLICT (name) DO UPDATE SET source = excluded.source, family = excluded.family,
    declared_by = excluded.declared_by, task = excluded.task, cron = excluded.cron,
    every_ms = excluded.every_ms, anchor = excluded.anchor, timezone = excluded.timezone,
    args = excluded.args, kwargs = excluded.kwargs, keys = excluded.keys, queue = excluded.queue,
    catch_up = excluded.catch_up, overlap = excluded.overlap, paused_config = excluded.paused_config,
    last_tick = CASE WHEN schedules.cron IS DISTINCT FROM excluded.cron OR schedules.every_ms IS DISTINCT FROM excluded.every_ms
        OR schedules.anchor IS DISTINCT FROM excluded.anchor OR schedules.timezone IS DISTINCT FROM excluded.timezone
        OR schedules.paused_config > excluded.paused_config THEN {schema}.clock() ELSE schedules.last_tick END,
    counts_from = CASE WHEN schedules.cron IS DISTINCT FROM excluded.cron OR schedules.every_ms IS DISTINCT FROM excluded.every_ms
        OR schedules.anchor IS DISTINCT FROM excluded.anchor OR schedules.timezone IS DISTINCT FROM excluded.timezone
        OR schedules.paused_config > excluded.paused_config THEN {schema}.clock() ELSE schedules.counts_from END;

-- name: redeclare_schedule
-- Other families declare it still.
UPDATE {schema}.schedules SET declared_by = %(declared_by)s WHERE name = %(name)s;

-- name: remove_schedule
-- Nobody wants it any more; its ticks stay for a while.
DELETE FROM {schema}.schedules WHERE name = %(name)s;

-- name: pause_schedule
-- It ticks no more.
UPDATE {schema}.schedules SET paused_at = {schema}.clock() WHERE name = %(name)s AND paused_at IS NULL;

-- name: resume_schedule
-- It ticks again; what the pause hid is not missed.
UPDATE {schema}.schedules SET paused_at = NULL, last_tick = {schema}.clock(), counts_from = {schema}.clock() WHERE name = %(name)s AND paused_at IS NOT NULL;

-- name: move_schedule
-- Its ticks have been looked after up to a moment.
UPDATE {schema}.schedules SET last_tick = {schema}.moment(%(last_tick)s), last_job = coalesce(%(last_job)s::bigint, last_job) WHERE name = %(name)s;

-- name: looked_after
-- After a clock was set back: up to which moment before another ticks have been looked after. None where it begins to
-- tick, or goes on after a pause, only behind that.
SELECT {schema}.ms(greatest(counts_from, (SELECT max(tick) FROM {schema}.ticks WHERE schedule = name AND tick <= {schema}.moment(%(until)s))))
FROM {schema}.schedules WHERE name = %(schedule)s AND counts_from <= {schema}.moment(%(until)s);

-- name: has_tick
-- Whether a tick has made a job.
SELECT 1 FROM {schema}.ticks WHERE schedule = %(schedule)s AND tick = {schema}.moment(%(tick)s);

-- name: add_tick
-- It has made this one.
INSERT INTO {schema}.ticks (schedule, tick, job) VALUES (%(schedule)s, {schema}.moment(%(tick)s), %(job)s);

-- name: trim_ticks
-- Old ticks go, and of a schedule that has too many the oldest, schedule by schedule.
DELETE FROM {schema}.ticks WHERE (schedule, tick) IN (
    WITH RECURSIVE found (schedule) AS (
        SELECT min(schedule) FROM {schema}.ticks
        UNION ALL
        SELECT (SELECT min(ticks.schedule) FROM {schema}.ticks WHERE ticks.schedule > found.schedule)
        FROM found WHERE found.schedule IS NOT NULL)
    SELECT ticks.schedule, ticks.tick FROM found JOIN {schema}.ticks ON ticks.schedule = found.schedule
    WHERE ticks.tick < greatest({schema}.clock() - %(age)s * interval '1 ms', coalesce((SELECT kept.tick FROM {schema}.ticks AS kept
        WHERE kept.schedule = found.schedule ORDER BY kept.tick DESC LIMIT 1 OFFSET %(kept)s), '-infinity'))
    LIMIT %(limit)s);

-- name: import_schedule
-- A schedule from another database, unless one of its name is here.
INSERT INTO {schema}.schedules ({schedule_columns}, counts_from)
VALUES (%(name)s, %(source)s, %(family_name)s, %(declared_by)s, %(task)s, %(cron)s, %(every_ms)s, {schema}.moment(%(anchor)s), %(timezone)s,
    %(args)s::json, %(kwargs)s::json,
    %(keys)s, %(queue)s, %(catch_up)s, %(overlap)s, %(paused_config)s, {schema}.moment(%(paused_at)s::bigint),
    {schema}.moment(%(last_tick)s), %(last_job)s, {schema}.moment(%(created_at)s), {schema}.clock())
ON CONFLICT (name) DO NOTHING;

-- name: known_task
-- What workers have told of one task; of one that was only paused nobody has told.
SELECT name, told, {schema}.ms(seen_at) FROM {schema}.tasks WHERE name = %(name)s AND told <> 'null';

-- name: limits
-- What is said of each limit, by name.
SELECT name, concurrency, rate, per_ms, burst, source FROM {schema}.limits ORDER BY name LIMIT %(limit)s;

-- name: set_limit
-- Somebody says at run time what a limit is.
INSERT INTO {schema}.limits (name, concurrency, rate, per_ms, burst, source)
VALUES (%(name)s, %(concurrency)s, %(rate)s, %(per_ms)s, %(burst)s, %(source)s)
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, rate = excluded.rate, per_ms = excluded.per_ms,
    burst = excluded.burst, source = excluded.source;

-- name: declare_limit
-- The file of a family says so: the last start counts, but what was set at run time stays.
INSERT INTO {schema}.limits (name, concurrency, rate, per_ms, burst, source)
VALUES (%(name)s, %(concurrency)s, %(rate)s, %(per_ms)s, %(burst)s, %(source)s)
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, rate = excluded.rate, per_ms = excluded.per_ms,
    burst = excluded.burst
WHERE limits.source <> 'set' AND (limits.concurrency, limits.rate, limits.per_ms, limits.burst)
    IS DISTINCT FROM (excluded.concurrency, excluded.rate, excluded.per_ms, excluded.burst);

-- name: declare_missing_limit
-- The same where nobody says what it is any more.
INSERT INTO {schema}.limits (name, concurrency, rate, per_ms, burst, source)
VALUES (%(name)s, %(concurrency)s, %(rate)s, %(per_ms)s, %(burst)s, %(source)s)
ON CONFLICT (name) DO NOTHING;

-- name: remove_limit
-- A limit goes; the jobs that have it wait.
DELETE FROM {schema}.limits WHERE name = %(name)s;

-- name: make_keys
-- The row of each key (a JSON list): whoever counts its jobs holds it. In the order of the keys: where two make
-- the same ones, they wait for each other in one direction.
INSERT INTO {schema}.limit_keys (key, name)
SELECT told, split_part(told, ':', 1) FROM json_array_elements_text(%(keys)s::json) AS told
WHERE NOT EXISTS (SELECT 1 FROM {schema}.limit_keys WHERE limit_keys.key = told)
ORDER BY told COLLATE "C" ON CONFLICT (key) DO NOTHING;

-- name: keys_page
-- Some keys behind one, in their order.
SELECT key FROM {schema}.limit_keys WHERE key > %(after_key)s ORDER BY key LIMIT %(limit)s;

-- name: keys_of_limit
-- The same of one limit. What is asked for is looked up as a range, and the limit's own key is within it.
SELECT key FROM {schema}.limit_keys WHERE key > %(after_key)s AND key >= %(name)s AND key < %(name)s || ';'
    AND (key = %(name)s OR key > %(name)s || ':')
ORDER BY key LIMIT %(limit)s;

-- name: trim_keys
-- Of these keys (a JSON list) those go that no job needs, and whose rate is not used up.
DELETE FROM {schema}.limit_keys WHERE key = ANY (ARRAY(SELECT key FROM {schema}.limit_keys
    WHERE key = ANY (ARRAY(SELECT json_array_elements_text(%(keys)s::json)))
        AND next_at IS NULL AND coalesce(spent_ns, 0) <= {schema}.ms({schema}.clock()) * 1000000
        AND NOT EXISTS (SELECT 1 FROM {schema}.jobs WHERE limit_key = limit_keys.key AND state = 'pending')
        AND NOT EXISTS (SELECT 1 FROM {schema}.jobs WHERE limit_key = limit_keys.key AND state = 'running')
        AND NOT EXISTS (SELECT 1 FROM {schema}.jobs WHERE parked = 'limit:' || limit_keys.key AND state = 'blocked')
    FOR UPDATE SKIP LOCKED))
RETURNING key;

-- name: due_keys
-- Keys whose jobs wait for a moment that has come.
SELECT key FROM {schema}.limit_keys WHERE next_at IS NOT NULL AND next_at <= {schema}.clock() ORDER BY next_at LIMIT %(limit)s;

-- name: next_key_due
-- In how many milliseconds the next such moment comes; overdue is negative.
SELECT ceil(date_part('epoch', next_at - {schema}.clock()) * 1000)::bigint FROM {schema}.limit_keys
WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1;

-- name: parked_keys
-- Some keys behind one that jobs are parked for, in their order, a step of the index each; and whether one may
-- begin. A moment far ahead was left by a clock that was set back.
WITH RECURSIVE found (parked) AS (
    SELECT (SELECT min(parked) FROM {schema}.jobs
        WHERE state = 'blocked' AND parked > 'limit:' || %(after_key)s AND parked < 'limit;')
    UNION ALL
    SELECT (SELECT min(jobs.parked) FROM {schema}.jobs
        WHERE state = 'blocked' AND jobs.parked > found.parked AND jobs.parked < 'limit;')
    FROM found WHERE found.parked IS NOT NULL),
keys (key) AS (SELECT substr(parked, 7) FROM found WHERE parked IS NOT NULL LIMIT %(limit)s)
SELECT keys.key, limits.name IS NOT NULL AND (limits.concurrency IS NULL OR limits.concurrency > (
        SELECT count(*) FROM {schema}.jobs WHERE limit_key = keys.key AND state = 'running'))
    AND (limits.rate IS NULL OR coalesce((SELECT spent_ns FROM {schema}.limit_keys WHERE limit_keys.key = keys.key), 0)
        NOT BETWEEN {schema}.ms({schema}.clock()) * 1000000 + (limits.burst - 1) * greatest(1, limits.per_ms * 1000000 / limits.rate) + 1
            AND {schema}.ms({schema}.clock()) * 1000000 + (limits.burst + 1) * greatest(1, limits.per_ms * 1000000 / limits.rate)
                + 60000000000)
FROM keys LEFT JOIN {schema}.limits ON limits.name = split_part(keys.key, ':', 1);

-- name: claimed_limited
-- What was just claimed and has a limit, key by key in the order of the claim.
SELECT id, limit_key FROM {schema}.jobs
WHERE limit_key IS NOT NULL AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s
ORDER BY limit_key, priority DESC, turn, id;

-- name: fit_keys
-- What the starts so far have used up of keys that the caller holds is no more than their limit has now.
UPDATE {schema}.limit_keys SET spent_ns = fit.spent FROM (
    SELECT name, {schema}.ms({schema}.clock()) * 1000000 + burst * greatest(1, per_ms * 1000000 / rate) AS spent
    FROM {schema}.limits WHERE rate IS NOT NULL) AS fit
WHERE key = ANY (%(keys)s) AND fit.name = split_part(key, ':', 1) AND spent_ns > fit.spent;

-- name: limited_keys
-- The keys that an owner's running rows have.
SELECT DISTINCT limit_key FROM (SELECT limit_key FROM {schema}.jobs
    WHERE limit_key IS NOT NULL AND state = 'running' AND owner = %(owner)s LIMIT %(limit)s) AS found;

-- name: still_running
-- Which of some jobs (a JSON list) run.
SELECT id FROM {schema}.jobs
WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint)) AND state || '' = 'running';

-- name: limit_counts
-- How the jobs of one limit stand: how many run, how many are parked, how many keys it has; each counted up to a limit.
SELECT (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs WHERE state = 'running' AND limit_key = %(name)s
        UNION ALL SELECT 1 FROM {schema}.jobs
        WHERE state = 'running' AND limit_key > %(name)s || ':' AND limit_key < %(name)s || ';' LIMIT %(most)s) AS found),
    (SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs WHERE state = 'blocked' AND parked = 'limit:' || %(name)s
        UNION ALL SELECT 1 FROM {schema}.jobs WHERE state = 'blocked'
        AND parked > 'limit:' || %(name)s || ':' AND parked < 'limit:' || %(name)s || ';' LIMIT %(most)s) AS found),
    (SELECT count(*) FROM (SELECT 1 FROM {schema}.limit_keys WHERE key = %(name)s
        UNION ALL SELECT 1 FROM {schema}.limit_keys WHERE key > %(name)s || ':' AND key < %(name)s || ';' LIMIT %(most)s) AS found);

-- name: unknown_limits
-- Limits that jobs are parked for and of which nobody says what they are; a step of the index for each name.
WITH RECURSIVE found (name) AS (
    SELECT (SELECT substr(min(parked), 7) FROM {schema}.jobs
        WHERE state = 'blocked' AND parked > 'limit:' AND parked < 'limit;')
    UNION ALL
    SELECT (SELECT substr(min(parked), 7) FROM {schema}.jobs WHERE state = 'blocked'
        AND parked > 'limit:' || split_part(found.name, ':', 1) || CASE WHEN position(':' IN found.name) > 0 THEN ';' ELSE '' END
        AND parked < 'limit;')
    FROM found WHERE found.name IS NOT NULL)
SELECT DISTINCT split_part(seen.name, ':', 1) FROM (SELECT name FROM found WHERE name IS NOT NULL LIMIT 20000) AS seen
WHERE NOT EXISTS (SELECT 1 FROM {schema}.limits WHERE limits.name = split_part(seen.name, ':', 1))
LIMIT %(limit)s;

-- name: wait_of
-- For what a blocked row is parked, and what its line goes by.
SELECT parked, queue, priority, turn, limit_key FROM {schema}.jobs
WHERE id = %(job)s AND state = 'blocked' AND parked IS NOT NULL;

-- name: ahead
-- How many of its queue come before a parked row, counted up to a limit: three ranges of the index.
SELECT count(*) FROM (
    SELECT 1 FROM {schema}.jobs WHERE state = 'blocked' AND parked = %(parked)s AND queue = %(queue)s AND priority > %(priority)s
    UNION ALL SELECT 1 FROM {schema}.jobs WHERE state = 'blocked' AND parked = %(parked)s AND queue = %(queue)s
        AND priority = %(priority)s AND turn < %(turn)s
    UNION ALL SELECT 1 FROM {schema}.jobs WHERE state = 'blocked' AND parked = %(parked)s AND queue = %(queue)s
        AND priority = %(priority)s AND turn = %(turn)s AND id < %(job)s LIMIT %(most)s) AS found;

-- name: key_standing
-- What is said of the limit of a key, until when its rate is used up, when the next job may start, and how many run.
SELECT limits.name, limits.concurrency, limits.rate, limits.per_ms, limits.burst, limits.source,
    limit_keys.spent_ns, {schema}.ms(limit_keys.next_at),
    (SELECT count(*) FROM {schema}.jobs WHERE limit_key = %(key)s AND state = 'running')
FROM {schema}.limits LEFT JOIN {schema}.limit_keys ON limit_keys.key = %(key)s
WHERE limits.name = split_part(%(key)s, ':', 1);

-- name: fair_queues
-- The queues that are fair.
SELECT name FROM {schema}.queues WHERE fair = 1 ORDER BY name LIMIT %(limit)s;

-- name: set_fair
-- A queue is fair from now on, or is no more; a row comes back where that is new.
INSERT INTO {schema}.queues (name, fair)
SELECT %(queue)s, %(fair)s WHERE %(fair)s = 1 OR EXISTS (SELECT 1 FROM {schema}.queues WHERE name = %(queue)s)
ON CONFLICT (name) DO UPDATE SET fair = excluded.fair WHERE queues.fair <> excluded.fair
RETURNING name;

-- name: begin_turns
-- A queue whose rows may have turns.
INSERT INTO {schema}.turns (queue, priority, turn, raised_at) VALUES (%(queue)s, 0, 0, {schema}.clock())
ON CONFLICT (queue, priority) DO UPDATE SET raised_at = excluded.raised_at;

-- name: give_turns
-- Of these rows (a JSON list) those of a share that are pending in a fair queue, and have no turn yet or one that is
-- over (below the mark), get turns: see the function; and one step behind each other. In another queue they have none.
-- The caller has changed them already, so nobody is waited for. The state is written so that no partial index matches:
-- a planner would go through all that have a share, for their order.
UPDATE {schema}.jobs SET turn = given.turn FROM (
    SELECT id, coalesce({turn_in_line}, 0) AS turn
    FROM (SELECT id, queue, priority, share, run_at, 1048576::bigint / coalesce(weight, 1) AS step,
            CASE WHEN row_number() OVER line = 1
                THEN nullif({schema}.fair_turn(queue, priority, share, weight), 0) END AS base
        FROM {schema}.jobs AS these
        WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint))
            AND state || '' = 'pending' AND {out_of_line}
        WINDOW line AS (PARTITION BY queue, priority, share ORDER BY run_at, id)) AS based
    WINDOW line AS (PARTITION BY queue, priority, share ORDER BY run_at, id)) AS given
WHERE jobs.id = given.id AND jobs.turn <> given.turn;

-- name: take_turns
-- The turns of what was just claimed.
SELECT id, turn FROM {schema}.jobs WHERE state = 'running' AND owner = %(owner)s AND claim = %(claim)s AND turn > 0;

-- name: raise_turns
-- How far a priority of a fair queue has come: to the greatest turn of what was just claimed, once in a while, and
-- only where nobody holds its row. (Two that make the same rows wait for each other in one order, and ask
-- nothing more.)
WITH far AS (SELECT queue, priority, max(turn) AS turn FROM {schema}.jobs
    WHERE state = 'running' AND owner = %(owner)s AND claim = %(claim)s AND turn > 0 GROUP BY queue, priority),
made AS (INSERT INTO {schema}.turns (queue, priority, turn, raised_at)
    SELECT queue, priority, turn, {schema}.clock() FROM far WHERE NOT EXISTS (SELECT 1 FROM {schema}.turns
        WHERE turns.queue = far.queue AND turns.priority = far.priority)
    ORDER BY queue COLLATE "C", priority ON CONFLICT (queue, priority) DO NOTHING)
UPDATE {schema}.turns SET turn = far.turn, raised_at = {schema}.clock() FROM far
WHERE turns.queue = far.queue AND turns.priority = far.priority AND turns.ctid = ANY (ARRAY(
    SELECT turns.ctid FROM far JOIN {schema}.turns ON turns.queue = far.queue AND turns.priority = far.priority
    WHERE turns.turn < far.turn AND turns.raised_at NOT BETWEEN
        {schema}.clock() - %(each)s * interval '1 ms' AND {schema}.clock()
    FOR UPDATE OF turns SKIP LOCKED));

-- name: turned_kinds
-- Each queue that is fair no more, and priority, in which pending rows still have turns; a step of the index each,
-- which has the collation of `jobs.queue`: by another one all of it is read.
WITH RECURSIVE found (queue, priority) AS (
    SELECT queue, (SELECT max(priority) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue = unfair.queue)
    FROM (SELECT DISTINCT queue COLLATE "default" AS queue FROM {schema}.turns
        WHERE queue NOT IN (SELECT name FROM {schema}.queues WHERE fair = 1)) AS unfair
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM {schema}.jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT queue, priority FROM found WHERE priority IS NOT NULL AND (SELECT max(turn) FROM {schema}.jobs
    WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority) > 0
LIMIT %(limit)s;

-- name: level_turns
-- A page of them has none any more; what others hold is left for the next time.
UPDATE {schema}.jobs SET turn = 0 WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.jobs
    WHERE state = 'pending' AND queue = %(queue)s AND priority = %(priority)s AND turn > 0
    ORDER BY turn LIMIT %(limit)s FOR UPDATE SKIP LOCKED));

-- name: unturned_kinds
-- Each fair queue and priority in which pending rows have no turn; a step of the index each.
WITH RECURSIVE found (queue, priority) AS (
    SELECT name, (SELECT max(priority) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue = fair.name)
    FROM (SELECT name COLLATE "default" AS name FROM {schema}.queues WHERE fair = 1) AS fair
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM {schema}.jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT queue, priority FROM found WHERE priority IS NOT NULL AND (SELECT min(turn) FROM {schema}.jobs
    WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority) = 0
LIMIT %(limit)s;

-- name: unturned
-- A page of those rows, and whether each has a share. By a range of turns: of equal ones a planner walks all ids.
SELECT id, share IS NOT NULL FROM {schema}.jobs
WHERE state = 'pending' AND queue = %(queue)s AND priority = %(priority)s AND turn < 1 AND (turn, id) > (0, %(after)s)
ORDER BY turn, id LIMIT %(limit)s;

-- name: hold_unturned
-- Of some of them (a JSON list) those that are so still, and that nobody else has.
SELECT id FROM {schema}.jobs
WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint)) AND state = 'pending' AND turn = 0
ORDER BY id FOR UPDATE SKIP LOCKED;

-- name: trim_turns
-- Marks of queues that have been fair no more for long go.
DELETE FROM {schema}.turns WHERE raised_at < {schema}.clock() - %(age)s * interval '1 ms'
    AND queue NOT IN (SELECT name FROM {schema}.queues WHERE fair = 1);

-- name: shares_in_vain
-- Queues that are not fair, and have pending rows with a share; a step of the index each.
WITH RECURSIVE found (queue) AS (
    SELECT min(queue) FROM {schema}.jobs WHERE share IS NOT NULL AND state = 'pending'
    UNION ALL
    SELECT (SELECT min(jobs.queue) FROM {schema}.jobs
        WHERE share IS NOT NULL AND state = 'pending' AND jobs.queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL)
SELECT queue FROM found WHERE queue IS NOT NULL
    AND queue NOT IN (SELECT name FROM {schema}.queues WHERE fair = 1) LIMIT %(limit)s;

-- name: shareless
-- Queues that are fair, and have pending rows of no share, which go before all that have one; a step of the index for
-- each priority.
WITH RECURSIVE found (queue, priority) AS (
    SELECT name, (SELECT max(priority) FROM {schema}.jobs WHERE state = 'pending' AND jobs.queue = fair.name)
    FROM (SELECT name COLLATE "default" AS name FROM {schema}.queues WHERE fair = 1) AS fair
    UNION ALL
    SELECT queue, (SELECT max(jobs.priority) FROM {schema}.jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority < found.priority)
    FROM found WHERE priority IS NOT NULL)
SELECT DISTINCT queue FROM found WHERE priority IS NOT NULL AND (SELECT turn = 0 AND share IS NULL FROM {schema}.jobs
        WHERE state = 'pending' AND jobs.queue = found.queue AND jobs.priority = found.priority
        ORDER BY turn, id LIMIT 1)
ORDER BY queue LIMIT %(limit)s;

-- name: promote_fair
-- What `promote` does where queues are fair: a job of a share gets a turn, unless it has one that is still to come.
WITH due AS (SELECT id, queue, priority, share, weight, run_at, turn FROM {schema}.jobs
    WHERE state = 'scheduled' AND run_at <= {schema}.clock() ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
seen AS (SELECT these.*, 1048576::bigint / coalesce(weight, 1) AS step, {out_of_line} AS anew FROM due AS these),
based AS (SELECT id, queue, priority, share, run_at, turn, step, anew, CASE WHEN anew AND row_number() OVER line = 1
        THEN nullif({schema}.fair_turn(queue, priority, share, weight), 0) END AS base
    FROM seen WINDOW line AS (PARTITION BY queue, priority, share, anew ORDER BY run_at, id)),
given AS (SELECT id, CASE WHEN anew THEN coalesce({turn_in_line}, 0) ELSE turn END AS turn
    FROM based WINDOW line AS (PARTITION BY queue, priority, share, anew ORDER BY run_at, id))
UPDATE {schema}.jobs SET state = 'pending', turn = given.turn FROM given WHERE jobs.id = given.id
RETURNING jobs.id, false;

-- name: promote_fair_and_tell
-- The same, told to those who follow.
WITH due AS (SELECT id, queue, priority, share, weight, run_at, turn FROM {schema}.jobs
    WHERE state = 'scheduled' AND run_at <= {schema}.clock() ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
seen AS (SELECT these.*, 1048576::bigint / coalesce(weight, 1) AS step, {out_of_line} AS anew FROM due AS these),
based AS (SELECT id, queue, priority, share, run_at, turn, step, anew, CASE WHEN anew AND row_number() OVER line = 1
        THEN nullif({schema}.fair_turn(queue, priority, share, weight), 0) END AS base
    FROM seen WINDOW line AS (PARTITION BY queue, priority, share, anew ORDER BY run_at, id)),
given AS (SELECT id, CASE WHEN anew THEN coalesce({turn_in_line}, 0) ELSE turn END AS turn
    FROM based WINDOW line AS (PARTITION BY queue, priority, share, anew ORDER BY run_at, id)),
promoted AS (UPDATE {schema}.jobs SET state = 'pending', turn = given.turn FROM given WHERE jobs.id = given.id
    RETURNING jobs.id)
SELECT {schema}.tell(string_agg(id::text, ','), NULL, NULL) FROM promoted HAVING count(*) > 0;

-- name: succeed_many
-- Many runs that returned, in the order of the arrays. The state is written so that no partial index
-- matches: the planner takes the one of running rows for empty, and would read all of it for each row.
UPDATE {schema}.jobs SET state = 'succeeded', result = told.result::json, error = NULL,
    started_at = {schema}.clock() - (told.age + told.duration) * interval '1 ms',
    finished_at = {schema}.clock() - told.age * interval '1 ms',
    company = NULL, cpu_ms = told.cpu_ms, rss_bytes = told.rss_bytes
FROM unnest(%(job)s::bigint[], %(owner)s::bigint[], %(claim)s::bigint[], %(result)s::text[],
    %(age)s::bigint[], %(duration)s::bigint[], %(cpu_ms)s::bigint[], %(rss_bytes)s::bigint[])
    AS told (job, owner, claim, result, age, duration, cpu_ms, rss_bytes)
WHERE jobs.id = told.job AND jobs.state || '' = 'running' AND jobs.owner = told.owner
    AND jobs.claim = told.claim;

-- name: succeed_and_forget_many
-- The same where succeeded rows are not kept.
DELETE FROM {schema}.jobs USING unnest(%(job)s::bigint[], %(owner)s::bigint[], %(claim)s::bigint[])
    AS told (job, owner, claim)
WHERE jobs.id = told.job AND jobs.state || '' = 'running' AND jobs.owner = told.owner
    AND jobs.claim = told.claim AND jobs.special & 64 = 0;

-- name: add_attempt_many
-- The history of many unsuccessful runs, in the order of the arrays.
INSERT INTO {schema}.attempts ({attempt_columns})
SELECT told.job, told.attempt, told.owner, told.claim, outcome, error_type, message, traceback, host, pid,
    exit_code, signal, verdict,
    coalesce({schema}.clock() - (age + duration) * interval '1 ms', jobs.claimed_at),
    {schema}.clock() - age * interval '1 ms', stack, said, told.cpu_ms, told.rss_bytes
FROM unnest(%(job)s::bigint[], %(attempt)s::bigint[], %(owner)s::bigint[], %(claim)s::bigint[],
    %(outcome)s::text[], %(error_type)s::text[], %(message)s::text[], %(traceback)s::text[],
    %(host)s::text[], %(pid)s::bigint[], %(exit_code)s::bigint[], %(signal)s::text[],
    %(verdict)s::text[], %(age)s::bigint[], %(duration)s::bigint[], %(stack)s::text[], %(said)s::text[],
    %(cpu_ms)s::bigint[], %(rss_bytes)s::bigint[])
    WITH ORDINALITY AS told (job, attempt, owner, claim, outcome, error_type, message, traceback, host,
        pid, exit_code, signal, verdict, age, duration, stack, said, cpu_ms, rss_bytes, place)
LEFT JOIN {schema}.jobs ON jobs.id = told.job
ORDER BY place
ON CONFLICT (job, owner, claim) DO NOTHING;

-- name: keep_words_many
-- What many runs said that have succeeded.
INSERT INTO {schema}.attempts (job, attempt, owner, claim, outcome, host, pid, started_at, finished_at, said,
    cpu_ms, rss_bytes)
SELECT jobs.id, jobs.attempt, jobs.owner, jobs.claim, 'succeeded', told.host, told.pid, jobs.started_at,
    jobs.finished_at, told.said, jobs.cpu_ms, jobs.rss_bytes
FROM unnest(%(job)s::bigint[], %(owner)s::bigint[], %(claim)s::bigint[], %(host)s::text[],
    %(pid)s::bigint[], %(said)s::text[]) AS told (job, owner, claim, host, pid, said)
JOIN {schema}.jobs ON jobs.id = told.job AND jobs.state = 'succeeded' AND jobs.owner = told.owner
    AND jobs.claim = told.claim
ON CONFLICT (job, owner, claim) DO NOTHING;

-- name: progress_many
-- How far many running jobs have come.
UPDATE {schema}.jobs SET progress = told.progress::json
FROM unnest(%(job)s::bigint[], %(owner)s::bigint[], %(claim)s::bigint[], %(progress)s::text[])
    AS told (job, owner, claim, progress)
WHERE jobs.id = told.job AND jobs.state || '' = 'running' AND jobs.owner = told.owner
    AND jobs.claim = told.claim;

-- name: reserve
-- Ids for many rows that are to be enqueued together: their answer cannot be told apart by anything else.
-- As one text: rows of their own would cost as much as storing the jobs. And whether row security applies to
-- this role here, because COPY is refused then.
SELECT string_agg(nextval({jobs_id})::text, ','), row_security_active({jobs_table})
FROM generate_series(1, %(count)s::bigint);

-- name: copy
-- Many ordinary new jobs under reserved ids; the defaults of the table say the rest.
COPY {schema}.jobs (id, task, args, kwargs, queue, priority, attempts_max, policy, timeout_ms, memory_bytes,
    headers, parent)
FROM STDIN;

-- name: enqueue_alone
-- A new job by a statement that commits by itself; what its client does not know comes back.
INSERT INTO {schema}.jobs (task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, nonce, created_at)
SELECT %(task)s, %(args)s::json, %(kwargs)s::json, %(queue)s, %(priority)s,
    CASE WHEN due > {schema}.clock() THEN 'scheduled' ELSE 'pending' END,
    due, %(attempts_max)s, %(policy)s::json, %(timeout_ms)s, %(memory_bytes)s, %(unique_key)s,
    due + %(expires_in_ms)s::bigint * interval '1 ms', %(headers)s::json, %(parent)s::bigint, %(nonce)s,
    {schema}.clock()
FROM (SELECT coalesce({schema}.moment(%(run_at_ms)s::bigint), {schema}.clock())
    + %(run_in_ms)s::bigint * interval '1 ms' AS due) AS times
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING id, state, {schema}.ms(run_at), {schema}.ms(created_at), {schema}.ms(expires_at),
    CASE WHEN unique_key IS NOT NULL THEN {schema}.refuse_held(unique_key) END;

-- name: enqueue_alone_ordinary
-- The same of a job without a key, a time or an end: without ON CONFLICT, which inserts provisionally and
-- writes a second record to the server's log to confirm it. The defaults of the table say the rest.
INSERT INTO {schema}.jobs (task, args, kwargs, queue, priority, attempts_max, policy, timeout_ms,
    memory_bytes, headers, parent, nonce)
VALUES (%(task)s, %(args)s::json, %(kwargs)s::json, %(queue)s, %(priority)s, %(attempts_max)s,
    %(policy)s::json, %(timeout_ms)s, %(memory_bytes)s, %(headers)s::json, %(parent)s::bigint, %(nonce)s)
RETURNING id, state, {schema}.ms(run_at), {schema}.ms(created_at), NULL;

-- name: enqueued_alone
-- The job that was enqueued under a nonce, among the newest: nobody looks for an old one.
SELECT id FROM (SELECT id, nonce FROM {schema}.jobs ORDER BY id DESC LIMIT 1000000) AS newest
WHERE nonce = %(nonce)s LIMIT 1;

-- name: enqueue_many
-- Many new jobs under reserved ids; the ids that come back are those whose unique key was free.
INSERT INTO {schema}.jobs (id, task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, created_at)
SELECT id, task, args::json, kwargs::json, queue, priority,
    CASE WHEN due > {schema}.clock() THEN 'scheduled' ELSE 'pending' END,
    due, attempts_max, policy::json, timeout_ms, memory_bytes, unique_key,
    due + expires_in_ms * interval '1 ms', headers::json, parent, {schema}.clock()
FROM unnest(%(id)s::bigint[], %(task)s::text[], %(args)s::text[], %(kwargs)s::text[], %(queue)s::text[],
    %(priority)s::bigint[], %(run_at_ms)s::bigint[], %(run_in_ms)s::bigint[],
    %(attempts_max)s::bigint[], %(policy)s::text[], %(timeout_ms)s::bigint[],
    %(memory_bytes)s::bigint[], %(unique_key)s::text[], %(expires_in_ms)s::bigint[],
    %(headers)s::text[], %(parent)s::bigint[])
    AS told (id, task, args, kwargs, queue, priority, run_at_ms, run_in_ms, attempts_max, policy,
        timeout_ms, memory_bytes, unique_key, expires_in_ms, headers, parent),
    LATERAL (SELECT coalesce({schema}.moment(run_at_ms), {schema}.clock())
        + run_in_ms * interval '1 ms' AS due) AS times
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING id;

-- name: enqueue_many_on_terms
-- The same of many of which some are on terms, in the order of the arrays. The turns of a share come one step
-- behind each other.
INSERT INTO {schema}.jobs (id, task, args, kwargs, queue, priority, state, run_at, attempts_max, policy,
    timeout_ms, memory_bytes, unique_key, expires_at, headers, parent, {term_columns}, created_at)
SELECT id, task, args::json, kwargs::json, queue, priority,
    CASE WHEN due > {schema}.clock() THEN 'scheduled' ELSE 'pending' END,
    due, attempts_max, policy::json, timeout_ms, memory_bytes, unique_key,
    coalesce({schema}.moment(expires_at_ms), due + expires_in_ms * interval '1 ms'), headers::json, parent, special,
    coalesce({turn_in_line}, 0), limit_key, share, weight, debounce_ms,
    coalesce({schema}.moment(deadline_at_ms), due + deadline_in_ms * interval '1 ms'), keep::json, {schema}.clock()
FROM (SELECT id, task, args, kwargs, queue, priority, due, attempts_max, policy, timeout_ms, memory_bytes,
        unique_key, expires_in_ms, headers, parent, special, limit_key, share, weight, debounce_ms, deadline_in_ms,
        deadline_at_ms, expires_at_ms, keep, number, 1048576::bigint / coalesce(weight, 1) AS step,
        CASE WHEN due <= {schema}.clock() AND share IS NOT NULL
        AND row_number() OVER line = 1 THEN nullif({schema}.fair_turn(queue, priority::integer, share, weight::integer), 0) END AS base
    FROM unnest(%(id)s::bigint[], %(task)s::text[], %(args)s::text[], %(kwargs)s::text[], %(queue)s::text[],
        %(priority)s::bigint[], %(run_at_ms)s::bigint[], %(run_in_ms)s::bigint[],
        %(attempts_max)s::bigint[], %(policy)s::text[], %(timeout_ms)s::bigint[],
        %(memory_bytes)s::bigint[], %(unique_key)s::text[], %(expires_in_ms)s::bigint[],
        %(headers)s::text[], %(parent)s::bigint[], %(special)s::bigint[], %(limit_key)s::text[],
        %(share)s::text[], %(weight)s::bigint[], %(debounce_ms)s::bigint[], %(deadline_in_ms)s::bigint[],
        %(deadline_at_ms)s::bigint[], %(expires_at_ms)s::bigint[], %(keep)s::text[])
        WITH ORDINALITY AS told (id, task, args, kwargs, queue, priority, run_at_ms, run_in_ms, attempts_max, policy,
            timeout_ms, memory_bytes, unique_key, expires_in_ms, headers, parent, special, limit_key, share,
            weight, debounce_ms, deadline_in_ms, deadline_at_ms, expires_at_ms, keep, number),
        LATERAL (SELECT coalesce({schema}.moment(run_at_ms), {schema}.clock())
            + run_in_ms * interval '1 ms' AS due) AS times
    WINDOW line AS (PARTITION BY queue, priority, share, due > {schema}.clock() ORDER BY number)) AS based
WINDOW line AS (PARTITION BY queue, priority, share, due > {schema}.clock() ORDER BY number)
ORDER BY number
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running') DO NOTHING
RETURNING id;

-- name: holders
-- Who holds each of some unique keys (a JSON list), as far as somebody does.
SELECT unique_key, id FROM {schema}.jobs
WHERE unique_key = ANY (ARRAY(SELECT json_array_elements_text(%(keys)s::json))) AND unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running')
UNION ALL
SELECT uniques.key, jobs.id FROM {schema}.uniques JOIN {schema}.jobs ON jobs.id = uniques.job
WHERE uniques.key = ANY (ARRAY(SELECT json_array_elements_text(%(keys)s::json))) AND {holds};

-- name: requeue_order
-- Those of some jobs (a JSON list) that are finished, held from here on, with the keys that they come back under.
SELECT id, coalesce(unique_key, held_key) FROM {schema}.jobs
WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(jobs)s::json)::bigint))
    AND state IN ('failed', 'cancelled', 'succeeded')
ORDER BY id FOR UPDATE;

-- name: wake
-- Whoever waits for a pending row is told at the commit, at most every 5 ms.
SELECT {schema}.wake();

-- name: skip_ids
-- Ids up to this one are given to nobody any more; seen by all at once, whatever becomes of the transaction.
-- They are drawn, and not set: what another session draws between the look and the setting would be given
-- out again. Only a gap is jumped over that nobody draws ids enough for in that instant.
SELECT CASE WHEN missing <= 1000000
    THEN (SELECT count(nextval({jobs_id})) FROM generate_series(1, missing))
    ELSE setval({jobs_id}, %(greatest)s) END
FROM (SELECT %(greatest)s - last_value - is_called::integer + 1 AS missing FROM {schema}.jobs_id_seq) AS seen
WHERE missing > 0;

-- name: place
-- What was just claimed and has a limit gets a place of it, or waits: see the function. As few as this a turn
-- asks that claims none: a probe of an index with the rows of nobody else.
SELECT placed.* FROM (SELECT 1 WHERE %(paused)s::text[] <> '{{}}' OR EXISTS (SELECT 1 FROM {schema}.jobs
    WHERE limit_key IS NOT NULL AND state = 'running' AND owner = %(owner)s AND claim = %(claim)s)) AS limited,
    LATERAL {schema}.place(%(owner)s, %(claim)s, %(lanes)s, %(batch)s, %(paused)s::text[]) AS placed;

-- name: admit
-- Rows parked for these keys may be claimed, as many as have a place: see the function.
SELECT {schema}.admit(%(keys)s::text[], %(waits)s::boolean);

-- name: admit_due
-- The same of the keys whose moment has come.
SELECT {schema}.admit(ARRAY(SELECT key FROM {schema}.limit_keys
    WHERE next_at IS NOT NULL AND next_at <= {schema}.clock() ORDER BY next_at LIMIT %(limit)s), false);
