"""A database with many rows of every kind: parked, scheduled, expired, of one share and many, held by key."""

from __future__ import annotations

import re

from tests.store.database import Database, PostgresDatabase

HOUR = 3_600_000

_PLAIN = {"task": "'app:f'", "queue": "'default'", "state": "'pending'", "run_at": "moment(:now - 5000)",
          "created_at": "moment(:now - 9000000)"}  # fmt: skip
_OLD = {"finished_at": "moment(:now - 7200000 + i % 1000)"}

#: How many of each 24 rows are of which kind, and what they have; `i` counts them.
KINDS: list[tuple[int, dict[str, str]]] = [
    (2, {"state": "'succeeded'", **_OLD}),
    (3, {"state": "'succeeded'", **_OLD, "special": "64", "keep": """'{"succeeded": 1}'""",
         "held_key": "'key ' || i", "held_until": "moment(:now + 3600000 + i)"}),
    (1, {"state": "'succeeded'", **_OLD, "special": "64", "keep": """'{"succeeded": 9000000000}'"""}),
    (1, {"state": "'failed'", **_OLD, "error": "'ValueError: no'"}),
    (2, {"state": "'cancelled'", **_OLD, "queue": "'fair'", "share": "'gone'"}),
    (2, {"state": "'blocked'", "parked": "'limit:big'", "limit_key": "'big'", "special": "1"}),
    (1, {"state": "'blocked'", "parked": "'limit:each:' || i", "limit_key": "'each:' || i", "special": "1"}),
    (2, {"state": "'blocked'", "parked": "'task:app:paused'", "task": "'app:paused'", "queue": "'still'"}),
    (1, {"limit_key": "'big'", "special": "1"}),
    (2, {"state": "'scheduled'", "run_at": "moment(:now + 3600000 + i)",
         "expires_at": "moment(:now + 7200000 + i)"}),
    (1, {"state": "'scheduled'", "run_at": "moment(:now - 5000 - i % 100)", "queue": "'fair'",
         "share": "'late'"}),
    (1, {"queue": "'fair'", "share": "'tenant'", "turn": "(i + 1) * 1048576"}),
    (1, {"queue": "'wide'", "share": "'tenant ' || i", "turn": "(i + 1) * 1048576"}),
    (1, {"queue": "'fair'"}),
    (1, {"queue": "'once'", "share": "'tenant'", "turn": "(i + 1) * 1048576"}),
    (1, {"queue": "'past'", "expires_at": "moment(:now - 5000 - i % 1000)"}),
    (1, {"queue": "'past'", "deadline_at": "moment(:now - 5000 - i % 1000)", "special": "16"}),
]  # fmt: skip

PLACED, CLAIMED, DATED, FAIR = 8, 7, 9, 10
"""Owners of what runs: with places of a limit; without one yet; until a deadline; by turns."""
_BESIDE = f"""
INSERT INTO jobs (task, state, run_at, created_at, claimed_at, owner, claim, limit_key, limit_place, special)
    SELECT 'app:f', 'running', moment(:now), moment(:now), moment(:now), {PLACED}, 1, 'big', i, 1
    FROM count(5);
INSERT INTO jobs (task, state, run_at, created_at, claimed_at, owner, claim, limit_key, special)
    SELECT 'app:f', 'running', moment(:now), moment(:now), moment(:now), {CLAIMED}, 1, 'big', 1
    FROM count(8);
INSERT INTO jobs (task, state, run_at, created_at, claimed_at, owner, claim, deadline_at, special)
    SELECT 'app:f', 'running', moment(:now), moment(:now), moment(:now), {DATED}, 1, moment(:now + 500), 16
    FROM count(100);
INSERT INTO jobs (task, state, run_at, created_at, claimed_at, owner, claim, queue, share, turn)
    SELECT 'app:f', 'running', moment(:now), moment(:now), moment(:now), {FAIR}, 1, 'fair', 'tenant', i + 1
    FROM count(10);
INSERT INTO limits (name, concurrency, rate, per_ms, burst, source)
    VALUES ('big', 10, NULL, NULL, NULL, 'set'), ('each', 1, NULL, NULL, NULL, 'set'),
        ('rate', NULL, 10, 1000, 1, 'set');
INSERT INTO limit_keys (key, name) VALUES ('big', 'big');
INSERT INTO limit_keys (key, name) SELECT 'each:' || i, 'each' FROM count(:many);
INSERT INTO limit_keys (key, name, next_at)
    SELECT 'rate:' || i, 'rate', moment(:now - 5000 + i % 100) FROM count(:many);
INSERT INTO queues (name, fair) VALUES ('fair', 1), ('wide', 1);
INSERT INTO turns (queue, priority, turn, raised_at)
    VALUES ('fair', 0, 1, moment(:now)), ('wide', 0, 1, moment(:now)), ('once', 0, 1, moment(:now));
INSERT INTO tasks (name, told, seen_at, paused_at) VALUES ('app:paused', 'null', moment(:now), moment(:now));
INSERT INTO uniques (key, job, until)
    SELECT held_key, id, held_until FROM jobs WHERE held_key IS NOT NULL;
INSERT INTO schedules (name, task) SELECT 's' || i, 'app:f' FROM count(100);
INSERT INTO ticks (schedule, tick, job)
    SELECT 's' || i % 20, moment(:now - i * 1000), i FROM count(:many);
ANALYZE
"""


def fill(database: Database, rows: int) -> None:
    """About so many jobs, and what is kept of them beside; then the statistics know it."""
    for parts, told in KINDS:
        columns = {**_PLAIN, **told}
        _sql(
            database,
            f"INSERT INTO jobs ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            f" FROM count({rows * parts // 24})",
        )
    for statement in _BESIDE.replace(":many", str(rows // 24)).split(";"):
        _sql(database, statement)


def _sql(database: Database, statement: str) -> None:
    text = statement.replace(":now", str(database.clock.now_ms()))
    if isinstance(database, PostgresDatabase):
        text = re.sub(r"count\((\d+)\)", r"generate_series(0, \1::bigint - 1) AS n (i)", text)
        text = text.replace("""1}'""", """1}'::json""").replace("""000}'""", """000}'::json""")
    else:
        each = r"(WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < \1 - 1)"
        each += " SELECT i FROM n)"
        text = re.sub(r"count\((\d+)\)", each, text.replace("moment(", "("))
    database.sql(text)
