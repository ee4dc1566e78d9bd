"""How fast jobs are enqueued: one by one (each durable when it returns), and in bulk."""

from __future__ import annotations

from jobs.clock import SYSTEM
from tests.bench.place import place


def run(single: int, bulk: int) -> None:
    """Print both rates."""
    with place() as where:
        began = SYSTEM.monotonic_ns()
        for _ in range(single):
            where.client.enqueue("app:noop")
        took = (SYSTEM.monotonic_ns() - began) / 1e9
        print(f"one by one, durability full: {single / took:,.0f} jobs/s")
        began = SYSTEM.monotonic_ns()
        where.fill(bulk)
        took = (SYSTEM.monotonic_ns() - began) / 1e9
        print(f"in bulk ({bulk:,} in one transaction): {bulk / took:,.0f} jobs/s")
