"""How fast claims are in a table of four million rows, beside an almost empty one."""

from __future__ import annotations

import secrets
import sqlite3
import statistics

from jobs.clock import SYSTEM
from jobs.identity import HOST, Identity
from jobs.outcome import VERB_CODES
from jobs.store import Life, Record, open_store
from tests.bench.place import Place, place

BATCH = 100

_ROWS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO jobs (task, state, priority, run_at, finished_at, owner, claim)
SELECT 'app:noop', :state, :priority, :run_at, :finished_at, :owner, 1 FROM n
"""


def run(million: int, turns: int, rounds: int) -> None:
    """Print the rates and their ratio; `million` scales the rows down for a quick look."""
    with place() as deep, place() as flat:
        _fill(flat, turns * rounds * BATCH, 0, 0)
        _fill(deep, million, million, 2 * million)
        ratios = []
        for _ in range(rounds):
            shallow_rate, deep_rate = _rate(flat, turns), _rate(deep, turns)
            ratios.append(deep_rate / shallow_rate)
            print(
                f"  almost empty {shallow_rate:9,.0f} jobs/s   {million:,} pending + {million:,} "
                f"scheduled + {2 * million:,} finished {deep_rate:9,.0f} jobs/s   "
                f"ratio {ratios[-1]:.2f}"
            )
        print(f"median ratio {statistics.median(ratios):.2f}")


def _fill(where: Place, pending: int, scheduled: int, finished: int) -> None:
    where.client.close()
    now = SYSTEM.now_ms()
    connection = sqlite3.connect(where.folder / "jobs.db", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    ahead = now + 86_400_000
    for rows, state, priority, run_at, finished_at in (
        (finished, "succeeded", 0, now, now),
        (scheduled, "scheduled", 10, ahead, None),
        (pending, "pending", 0, now, None),
    ):
        if rows:
            values = {
                "rows": rows, "state": state, "priority": priority, "run_at": run_at,
                "finished_at": finished_at, "owner": 1 if finished_at else None,
            }  # fmt: skip
            connection.execute(_ROWS, values)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _rate(where: Place, turns: int) -> float:
    """Claims and settles through the store, as a worker does it, for a number of turns."""
    store = open_store(where.url, durable=False)
    life = Life(secrets.randbits(62), 0, "bench", HOST, *Identity.mine())
    journal: list[Record] = []
    began = SYSTEM.monotonic_ns()
    for claim in range(1, turns + 1):
        turn = store.turn(life, claim, queues=["default"], limit=BATCH, journal=journal)
        journal = [
            Record(life.owner, claim, job.id, job.attempt, VERB_CODES["succeed"], 0, 0, 0, b"")
            for job in turn.jobs
        ]
    store.apply(journal, life)
    took = (SYSTEM.monotonic_ns() - began) / 1e9
    store.close()
    return turns * BATCH / took
