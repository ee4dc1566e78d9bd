"""A table as a site meets it after a year: many queues and tasks, most jobs succeeded, some failed."""

from __future__ import annotations

import sqlite3

import psycopg

from tests.bench.place import Place

TASKS, QUEUES, KINDS = 50, 10, 20

SQLITE = f"""
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO jobs (task, queue, args, state, attempt, run_at, created_at, claimed_at, started_at,
    finished_at, owner, claim, result, error)
SELECT 'app:t' || (i % {TASKS}), 'q' || (i % {QUEUES}), '["' || i || '@example.org"]', state,
    CASE WHEN state = 'failed' THEN 4 WHEN finished THEN 1 ELSE 0 END,
    CASE WHEN state = 'scheduled' THEN at + 864000000 ELSE at END, at,
    CASE WHEN finished THEN at END, CASE WHEN finished THEN at END, CASE WHEN finished THEN at + 20 END,
    CASE WHEN finished THEN 1 END, CASE WHEN finished THEN i END,
    CASE WHEN state = 'succeeded' THEN '"done"' END,
    CASE WHEN state = 'failed' THEN 'app.Kind' || (i / 100 % {KINDS}) || ': no route to host ' || i END
FROM (SELECT i, :now - (:rows - i) * 100 AS at, part >= 5 AS finished,
        CASE WHEN part < 3 THEN 'pending' WHEN part < 5 THEN 'scheduled'
            WHEN part < 15 THEN 'failed' WHEN part < 16 THEN 'cancelled' ELSE 'succeeded' END AS state
    FROM (SELECT i, {{part}} AS part FROM n))
"""
POSTGRES = f"""
INSERT INTO jobvisor.jobs (task, queue, args, state, attempt, run_at, created_at, claimed_at, started_at,
    finished_at, owner, claim, result, error)
SELECT 'app:t' || (i %% {TASKS}), 'q' || (i %% {QUEUES}), json_build_array(i || '@example.org'), state,
    CASE WHEN state = 'failed' THEN 4 WHEN finished THEN 1 ELSE 0 END,
    CASE WHEN state = 'scheduled' THEN at + interval '10 days' ELSE at END, at,
    CASE WHEN finished THEN at END, CASE WHEN finished THEN at END,
    CASE WHEN finished THEN at + interval '20 ms' END,
    CASE WHEN finished THEN 1 END, CASE WHEN finished THEN i END,
    CASE WHEN state = 'succeeded' THEN '"done"'::json END,
    CASE WHEN state = 'failed' THEN 'app.Kind' || (i / 100 %% {KINDS}) || ': no route to host ' || i END
FROM (SELECT i, now() - (%(rows)s - i) * interval '100 ms' AS at, part >= 5 AS finished,
        CASE WHEN part < 3 THEN 'pending' WHEN part < 5 THEN 'scheduled'
            WHEN part < 15 THEN 'failed' WHEN part < 16 THEN 'cancelled' ELSE 'succeeded' END AS state
    FROM (SELECT i, {{part}} AS part FROM generate_series(1, %(rows)s) AS i) AS parts) AS states
"""
HISTORY = """
INSERT INTO {jobs}attempts (job, attempt, owner, claim, outcome, error_type, message, traceback, host, pid,
    started_at, finished_at)
SELECT id, 4, 1, claim, 'error', 'app.Kind' || (id / 100 % {kinds}), 'no route to host ' || id,
    'Traceback (most recent call last): ...', 'here', 4242, started_at, finished_at
FROM {jobs}jobs WHERE state = 'failed'
"""


def fill(where: Place, rows: int, *, old: bool = False) -> None:
    """So many rows, and the history of those that failed; `old`: all that did not succeed is older."""
    where.client.close()
    part = f"i * 100 / {rows + 1}" if old else "i % 100"
    if where.database.is_server:
        with psycopg.connect(where.url, autocommit=True) as server:
            server.execute(POSTGRES.format(part=part.replace("%", "%%")).encode(), {"rows": rows})
            server.execute(HISTORY.format(jobs="jobvisor.", kinds=KINDS).encode())
            server.execute("VACUUM (ANALYZE) jobvisor.jobs")
            server.execute("VACUUM (ANALYZE) jobvisor.attempts")
        where.database.tidy()
        return
    now = where.client._clock.now_ms()
    file = sqlite3.connect(where.url.removeprefix("sqlite:///"), isolation_level=None)
    file.execute("PRAGMA synchronous = OFF")
    file.execute(SQLITE.format(part=part), {"rows": rows, "now": now})
    file.execute(HISTORY.format(jobs="", kinds=KINDS))
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.close()
