"""The page of many jobs: found by what the address says, chosen, and gone through page by page."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.job import FINISHED, WAITING
from jobvisor.supervisor.web.pages.asked import STATES, WORDS, Asked, id_of
from jobvisor.supervisor.web.pages.known import meant, queue_names, task_names
from jobvisor.supervisor.web.pages.rows import rows
from jobvisor.supervisor.web.pages.templates import path, show
from jobvisor.supervisor.web.pages.words import times
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)

PAGE = 50


@router.get("/jobs", name="pages.jobs")
def jobs_page(
    request: Request,
    site: Here,
    *,
    state: str = "",
    queue: str = "",
    task: str = "",
    error: str = "",
    error_type: str = "",
    text: str = "",
    since: str = "",
    until: str = "",
    before: str = "",
) -> Response:
    """The newest jobs that match, fifty at a time."""
    said = (state, queue, task, error, error_type, text, since, until)
    asked = Asked.of(dict(zip(WORDS, said, strict=True)))
    number = id_of(asked.text)
    if number is not None and site.client.get_many([number]):
        return RedirectResponse(path(request, "job", job=number), 303)
    place = id_of(before)
    mistake = ""
    found, older, looked = [], None, 0
    try:
        which = site.hiding.searched(asked.filter(**meant(site, asked)))
        page = site.client.page(which, limit=PAGE, before=place)
        found, older, looked = page.jobs, page.before, page.looked
    except InvalidOption as refused:
        mistake = str(refused)
    return show(
        request,
        "jobs.html",
        at="jobs",
        status=400 if mistake else 200,
        heading=f"{asked.state.capitalize()} jobs" if asked.state in STATES else "Jobs",
        filter=asked,
        mistake=mistake,
        rows=rows(found, site.hiding),
        older=older,
        looked=looked,
        before=place,
        counted=_counted(len(found), place),
        verbs=_verbs(asked.state),
        states=[{"word": state, "count": None} for state in STATES],
        tasks=task_names(site),
        queues=queue_names(site),
    )


def _verbs(state: str) -> list[str]:
    """What may be done to the jobs that are shown."""
    if not state:
        return ["requeue", "reschedule", "cancel", "delete"]
    if state in WAITING:
        return ["reschedule", "cancel"]
    return ["requeue", "delete"] if state in FINISHED else ["cancel"]


def _counted(number: int, before: int | None) -> str:
    where = f" before job {before}" if before else ", the newest first"
    return f"{times(number, 'job')}{where}" if number else ""
