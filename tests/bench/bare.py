"""The bare loop every throughput is compared with: sqlite3, two processes, batches of 100.

Settle the last batch and claim the next in one transaction, on the migrated table, WAL and
synchronous=NORMAL as the workers have it. Nothing runs, nothing is remembered.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from jobs.clock import SYSTEM

BATCH = 100

CLAIM = """
UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?, claim = ?, claimed_at = ?
WHERE id IN (SELECT id FROM jobs WHERE state = 'pending' AND queue = 'default'
    ORDER BY priority DESC, id LIMIT ?)
RETURNING id, task, args, kwargs
"""
SETTLE = """
UPDATE jobs SET state = 'succeeded', finished_at = ?
WHERE id = ? AND state = 'running' AND owner = ? AND claim = ?
"""


def bare_loop(database: Path, processes: int = 2) -> float:
    """Seconds until all pending rows of a database are settled."""
    began = SYSTEM.monotonic_ns()
    children = [_fork(database, owner + 1) for owner in range(processes)]
    for pid in children:
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError("a process of the bare loop failed")
    return (SYSTEM.monotonic_ns() - began) / 1e9


def _fork(database: Path, owner: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _loop(database, owner)
            code = 0
        finally:
            os._exit(code)
    return pid


def _loop(database: Path, owner: int) -> None:
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
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
