"""The first page: whether all is well, what needs attention, and how it went lately."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.found import Tally
from jobvisor.supervisor.web.pages.attention import LATE_S, attention
from jobvisor.supervisor.web.pages.charts import RANGES, charts
from jobvisor.supervisor.web.pages.failures import shown
from jobvisor.supervisor.web.pages.standing import Standing, standing
from jobvisor.supervisor.web.pages.templates import path, show
from jobvisor.supervisor.web.pages.words import brief
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False)

SHOWN = 6
"""Of the queues that wait, and of the groups of failures."""

SCHEDULES_MAX = 1_000

TILES = ("pending", "running", "scheduled", "blocked", "failed", "succeeded", "cancelled")
SELDOM = "blocked"
"""It has a tile where there is such a job."""


@router.get("/", name="pages.overview")
def overview_page(request: Request, site: Here) -> Response:
    """All that an operator wants to know first."""
    url = partial(path, request)
    wanted = request.query_params.get("range", "")
    name = wanted if wanted in RANGES else "1h"
    span = RANGES[name]
    client, now = site.client, SYSTEM.now_ms()
    family, oldest = standing(site), client.latencies()
    failures = client.failures(limit=SHOWN).groups
    return show(
        request,
        "overview.html",
        at="overview",
        family=family if family.known else None,
        ranges=[(key, each.word) for key, each in RANGES.items()],
        range=name,
        range_words=span.word,
        attention=attention(
            family,
            oldest=oldest,
            families=client.families(),
            failures=failures,
            tasks=_tasks_of_deaths(site, family),
            paused=client.paused(),
            url=url,
            schedules=client.schedules.list(limit=SCHEDULES_MAX),
            unknown_limits=client.limits.unknown(most=SHOWN),
        ),
        calm=_calm(family, oldest),
        tiles=_tiles(client.tally(), oldest, url),
        charts=charts(client.stats(f"{span.minutes}m", step=f"{span.bucket}m"), span, now),
        queues=_queues(family, oldest),
        failures=[shown(each, url) for each in failures],
    )


def _tasks_of_deaths(site: Site, family: Standing) -> dict[int, str]:
    jobs = {int(each["job"]) for each in family.deaths if each.get("job")}
    return {number: job.task for number, job in site.client.get_many(jobs).items()}


def _calm(family: Standing, oldest: Mapping[str, float]) -> str:
    waits = f"no queue has waited for longer than {brief(LATE_S)}" if oldest else "nothing waits"
    return f"{'the family is well, ' if family.known else ''}{waits}."


def _tiles(tally: Tally, oldest: Mapping[str, float], url: Any) -> list[dict[str, str]]:
    there = {
        state for states in tally.queues.values() for state, number in states.items() if number
    }
    return [
        _tile(tally, state, oldest, url) for state in TILES if state != SELDOM or state in there
    ]


def _tile(tally: Tally, state: str, oldest: Mapping[str, float], url: Any) -> dict[str, str]:
    number = sum(states.get(state, 0) for states in tally.queues.values())
    under, kind = "", ""
    if state == "pending" and oldest:
        longest = max(oldest.values())
        under = f"oldest waits {brief(longest)}"
        kind = "warn" if longest >= LATE_S else ""
    if state == "failed" and number:
        kind = "bad"
    return {
        "word": state.capitalize(),
        "value": f"{number:,}{'+' if state in tally.at_least else ''}",
        "under": under,
        "kind": kind,
        "link": f"{url('jobs')}?{urlencode({'state': state})}",
    }


def _queues(family: Standing, oldest: Mapping[str, float]) -> list[dict[str, Any]]:
    longest = sorted(oldest.items(), key=lambda each: -each[1])[:SHOWN]
    return [
        {
            "name": queue,
            "oldest": seconds,
            "late": seconds >= LATE_S,
            "pools": family.pools_of(queue),
        }
        for queue, seconds in longest
    ]
