"""PgQueuer on asyncpg and uvloop, in batches of 500."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
import psycopg
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from tests.bench.peers import job
from tests.bench.peers.peer import Peer, module

BATCH = 500  # beyond it nothing is gained
ROWS_AT_ONCE = 20_000

T = TypeVar("T")


class Pgqueuer(Peer):
    """Each worker is one process with one loop."""

    name = "PgQueuer"
    jobs = 50_000

    def prepare(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._connection = self._wait(asyncpg.connect(self.url))
        self._queries = Queries(AsyncpgDriver(self._connection))
        self._wait(self._queries.install())
        self._watcher = psycopg.connect(self.url, autocommit=True)

    def _wait(self, awaited: Coroutine[Any, Any, T]) -> T:
        found: T = self._loop.run_until_complete(awaited)
        return found

    def enqueue(self, job: str) -> None:
        self._wait(self._queries.enqueue(job, None))

    def enqueue_many(self, number: int) -> bool:
        for start in range(0, number, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, number - start)
            self._wait(self._queries.enqueue(["noop"] * rows, [None] * rows, [0] * rows))
        return True

    def is_left(self) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM pgqueuer)"
        return bool(self._watcher.execute(query).fetchall()[0][0])

    def commands(self, processes: int) -> list[list[str]]:
        return [module("pgqueuer_peer", self.url) for _ in range(processes)]

    def close(self) -> None:
        self._wait(self._connection.close())
        self._loop.close()
        self._watcher.close()


async def _work(url: str) -> None:
    queue = PgQueuer.from_asyncpg_connection(await asyncpg.connect(url))

    async def noop(_job: Job) -> None:
        job.noop()

    async def stamp(_job: Job) -> None:
        job.stamp()

    queue.entrypoint("noop")(noop)
    queue.entrypoint("stamp")(stamp)
    await queue.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=5))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(sys.argv[1]))
