"""Procrastinate on psycopg, its jobs run by the loop, ten at a time."""

from __future__ import annotations

import sys
from typing import Any

import procrastinate
import psycopg

from tests.bench.peers import job
from tests.bench.peers.peer import Peer, module

CONCURRENCY = 10  # of one process; more gains nothing for jobs that wait for nothing
ROWS_AT_ONCE = 5_000
LEFT = "SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"


def _made(app: procrastinate.App) -> dict[str, Any]:
    async def noop() -> None:
        job.noop()

    async def stamp() -> None:
        job.stamp()

    return {
        function.__name__: app.task(name=function.__name__)(function) for function in (noop, stamp)
    }


class Procrastinate(Peer):
    """Each worker is one process with one loop."""

    name = "Procrastinate"
    jobs = 5_000

    def prepare(self) -> None:
        connector = procrastinate.SyncPsycopgConnector(conninfo=self.url)
        self._app = procrastinate.App(connector=connector)
        self._tasks = _made(self._app)
        self._app.open()
        self._app.schema_manager.apply_schema()
        self._watcher = psycopg.connect(self.url, autocommit=True)

    def enqueue(self, job: str) -> None:
        self._tasks[job].defer()

    def enqueue_many(self, number: int) -> bool:
        for start in range(0, number, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, number - start)
            self._tasks["noop"].batch_defer(*({} for _ in range(rows)))
        return True

    def is_left(self) -> bool:
        return bool(self._watcher.execute(LEFT).fetchall()[0][0])

    def commands(self, processes: int) -> list[list[str]]:
        return [module("procrastinate_peer", self.url) for _ in range(processes)]

    def close(self) -> None:
        self._app.close()
        self._watcher.close()


def _work(url: str) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    _made(app)
    app.run_worker(concurrency=CONCURRENCY)


if __name__ == "__main__":
    _work(sys.argv[1])
