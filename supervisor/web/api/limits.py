"""Limits: how many jobs of a kind run at once, and start in a while; and how their jobs stand."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from jobvisor.jobs.limit import NAME_MAX
from jobvisor.supervisor.documents.limits import limits_of
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import Limiting
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.site import Here

router = APIRouter(prefix="/api/v1/limits", tags=["limits"], dependencies=[Depends(exact_query)])

CHANGES = [Depends(writing)]

LimitName = Annotated[str, Path(pattern=f"^[A-Za-z0-9_.-]{{1,{NAME_MAX}}}$", examples=["stripe"])]


@router.get("", operation_id="list_limits", response_model=documents.Limits, responses=refusals())
def list_limits(site: Here) -> Response:
    """All limits with how many jobs of each run and wait; and those that jobs wait for and nobody has set."""
    return answer(limits_of(site.client))


@router.put(
    "/{name}",
    operation_id="set_limit",
    response_model=documents.Limit,
    dependencies=CHANGES,
    responses=refusals(422),
)
def set_limit(site: Here, who: Who, name: LimitName, body: Limiting) -> Response:
    """Say what a limit is, for all families and from now on; what is left out is not limited."""
    client = site.client
    with client.transaction():
        limit = client.limits.set(
            name, concurrency=body.concurrency, rate=body.rate, burst=body.burst
        )
        client.note_action(who, "limit", str(limit))
    return answer(limit.as_json())


@router.delete(
    "/{name}",
    operation_id="remove_limit",
    response_model=documents.RemovedLimit,
    dependencies=CHANGES,
    responses=refusals(404),
)
def remove_limit(site: Here, who: Who, name: LimitName) -> Response:
    """Take back what was said of a limit; a config says it again, or its jobs wait."""
    client = site.client
    with client.transaction():
        removed = client.limits.remove(name)
        if removed:
            client.note_action(who, "limit", f"{name}: removed")
    if not removed:
        raise Problem(404, f"there is no limit {name}", error="LimitNotFound")
    return answer({"name": name, "removed": True})
