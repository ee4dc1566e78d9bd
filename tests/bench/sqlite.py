"""SQLite under measurement; its bare loop is the standard library's module and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from jobvisor.jobs.clock import SYSTEM
from tests.bench.database import BATCH, Database
from tests.bench.processes import together

CLAIM = """
UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?, claim = ?, claimed_at = ?
WHERE id IN (SELECT id FROM jobs WHERE state = 'pending' AND queue = 'default'
    ORDER BY priority DESC, turn, id LIMIT ?)
RETURNING id, task, args, kwargs
"""
SETTLE = """
UPDATE jobs SET state = 'succeeded', finished_at = ?
WHERE id = ? AND state = 'running' AND owner = ? AND claim = ?
"""
ROWS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO jobs (task, state, priority, run_at, finished_at, owner, claim)
SELECT 'app:noop', :state, :priority, :run_at, :finished_at, :owner, 1 FROM n
"""


class Sqlite(Database):
    """One file."""

    is_server = False

    def __init__(self, folder: Path) -> None:
        self._path = folder / "jobs.db"
        self.url = f"sqlite:///{self._path}"

    def bare_loop(self, processes: int) -> float:
        """Settle the last batch and claim the next in one transaction.

        On the migrated table, WAL and synchronous=NORMAL as the workers have it.
        """
        return together(processes, self._bare)

    def _bare(self, owner: int) -> Callable[[], None]:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.execute("PRAGMA synchronous = NORMAL")

        def loop() -> None:
            claim = 0
            rows: list[tuple[int, str, str, str]] = []
            while True:
                claim += 1
                now = SYSTEM.now_ms()
                connection.execute("BEGIN IMMEDIATE")
                if rows:
                    settled = [(now, row[0], owner, claim - 1) for row in rows]
                    connection.executemany(SETTLE, settled)
                rows = connection.execute(CLAIM, (owner, claim, now, BATCH)).fetchall()
                connection.execute("COMMIT")
                if not rows:
                    return

        return loop

    def insert(self, task: str) -> tuple[int, int]:
        connection = sqlite3.connect(self._path, timeout=10)
        with connection:
            number = connection.execute("INSERT INTO jobs (task) VALUES (?)", (task,)).lastrowid
        returned = SYSTEM.monotonic_ns()
        connection.close()
        return number or 0, returned

    def fill(self, pending: int, scheduled: int, finished: int) -> None:
        now = SYSTEM.now_ms()
        connection = sqlite3.connect(self._path, isolation_level=None)
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
                connection.execute(ROWS, values)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def is_pending(self) -> bool:
        connection = sqlite3.connect(self._path, timeout=10)
        query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'pending' AND queue = 'default')"
        found = connection.execute(query).fetchone()[0]
        connection.close()
        return bool(found)

    def connections(self, pids: Sequence[int]) -> int:
        found = 0
        for pid in pids:
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    found += file.readlink() == self._path
        return found

    def span(self) -> float:
        connection = sqlite3.connect(self._path)
        query = "SELECT min(claimed_at), max(finished_at) FROM jobs"
        first, last = connection.execute(query).fetchone()
        connection.close()
        return float(last - first) / 1000
