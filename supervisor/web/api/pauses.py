"""What is paused, and what pauses and resumes a queue or a task."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from jobvisor.jobs.annals import QUEUE, TASK
from jobvisor.jobs.task import NAME_MAX, QUEUE_MAX
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import Pausing, moment_or_duration
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(prefix="/api/v1", tags=["pauses"], dependencies=[Depends(exact_query)])

CHANGES = [Depends(writing)]

QueuePath = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_.:\-]+$", max_length=QUEUE_MAX, examples=["mail"])
]
TaskPath = Annotated[str, Path(min_length=1, max_length=NAME_MAX, examples=["app.mail:send"])]


@router.get(
    "/paused", operation_id="list_paused", response_model=documents.AllPaused, responses=refusals()
)
def list_paused(site: Here) -> Response:
    """The queues and tasks of which no job begins."""
    return answer({"paused": [each.as_json() for each in site.client.paused()]})


@router.post(
    "/queues/{queue}/pause",
    operation_id="pause_queue",
    response_model=documents.Paused,
    dependencies=CHANGES,
    responses=refusals(422),
)
def pause_queue(site: Here, who: Who, queue: QueuePath, body: Pausing) -> Response:
    """Have no job of a queue begin, in any family; it accepts jobs on, and what runs goes on."""
    return _pause(site, who, {QUEUE: queue}, body)


@router.post(
    "/queues/{queue}/resume",
    operation_id="resume_queue",
    response_model=documents.Resumed,
    dependencies=CHANGES,
    responses=refusals(422),
)
def resume_queue(site: Here, who: Who, queue: QueuePath) -> Response:
    """Let the jobs of a queue begin again."""
    return _resume(site, who, {QUEUE: queue})


@router.post(
    "/tasks/{task:path}/pause",
    operation_id="pause_task",
    response_model=documents.Paused,
    dependencies=CHANGES,
    responses=refusals(422),
)
def pause_task(site: Here, who: Who, task: TaskPath, body: Pausing) -> Response:
    """Have no job of a task begin, whatever queue it is in."""
    return _pause(site, who, {TASK: task}, body)


@router.post(
    "/tasks/{task:path}/resume",
    operation_id="resume_task",
    response_model=documents.Resumed,
    dependencies=CHANGES,
    responses=refusals(422),
)
def resume_task(site: Here, who: Who, task: TaskPath) -> Response:
    """Let the jobs of a task begin again."""
    return _resume(site, who, {TASK: task})


def _pause(site: Site, who: str, which: dict[str, Any], body: Pausing) -> Response:
    until = moment_or_duration("until", body.until)
    with site.client.transaction():
        paused = site.client.pause(**which, until=until)
        site.client.note_action(who, "pause", f"{paused.kind} {paused.name}")
    return answer(paused.as_json())


def _resume(site: Site, who: str, which: dict[str, Any]) -> Response:
    [(kind, name)] = which.items()
    was_paused = site.client.resume(**which)
    if was_paused:
        site.client.note_action(who, "resume", f"{kind} {name}")
    return answer({"kind": kind, "name": name, "was_paused": was_paused})
