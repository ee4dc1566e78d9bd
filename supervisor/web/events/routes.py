"""The addresses of the streams: of all jobs, narrowed by the query, and of one."""

from __future__ import annotations

from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Path, Query
from starlette.requests import HTTPConnection
from starlette.responses import Response

from jobvisor.jobs.errors import JobNotFound
from jobvisor.jobs.job import State, Summary
from jobvisor.supervisor.web.events.job_reader import ENDED, JobReader
from jobvisor.supervisor.web.events.live import Live
from jobvisor.supervisor.web.events.reader import Reader
from jobvisor.supervisor.web.events.stream import MEDIA_TYPE, Stream
from jobvisor.supervisor.web.events.wanted import Wanted
from jobvisor.supervisor.web.site import Here, Site

FILTERS_MOST: Final = 100
ID_MOST: Final = 2**63 - 1

router = APIRouter(prefix="/api/v1", tags=["events"])


def _live(connection: HTTPConnection) -> Live:
    found: Live = connection.app.state.live
    return found


_Live = Annotated[Live, Depends(_live)]
_Place = Annotated[
    str | None,
    Header(max_length=100, description="The id of the last message that was received."),
]
_ID = Annotated[int, Path(ge=1, le=ID_MOST)]


def _described(events: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": events, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}}


@router.get(
    "/events",
    operation_id="follow_jobs",
    summary="Follow what changes",
    status_code=200,
    response_class=Stream,
    responses=_described(
        "Server-Sent Events without an end. `reset`: look at everything anew, from here on nothing is "
        "missed. `jobs`: each job that changed since the message before, with its last state; "
        "`gone` where there is none any more. `family`: its status. `trouble`: the database "
        "cannot be asked; a `reset` follows. `end`: why the stream ends."
    ),
)
async def follow_jobs(
    live: _Live,
    job: Annotated[
        list[Annotated[int, Query(ge=1, le=ID_MOST)]], Query(max_length=FILTERS_MOST)
    ] = [],  # noqa: B006
    queue: Annotated[list[str], Query(max_length=FILTERS_MOST)] = [],  # noqa: B006
    task: Annotated[list[str], Query(max_length=FILTERS_MOST)] = [],  # noqa: B006
    state: Annotated[
        list[State],
        Query(max_length=FILTERS_MOST, description="Of a job that leaves it nothing more is told."),
    ] = [],  # noqa: B006
    *,
    family: bool = True,
    last_event_id: _Place = None,
) -> Stream:
    """Every job that changes, narrowed by what is given; each name may be given several times."""
    hub = live.here()
    wanted = Wanted(
        frozenset(job),
        frozenset(queue),
        frozenset(task),
        frozenset(each.value for each in state),
        family=family,
    )
    position, reset = hub.where(last_event_id)
    return Stream(hub, Reader(hub.bulletin, wanted, position, reset))


@router.get(
    "/jobs/{job_id}/events",
    operation_id="follow_job",
    summary="Follow one job",
    status_code=200,
    response_class=Stream,
    responses={
        **_described(
            "Server-Sent Events until the job is finished. `job`: its state and progress. `log`: what its "
            "run said since the message before, where it runs on this machine. `end`: why it ends."
        ),
        204: {"description": "It was followed to its end already: do not come back."},
    },
)
async def follow_job(
    job_id: _ID, site: Here, live: _Live, last_event_id: _Place = None
) -> Response:
    """One job until it is finished."""
    if last_event_id == ENDED:
        return Response(status_code=204)
    job = await _summary(site, job_id)
    hub = live.here()
    ledgers = site.state.ledgers if site.state is not None else None
    return Stream(
        hub, JobReader(hub.bulletin, job, client=site.client, ledgers=ledgers, shown=live.shown)
    )


async def _summary(site: Site, job: int) -> Summary:
    found = await to_thread.run_sync(site.client.summaries, [job])
    if not found:
        raise JobNotFound(f"there is no job {job}")
    return found[0]
