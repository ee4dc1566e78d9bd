"""How fast jobs are enqueued: one by one (each durable when it returns), and in bulk."""

from __future__ import annotations

from collections.abc import Callable

from jobvisor.jobs.clock import SYSTEM
from tests.bench.database import Enqueuer
from tests.bench.place import Places
from tests.bench.processes import together

WARM = 10  # calls before the clock runs: connected, and the statements prepared


def run(places: Places, single: int, bulk: int, clients: int) -> None:
    """Print the rate of each way, alone and on a server in a crowd, and that of one call for all."""
    with places.fresh() as where, where.database.audience():
        ways = where.database.ways()
        for name, way in ways.items():
            print(f"one by one, {name}: {single / together(1, _caller(way, single)):,.0f} jobs/s")
        if where.database.is_server:
            for name, way in ways.items():
                took = together(clients, _caller(way, single))
                print(
                    f"one by one, {clients} clients at once, {name}: "
                    f"{clients * single / took:,.0f} jobs/s"
                )
        began = SYSTEM.monotonic_ns()
        where.fill(bulk)
        took = (SYSTEM.monotonic_ns() - began) / 1e9
        print(f"in bulk ({bulk:,} in one transaction): {bulk / took:,.0f} jobs/s")


def _caller(way: Enqueuer, jobs: int) -> Callable[[int], Callable[[], None]]:
    def prepare(_number: int) -> Callable[[], None]:
        enqueue = way()
        for _ in range(WARM):
            enqueue()

        def call() -> None:
            for _ in range(jobs):
                enqueue()

        return call

    return prepare
