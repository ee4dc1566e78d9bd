"""How long it takes to find, count and group jobs among a million: what a page of the site asks."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from jobvisor import Client, Filter
from jobvisor.jobs.clock import SYSTEM, to_datetime
from tests.bench.place import Places, quantile
from tests.bench.web_rows import fill

SLOW_MS = 100  # what the 95th of a hundred answers may take


def run(places: Places, rows: int, requests: int) -> None:
    """Print the median and the 95th of a hundred of each question, of two tables."""
    for name, old in (("mixed", False), ("the unsuccessful and the waiting are the oldest", True)):
        with places.fresh() as where:
            fill(where, rows, old=old)
            print(f"{rows:,} rows, {name}; {requests} requests of each")
            slowest = max(
                _timed(each, ask, requests) for each, ask in _asked(where.client, rows).items()
            )
            print(f"  slowest p95 {slowest:.1f} ms; it may be {SLOW_MS}")


def _asked(client: Client, rows: int) -> dict[str, Callable[[], Any]]:
    day = to_datetime(SYSTEM.now_ms()) - timedelta(days=1)
    filters: dict[str, Filter] = {
        "all": Filter(),
        **{
            state: Filter(state=state)
            for state in ("failed", "cancelled", "succeeded", "pending", "scheduled", "running")
        },
        "two states": Filter(state=("pending", "running")),
        "queue": Filter(queue="q7"),
        "no such queue": Filter(queue="none"),
        "task": Filter(task="app:t7"),
        "no such task": Filter(task="none"),
        "failed of a task": Filter(state="failed", task="app:t7"),
        "a group": Filter(state="failed", task="app:t7", error_type="app.Kind3"),
        "pending of a queue": Filter(state="pending", queue="q1"),
        "pending, no such task": Filter(state="pending", task="none"),
        "error": Filter(error="no route to host 1000"),
        "no such error": Filter(state="failed", error="none"),
        "text": Filter(text="7@example"),
        "no such text": Filter(text="none"),
        "since": Filter(since=day),
        "until": Filter(state="failed", until="10h"),
        "ids": Filter(ids=range(1, 10_000)),
    }
    deep = random.Random(7).randint(rows // 3, rows // 2)
    asked: dict[str, Callable[[], Any]] = {}
    for name, which in filters.items():
        asked[f"page: {name}"] = partial(client.page, which)
        asked[f"deep page: {name}"] = partial(client.page, which, before=deep)
        asked[f"count: {name}"] = partial(client.count, which)
    return asked | {
        "tally": client.tally,
        "failures": client.failures,
        "failures of an hour": lambda: client.failures(since="1h"),
        "a job": lambda: (client.get(deep), client.attempts(deep)),
        "latencies": client.latencies,
    }


def _timed(name: str, ask: Callable[[], Any], requests: int) -> float:
    times: list[float] = []
    answer: Any = None
    for _ in range(requests):
        began = SYSTEM.monotonic_ns()
        answer = ask()
        times.append((SYSTEM.monotonic_ns() - began) / 1e6)
    slow = quantile(times, 0.95)
    mark = "  SLOW" if slow > SLOW_MS else ""
    print(f"  p50 {quantile(times, 0.5):7.1f} ms  p95 {slow:7.1f} ms  {name}{_told(answer)}{mark}")
    return slow


def _told(answer: Any) -> str:
    if hasattr(answer, "looked"):
        return f": {len(answer.jobs)} of {answer.looked:,} looked at"
    if hasattr(answer, "at_least") and hasattr(answer, "number"):
        return f": {answer}"
    return f": {len(answer.groups)} groups" if hasattr(answer, "groups") else ""
