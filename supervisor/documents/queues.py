"""The queues: who serves them, how many of their jobs are in which state, and how long the oldest waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobvisor.jobs.annals import QUEUE
from jobvisor.jobs.client import Client

__all__ = ["queues_of", "served_by"]


def served_by(status: Mapping[str, Any]) -> list[str] | None:
    """The queues that a family serves, by its status; None where it does not say."""
    pools = status.get("serves")
    if not isinstance(pools, dict):
        return None
    return sorted({queue for queues in pools.values() for queue in queues})


def queues_of(client: Client, served: Iterable[str] | None) -> dict[str, Any]:
    """Each queue that is served, paused or has jobs, in the words of `jobvisor status --json --counts`.

    `served` is None where nobody knows. It takes no longer where more waits: counting ends at some
    thousands (of which states there may be more is in `at_least`), and the oldest is looked for among
    those of a queue that are claimed next.
    """
    tally, oldest = client.tally(), client.latencies()
    fair = set(client.fair_queues())
    paused = {each.name: each for each in client.paused() if each.kind == QUEUE}
    known = None if served is None else set(served)
    return {
        "queues": {
            queue: {
                "served": None if known is None else queue in known,
                "oldest_pending_ms": round(oldest[queue] * 1000) if queue in oldest else None,
                "fair": queue in fair,
                "paused": paused[queue].moments() if queue in paused else None,
                **tally.queues.get(queue, {}),
            }
            for queue in sorted({*(known or ()), *oldest, *tally.queues, *paused, *fair})
        },
        "at_least": sorted(tally.at_least),
    }
