"""One verb for all jobs that a filter means: cancel, requeue, reschedule, prune; or only how many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Depends
from starlette.responses import Response

from jobvisor.jobs.client import Swept
from jobvisor.jobs.due import NOW, Due
from jobvisor.jobs.filter import Filter
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import Bulk, BulkRescheduling
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(
    prefix="/api/v1/jobs", tags=["jobs"], dependencies=[Depends(exact_query), Depends(writing)]
)


@router.post(
    "/cancel",
    operation_id="cancel_jobs",
    response_model=documents.Swept,
    responses=refusals(422),
)
def cancel_jobs(site: Here, who: Who, body: Bulk) -> Response:
    """Cancel all unfinished jobs that a filter means, a thousand in a transaction."""
    return answer(sweep(site, who, "cancel", body.filter.filter(), dry_run=body.dry_run).as_json())


@router.post(
    "/requeue",
    operation_id="requeue_jobs",
    response_model=documents.Swept,
    responses=refusals(422),
)
def requeue_jobs(site: Here, who: Who, body: Bulk) -> Response:
    """Start all finished jobs over that a filter means; it has to name their state, or their ids."""
    return answer(sweep(site, who, "requeue", body.filter.filter(), dry_run=body.dry_run).as_json())


@router.post(
    "/reschedule",
    operation_id="reschedule_jobs",
    response_model=documents.Swept,
    responses=refusals(422),
)
def reschedule_jobs(site: Here, who: Who, body: BulkRescheduling) -> Response:
    """Let all waiting jobs that a filter means be due at another time, without one at once."""
    due, which = Due.of(**body.when()), body.filter.filter()
    return answer(sweep(site, who, "reschedule", which, dry_run=body.dry_run, due=due).as_json())


@router.post(
    "/prune",
    operation_id="prune_jobs",
    response_model=documents.Swept,
    responses=refusals(422),
)
def prune_jobs(site: Here, who: Who, body: Bulk) -> Response:
    """Remove all finished jobs that a filter means for good; it has to name their state, or ids."""
    return answer(sweep(site, who, "prune", body.filter.filter(), dry_run=body.dry_run).as_json())


def sweep(
    site: Site, who: str, verb: str, which: Filter, *, dry_run: bool, due: Due = NOW
) -> Swept:
    """Do it, and note who did it to how many; `due` is when jobs that are rescheduled are."""
    client = site.client
    sweeps: dict[str, Callable[..., Swept]] = {
        "cancel": client.cancel_where,
        "requeue": client.requeue_where,
        "reschedule": partial(client.reschedule_where, **due.options()),
        "prune": client.prune_where,
    }
    return sweeps[verb](site.hiding.searched(which), dry_run=dry_run, by=who)
