"""What the buttons of the page of workers do: another number of workers, a reload of the code."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.errors import FamilyNotRunning
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.steering import ask_to_reload, scale_pool
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.noting import note_of_family
from jobvisor.supervisor.web.pages.form import Form, back_of, is_sure, question, word_of
from jobvisor.supervisor.web.pages.templates import go
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False, dependencies=[Depends(writing)])


@router.post("/workers/scale", name="pages.scale")
def scale(request: Request, site: Here, who: Who, form: Form) -> Response:
    """One worker more or fewer in a pool, until the next reload."""
    pool, wanted = word_of(form, "pool"), word_of(form, "wanted")
    told = scale_pool(_state(site), pool, wanted)
    said = f"Pool {pool} is to have {told['workers']}."
    said += note_of_family(site, who, "scale", f"pool {pool} {wanted}", told["workers"])
    return go(request, back_of(request, form, "workers"), said)


@router.post("/workers/reload", name="pages.reload")
def reload(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Take up changed configuration and code, new workers beside the old ones."""
    back = back_of(request, form, "workers")
    if not is_sure(form):
        return question(
            request,
            form,
            "Reload configuration and code?",
            yes="Reload",
            back=back,
            about="New workers start beside the old ones, which finish their jobs. Where the new code "
            "cannot be had all stays as it is.",
        )
    ask_to_reload(_state(site))
    said = "A reload was asked for; what needs attention tells if it is refused."
    said += note_of_family(site, who, "reload", "the family here")
    return go(request, back, said)


def _state(site: Site) -> StateDir:
    if site.state is None:
        raise FamilyNotRunning(
            "this site was given no folder of a family, so there is none to steer"
        )
    return site.state
