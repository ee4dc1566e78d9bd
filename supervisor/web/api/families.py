"""Families and their processes: how they stand, where a process is, more or fewer workers, a reload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.documents.stack import stacks_of_process
from jobvisor.supervisor.documents.standing import health_of, standing_of
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.steering import ask_to_reload, scale_pool
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import Scaling
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.noting import note_of_family
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(prefix="/api/v1", tags=["families"], dependencies=[Depends(exact_query)])

CHANGES = [Depends(writing)]

ProcessName = Annotated[
    str,
    Path(
        pattern="^[a-z][a-z ]{0,30}( [0-9]{1,3})?$",
        description="As the log names it.",
        examples=["worker 2"],
    ),
]
PoolName = Annotated[str, Path(min_length=1, max_length=100, examples=["default"])]


@router.get(
    "/health", operation_id="get_health", response_model=documents.Health, responses=refusals(409)
)
def get_health(site: Here) -> Response:
    """Whether the family of this machine is well, and if not why; it never asks the database."""
    with _later():
        return answer(health_of(_state(site)))


@router.get(
    "/status", operation_id="get_status", response_model=documents.Status, responses=refusals(409)
)
def get_status(site: Here) -> Response:
    """The family of this machine as it describes itself: pools, workers, deaths, the last reload."""
    return answer(_standing(site))


@router.get(
    "/families",
    operation_id="list_families",
    response_model=documents.Families,
    responses=refusals(),
)
def list_families(site: Here) -> Response:
    """All families of this database, on whatever machine, and how long each has been silent."""
    return answer({"families": [each.as_json() for each in site.client.families()]})


@router.get(
    "/workers",
    operation_id="list_workers",
    response_model=documents.Workers,
    responses=refusals(409),
)
def list_workers(site: Here) -> Response:
    """The workers of this machine's family: process, memory, jobs and for how long, and why one leaves."""
    return answer({"workers": _standing(site)["workers"]})


@router.get(
    "/processes/{name}/stack",
    operation_id="get_process_stack",
    response_model=documents.Stacks,
    responses=refusals(404, 409, 422),
)
def get_process_stack(site: Here, name: ProcessName) -> Response:
    """Where a process of this machine's family is just now, line by line."""
    try:
        return answer({"stacks": stacks_of_process(_state(site).ledgers, name)})
    except JobsError as error:
        raise Problem(404, str(error), error="NoStack") from error


@router.post(
    "/pools/{pool}/scale",
    operation_id="scale_pool",
    response_model=documents.Pool,
    dependencies=CHANGES,
    responses=refusals(409, 422),
)
def scale(site: Here, who: Who, pool: PoolName, body: Scaling) -> Response:
    """Have more or fewer workers in a pool until the next reload; of a range it is the least."""
    with _later():
        told = scale_pool(_state(site), pool, str(body.workers))
    note_of_family(site, who, "scale", f"pool {pool} to {body.workers}", told["workers"])
    return answer(told)


@router.post(
    "/reload",
    operation_id="reload",
    status_code=202,
    response_model=documents.Reloading,
    dependencies=CHANGES,
    responses=refusals(409),
)
def reload(site: Here, who: Who) -> Response:
    """Ask the family to take up changed configuration and code; the status tells how that ends."""
    with _later():
        pid, last = ask_to_reload(_state(site))
    note_of_family(site, who, "reload", "the family here")
    return answer({"pid": pid, "number": last + 1}, 202)


def _standing(site: Site) -> dict[str, Any]:
    state = _state(site)
    with _later():
        last = state.status() or {}
        return standing_of(state, str(last.get("family") or ""))


@contextmanager
def _later() -> Iterator[None]:
    """A family that does not answer now, or has left half a status behind, may do so in a moment."""
    try:
        yield
    except JobsError as error:
        if type(error) is not JobsError:
            raise
        raise Problem(
            503, str(error), error="FamilyUnavailable", headers={"Retry-After": "5"}
        ) from error


def _state(site: Site) -> StateDir:
    if site.state is None:
        raise Problem(
            409,
            "no family of this machine is known here: give create_app its state_dir",
            error="FamilyNotRunning",
        )
    return site.state
