"""Huey on SQLite, with fsync: an acknowledged job survives a power cut, as with the others."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

from huey import SqliteHuey

from tests.bench.peers import job
from tests.bench.peers.peer import Peer

FILE_VARIABLE = "HUEY_FILE"


def _made(path: str) -> tuple[Any, dict[str, Any]]:
    huey = SqliteHuey("bench", filename=path, fsync=True, results=False)
    return huey, {name: huey.task()(getattr(job, name)) for name in ("noop", "stamp")}


if FILE_VARIABLE in os.environ:  # the consumer imports this module for its `huey`
    huey, _tasks = _made(os.environ[FILE_VARIABLE])


class Huey(Peer):
    """Two processes, each looking every millisecond: nothing wakes them on SQLite."""

    name = "Huey"
    jobs = 10_000

    def prepare(self) -> None:
        self._path = self.url.removeprefix("sqlite:///")
        self._huey, self._tasks = _made(self._path)

    def enqueue(self, job: str) -> None:
        self._tasks[job]()

    def enqueue_many(self, number: int) -> bool:
        for _ in range(number):
            self._tasks["noop"]()
        return False

    def is_left(self) -> bool:
        connection = sqlite3.connect(self._path, timeout=10)
        found = connection.execute("SELECT EXISTS (SELECT 1 FROM task)").fetchone()
        connection.close()
        return bool(found[0])

    def environ(self) -> dict[str, str]:
        return {FILE_VARIABLE: self._path}

    def commands(self, processes: int) -> list[list[str]]:
        consumer = str(Path(sys.executable).parent / "huey_consumer")
        settings = ["-k", "process", "-w", str(processes), "-d", "0.001", "-m", "0.001", "-b", "1"]
        quiet = ["-q", "--no-periodic"]
        return [[consumer, "tests.bench.peers.huey_peer.huey", *settings, *quiet]]

    def close(self) -> None:
        self._huey.storage.close()
