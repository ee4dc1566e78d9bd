"""Whether it lives, whether it is ready, and which release it is: for probes, without a sign-in."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Response

from jobvisor.jobs import __version__
from jobvisor.jobs.errors import JobNotFound, JobsError
from jobvisor.jobs.filter import ID_MAX
from jobvisor.supervisor.documents.standing import is_serving
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez")
async def livez() -> dict[str, bool]:
    """That this process answers; it never asks the database, nor waits for a thread that does."""
    return {"alive": True}


@router.get("/readyz", operation_id="readyz", responses={503: {"description": "Not ready"}})
def readyz(site: Here, response: Response) -> dict[str, bool]:
    """That the database answers, and that a family serves it, where this site has one."""
    told = {"database": _database_answers(site), "family": _family_serves(site)}
    ready = all(told.values())
    response.status_code = 200 if ready else 503
    return {"ready": ready, **told}


def _database_answers(site: Site) -> bool:
    try:
        with suppress(JobNotFound):
            site.client.get(ID_MAX)  # one look into an index; no job has this id
    except JobsError:
        return False
    return True


def _family_serves(site: Site) -> bool:
    if site.state is None:
        return True
    try:
        return is_serving(site.state.status(), site.state.holder())
    except JobsError:
        return False


@router.get("/api/v1/version", operation_id="version")
def version() -> dict[str, str]:
    """The release that answers."""
    return {"version": __version__}
