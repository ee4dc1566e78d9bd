"""`/schedules`: what is enqueued when; shown, added, changed, removed, paused, resumed, and triggered now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from jobvisor.jobs.described import BY_FUNCTION
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.schedule import Schedule
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import NewSchedule, moment_or_duration
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.ordering import Order, call_of
from jobvisor.supervisor.web.shown import job_shown, schedule_shown
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(
    prefix="/api/v1/schedules", tags=["schedules"], dependencies=[Depends(exact_query)]
)

CHANGES = [Depends(writing)]

ScheduleName = Annotated[
    str,
    Path(min_length=1, max_length=400, description="Its name.", examples=["nightly"]),
]


@router.get(
    "", operation_id="list_schedules", response_model=documents.Schedules, responses=refusals()
)
def list_schedules(site: Here) -> Response:
    """All schedules, by name, with their next times."""
    found = site.client.schedules.list()
    return answer({"schedules": [schedule_shown(site, each) for each in found]})


@router.post(
    "",
    operation_id="add_schedule",
    status_code=201,
    response_model=documents.Schedule,
    dependencies=CHANGES,
    responses=refusals(409, 422),
)
def add_schedule(site: Here, who: Who, body: NewSchedule) -> Response:
    """Add a schedule of a task that `allow_tasks` names, or change one that was added so."""
    check_keys(site, body.task)
    order = Order(body.task, body.args, body.kwargs, {"unique": False}, body.typed, body.force)
    call = call_of(site, order)
    with site.client.transaction():
        made = site.client.schedules.add(
            body.name,
            call.task,
            args=call.args,
            kwargs=call.kwargs,
            cron=body.cron,
            every=body.every,
            timezone=body.timezone,
            anchor=moment_or_duration("anchor", body.anchor),  # type: ignore[arg-type]  # it is judged there
            queue=body.queue,
            catch_up=body.catch_up,
            overlap=body.overlap,
            paused=body.paused,
            replace=body.replace,
        )
        site.client.note_action(
            who, "schedule", f"schedule {made.name}: {made.task} {made.when}", 1
        )
    return answer(schedule_shown(site, made), 201)


@router.get(
    "/{name:path}",
    operation_id="get_schedule",
    response_model=documents.Schedule,
    responses=refusals(404, 422),
)
def get_schedule(site: Here, name: ScheduleName) -> Response:
    """One schedule."""
    return _answer(site, name)


@router.delete(
    "/{name:path}",
    operation_id="remove_schedule",
    status_code=204,
    response_class=Response,
    dependencies=CHANGES,
    responses=refusals(404, 409, 422),
)
def remove_schedule(site: Here, who: Who, name: ScheduleName) -> Response:
    """Remove a schedule; one that a living family declares is removed there."""
    with site.client.transaction():
        site.client.schedules.remove(name)
        site.client.note_action(who, "unschedule", f"schedule {name}", 1)
    return Response(status_code=204)


@router.post(
    "/{name:path}/pause",
    operation_id="pause_schedule",
    response_model=documents.Schedule,
    dependencies=CHANGES,
    responses=refusals(404, 422),
)
def pause_schedule(site: Here, who: Who, name: ScheduleName) -> Response:
    """Let it enqueue nothing, until it is resumed."""
    with site.client.transaction():
        if site.client.schedules.pause(name):
            site.client.note_action(who, "pause", f"schedule {name}", 1)
    return _answer(site, name)


@router.post(
    "/{name:path}/resume",
    operation_id="resume_schedule",
    response_model=documents.Schedule,
    dependencies=CHANGES,
    responses=refusals(404, 422),
)
def resume_schedule(site: Here, who: Who, name: ScheduleName) -> Response:
    """Let it go on, from now; one that its configuration pauses stays paused."""
    with site.client.transaction():
        if site.client.schedules.resume(name):
            site.client.note_action(who, "resume", f"schedule {name}", 1)
    return _answer(site, name)


@router.post(
    "/{name:path}/trigger",
    operation_id="trigger_schedule",
    status_code=201,
    response_model=documents.Job,
    dependencies=CHANGES,
    responses=refusals(404, 422),
)
def trigger_schedule(site: Here, who: Who, name: ScheduleName) -> Response:
    """Enqueue its job now; this is no tick of it."""
    with site.client.transaction():
        job = site.client.schedules.trigger(name)
        site.client.note_action(who, "trigger", f"schedule {name}, job {job.id}", 1)
    return answer(job_shown(site, job), 201)


def check_keys(site: Site, task: str) -> None:
    """InvalidOption where the jobs could not be held to the limit, or had not the share, of their task.

    A unique key is what its task says of it: without its code none can be made by a function.
    """
    known = site.directory.find(task)
    told = None if known is None else known.told.get("options")
    options = told if isinstance(told, dict) else {}
    for name in ("limit", "share", "weight"):
        if options.get(name) == BY_FUNCTION:
            raise InvalidOption(
                f"the {name} of {task} is made by a function, which cannot be called here; "
                "schedule it in code"
            )


def _answer(site: Site, name: str) -> Response:
    found: Schedule = site.client.schedules.get(name)
    return answer(schedule_shown(site, found))
