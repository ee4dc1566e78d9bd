"""The page of the schedules: when each ticks next, what became of the last tick; and its buttons."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.schedule import Schedule
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.pages.form import Form, back_of, is_sure, question, word_of
from jobvisor.supervisor.web.pages.templates import go, path, show
from jobvisor.supervisor.web.pages.words import as_json
from jobvisor.supervisor.web.shown import schedule_shown
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False)

WRITING = [Depends(writing)]

SHOWN_MAX = 1_000
TEXT_MAX = 300
SOURCES = {"config": "config", "code": "code", "added": "added at run time"}


@router.get("/schedules", name="pages.schedules")
def schedules_page(request: Request, site: Here) -> Response:
    """All of them, by name."""
    found = site.client.schedules.list(limit=SHOWN_MAX)
    told = [_schedule(site, each) for each in found]
    return show(request, "schedules.html", at="schedules", schedules=told)


@router.post("/schedules/pause", name="pages.pause_schedule", dependencies=WRITING)
def pause(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Let one tick no more."""
    name = word_of(form, "name")
    with site.client.transaction():
        if site.client.schedules.pause(name):
            site.client.note_action(who, "pause", f"schedule {name}", 1)
    return go(request, back_of(request, form, "schedules"), f"Schedule {name} is paused.")


@router.post("/schedules/resume", name="pages.resume_schedule", dependencies=WRITING)
def resume(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Let one tick again."""
    name = word_of(form, "name")
    with site.client.transaction():
        if site.client.schedules.resume(name):
            site.client.note_action(who, "resume", f"schedule {name}", 1)
    return go(request, back_of(request, form, "schedules"), f"Schedule {name} goes on.")


@router.post("/schedules/trigger", name="pages.trigger_schedule", dependencies=WRITING)
def trigger(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Enqueue the job of one now, and show it."""
    name = word_of(form, "name")
    with site.client.transaction():
        job = site.client.schedules.trigger(name)
        site.client.note_action(who, "trigger", f"schedule {name}, job {job.id}", 1)
    said = f"Job {job.id} is what schedule {name} enqueues; it was no tick."
    return go(request, path(request, "job", job=job.id), said)


@router.post("/schedules/remove", name="pages.remove_schedule", dependencies=WRITING)
def remove(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Remove one that was added at run time."""
    name = word_of(form, "name")
    back = back_of(request, form, "schedules")
    if not is_sure(form):
        found = site.client.schedules.get(name)
        return question(
            request,
            form,
            f"Remove schedule {name}?",
            yes="Remove it",
            back=back,
            kind="danger",
            about="It enqueues nothing more; the jobs that it has made stay.",
            sample=[f"{found.task}, {found.when}"],
        )
    with site.client.transaction():
        site.client.schedules.remove(name)
        site.client.note_action(who, "unschedule", f"schedule {name}", 1)
    return go(request, back, f"Schedule {name} is gone.")


def _schedule(site: Site, schedule: Schedule) -> dict[str, Any]:
    told = schedule_shown(site, schedule)
    call = ", ".join(
        [
            *(as_json(each) for each in told["args"] if isinstance(told["args"], list)),
            *(f"{name}={as_json(value)}" for name, value in _items(told["kwargs"])),
        ]
    )
    return {
        "name": schedule.name,
        "task": schedule.task,
        "call": call[:TEXT_MAX],
        "when": schedule.when,
        "words": schedule.words,
        "next": [each.isoformat(sep=" ", timespec="seconds") for each in schedule.next],
        "soon": schedule.next[0] if schedule.next else None,
        "last": schedule.last_tick,
        "job": schedule.last_job,
        "paused": schedule.paused,
        "source": SOURCES.get(schedule.source, schedule.source),
        "family": schedule.family or "",
        "rules": ", ".join(_rules(schedule)),
        "removable": schedule.source == "added",
    }


def _items(kwargs: Any) -> list[tuple[str, Any]]:
    return list(kwargs.items()) if isinstance(kwargs, dict) else []


def _rules(schedule: Schedule) -> list[str]:
    """What differs from what most schedules say."""
    found = []
    if schedule.catch_up != "latest":
        found.append(f"catch up {schedule.catch_up}")
    if schedule.overlap != "allow":
        found.append(f"overlap {schedule.overlap}")
    if schedule.queue:
        found.append(f"queue {schedule.queue}")
    return found
