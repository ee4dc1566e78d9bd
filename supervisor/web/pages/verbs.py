"""What the buttons of a job's page do: requeue, reschedule, cancel, delete; each is noted with who did it."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.pages.asked import known_id
from jobvisor.supervisor.web.pages.form import Field, Form, back_of, is_sure, question
from jobvisor.supervisor.web.pages.templates import go
from jobvisor.supervisor.web.pages.when import due_of
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False, dependencies=[Depends(writing)])


@router.post("/jobs/{job}/requeue", name="pages.requeue")
def requeue(request: Request, site: Here, who: Who, form: Form, job: str) -> Response:
    """Start a finished job over."""
    number = known_id(job)
    with site.client.transaction():
        site.client.requeue(number)
        site.client.note_action(who, "requeue", f"job {number}", 1)
    return go(request, back_of(request, form, "job", job=number), f"Job {number} starts over.")


@router.post("/jobs/{job}/reschedule", name="pages.reschedule")
def reschedule(request: Request, site: Here, who: Who, form: Form, job: str) -> Response:
    """Let a job that waits be due at another time; which one is asked, unless the button says it."""
    number = known_id(job)
    back = back_of(request, form, "job", job=number)
    due = due_of(form)
    if isinstance(due, Field):
        return question(
            request,
            form,
            f"When is job {number} to be due?",
            yes="Reschedule it",
            back=back,
            sample=[site.client.get(number).task],
            field=due,
        )
    with site.client.transaction():
        state = site.client.reschedule(number, **due.options())
        site.client.note_action(who, "reschedule", f"job {number} to be due {due}", 1)
    return go(request, back, f"Job {number} is {state}, to be due {due}.")


@router.post("/jobs/{job}/cancel", name="pages.cancel")
def cancel(request: Request, site: Here, who: Who, form: Form, job: str) -> Response:
    """Cancel a job; a running one is asked to leave, and then killed."""
    number = known_id(job)
    found = site.client.get(number)
    back = back_of(request, form, "job", job=number)
    if not is_sure(form):
        running = found.state == "running"
        return question(
            request,
            form,
            f"Cancel job {number}?",
            yes="Cancel it",
            back=back,
            kind="danger",
            about="It runs: it is asked to leave, and killed if it has not done so after cancel_grace."
            if running
            else "It will not run.",
            sample=[found.task],
        )
    with site.client.transaction():
        outcome = site.client.cancel(number)
        site.client.note_action(who, "cancel", f"job {number}", 1)
    said = "is cancelled" if outcome == "cancelled" else "was asked to leave"
    return go(request, back, f"Job {number} {said}.")


@router.post("/jobs/{job}/delete", name="pages.delete")
def delete(request: Request, site: Here, who: Who, form: Form, job: str) -> Response:
    """Remove a finished job and its history."""
    number = known_id(job)
    found = site.client.get(number)
    back = back_of(request, form, "jobs")
    if not is_sure(form):
        return question(
            request,
            form,
            f"Delete job {number}?",
            yes="Delete it",
            back=back,
            kind="danger",
            about="It goes for good, and its history with it.",
            sample=[found.task],
        )
    with site.client.transaction():
        site.client.delete(number)
        site.client.note_action(who, "prune", f"job {number}", 1)
    return go(request, back, f"Job {number} is gone.")
