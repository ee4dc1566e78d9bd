"""What there is to see beside single jobs: failures, tasks, queues, statistics, and who did what."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from jobvisor.supervisor.documents.queues import queues_of
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import QueueName, SinceText, moment_or_duration
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.shown import served_here
from jobvisor.supervisor.web.site import Here

router = APIRouter(prefix="/api/v1", tags=["looks"], dependencies=[Depends(exact_query)])

STEPS = {"1h": "1m", "24h": "15m"}

Cursor = Annotated[
    str | None, Query(pattern="^[0-9]{1,19}$", description="`next` of the page before.")
]


@router.get(
    "/failures",
    operation_id="list_failures",
    response_model=documents.Failures,
    responses=refusals(422),
)
def list_failures(
    site: Here, since: SinceText = None, limit: Annotated[int, Query(ge=1, le=1_000)] = 100
) -> Response:
    """The failed jobs in groups by task and type of error; that which failed last comes first."""
    found = site.client.failures(since=moment_or_duration("since", since), limit=limit)
    return answer(found.as_json())


@router.get(
    "/tasks", operation_id="list_tasks", response_model=documents.Tasks, responses=refusals()
)
def list_tasks(site: Here) -> Response:
    """The tasks that workers have told of in the last 30 days, with options, parameters and their types."""
    tasks = [site.hiding.described(each.as_json()) for each in site.directory.tasks().values()]
    return answer({"tasks": tasks})


@router.get(
    "/queues", operation_id="list_queues", response_model=documents.Queues, responses=refusals()
)
def list_queues(site: Here) -> Response:
    """The queues that have jobs or are served here: their jobs by state, and how long the oldest waits.

    Counting ends at some thousands: the states of which more may be are in `at_least`.
    """
    return answer(queues_of(site.client, served_here(site)))


@router.get(
    "/statistics",
    operation_id="get_statistics",
    response_model=documents.Statistics,
    responses=refusals(422),
)
def get_statistics(
    site: Here,
    since: Literal["1h", "24h"] = "1h",
    queue: QueueName = None,
) -> Response:
    """What became of jobs over the last hour, a minute each, or the last 24 hours, 15 minutes each."""
    step = STEPS[since]
    found = site.client.stats(since, step=step, queue=queue)
    told = {"since": since, "step": step, "queue": queue}
    return answer({**told, "sums": [each.as_json() for each in found]})


@router.get(
    "/actions",
    operation_id="list_actions",
    response_model=documents.Actions,
    responses=refusals(422),
)
def list_actions(
    site: Here, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: Cursor = None
) -> Response:
    """Who did what, when and to how many; the newest first."""
    before = None if cursor is None else int(cursor)
    found = site.client.actions(limit=limit, before=before)
    further = str(found[-1].id) if len(found) == limit else None
    return answer({"actions": [each.as_json() for each in found], "next": further})
