"""The page of the queues: who serves each, how much waits in it, and what became of its jobs lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.annals import QUEUE, Sums
from jobvisor.jobs.found import Tally
from jobvisor.jobs.job import State
from jobvisor.supervisor.web.pages.attention import LATE_S
from jobvisor.supervisor.web.pages.standing import Standing, standing
from jobvisor.supervisor.web.pages.templates import show
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)

STATES = tuple(
    state.value
    for state in (State.PENDING, State.RUNNING, State.SCHEDULED, State.BLOCKED, State.FAILED)
)
SELDOM = State.BLOCKED.value
"""It has a column where there is such a job."""

LATELY = "1h"
"""By the hours of the clock: the sums begin with the one before this."""

Oldest = dict[str, float]
Lately = dict[str, tuple[int, int]]


@router.get("/queues", name="pages.queues")
def queues_page(request: Request, site: Here) -> Response:
    """All that are served, or have jobs."""
    client, family = site.client, standing(site)
    tally, oldest = client.tally(), client.latencies()
    lately = _by_queue(client.stats(LATELY, step=LATELY, by_queue=True))
    fair, shared = set(client.fair_queues()), set(client.shares_in_vain())
    paused = {each.name: each for each in client.paused() if each.kind == QUEUE}
    names = sorted({*family.queues, *tally.queues, *oldest, *lately, *paused, *fair})
    told = [
        {
            **_queue(name, family, tally, oldest, lately),
            "paused": paused.get(name),
            "fair": name in fair,
            "shared": name in shared,
        }
        for name in names
    ]
    return show(
        request,
        "queues.html",
        at="queues",
        queues=told,
        states=[each for each in STATES if each != SELDOM or _has(told, each)],
        how_counted=_how(tally),
    )


def _has(queues: Iterable[Mapping[str, Any]], state: str) -> bool:
    return any(queue["counts"][state] for queue in queues)


def _by_queue(sums: Iterable[Sums]) -> dict[str, tuple[int, int]]:
    """How many of each queue were done, and how many failed for good."""
    found: dict[str, tuple[int, int]] = {}
    for each in sums:
        done, failed = found.get(each.queue, (0, 0))
        found[each.queue] = done + each.succeeded, failed + each.failed
    return found


def _queue(
    name: str, family: Standing, tally: Tally, oldest: Oldest, lately: Lately
) -> dict[str, Any]:
    seconds, (done, failed) = oldest.get(name), lately.get(name, (0, 0))
    counts = tally.queues.get(name, {})
    return {
        "name": name,
        "pools": family.pools_of(name),
        "counts": {
            state: _count(counts.get(state, 0), state in tally.at_least) for state in STATES
        },
        "oldest": seconds,
        "late": seconds is not None and seconds >= LATE_S,
        "done": done,
        "failed": failed,
    }


def _count(number: int, at_least: bool) -> str:
    return f"{number:,}{'+' if at_least else ''}" if number else ""


def _how(tally: Tally) -> str:
    if not tally.at_least:
        return "Every job is counted."
    return "A + says that there are more: counting ends at a limit, so that no page reads a whole table."
