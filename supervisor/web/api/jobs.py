"""`/jobs`: enqueue, list, look at one, and do something with it."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.job import Job, json_id
from jobvisor.jobs.task import Call
from jobvisor.supervisor.documents.stack import stacks_of_job
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import (
    Copying,
    Form,
    JobId,
    Looking,
    NewJob,
    NewJobs,
    Rescheduling,
)
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.ordering import call_of, changed_arguments
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.shown import job_shown, jobs_shown, log_shown, whole_job_shown
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], dependencies=[Depends(exact_query)])

CHANGES = [Depends(writing)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description=(
            "Your own name for this request: a second one with it, within 24 hours, makes nothing and is "
            "answered with what the first made, finished jobs too."
        ),
    ),
]


@router.post(
    "",
    operation_id="enqueue_job",
    status_code=201,
    response_model=documents.Job,
    dependencies=CHANGES,
    responses={
        200: {"model": documents.Job, "description": "The job that was there, of one of the keys."},
        **refusals(404, 409, 422),
    },
)
def enqueue_job(
    request: Request, site: Here, who: Who, body: NewJob, key: IdempotencyKey = None
) -> Response:
    """Enqueue a job of a task that `allow_tasks` names."""
    [job] = _responded(site, who, [call_of(site, body.order())], body, key)
    return _made(request, site, job)


@router.post(
    "/bulk",
    operation_id="enqueue_jobs",
    status_code=201,
    response_model=documents.Ids,
    dependencies=CHANGES,
    responses={
        200: {"model": documents.Ids, "description": "The jobs that were there."},
        **refusals(404, 409, 422),
    },
)
def enqueue_jobs(site: Here, who: Who, body: NewJobs, key: IdempotencyKey = None) -> Response:
    """Enqueue many jobs in one transaction: all of them, or none."""
    calls = []
    for place, each in enumerate(body.jobs):
        try:
            calls.append(call_of(site, each.order()))
        except JobsError as error:
            raise type(error)(f"jobs[{place}]: {error}") from error
    made = _responded(site, who, calls, body, key)
    status = 201 if any(job.created for job in made) else 200
    return answer({"ids": [json_id(job.id) for job in made]}, status)


@router.get("", operation_id="list_jobs", response_model=documents.Jobs, responses=refusals(422))
def list_jobs(site: Here, query: Annotated[Looking, Query()]) -> Response:
    """List jobs, the newest first."""
    before = None if query.cursor is None else int(query.cursor)
    which = site.hiding.searched(query.states().filter())
    page = site.client.page(which, limit=query.limit, before=before)
    further = None if page.before is None else str(page.before)
    return answer({"jobs": jobs_shown(site, page.jobs), "next": further})


@router.get(
    "/{job_id}",
    operation_id="get_job",
    response_model=documents.WholeJob,
    responses=refusals(404, 422),
)
def get_job(site: Here, job_id: JobId) -> Response:
    """One job with its unsuccessful runs."""
    return answer(whole_job_shown(site, job_id))


@router.delete(
    "/{job_id}",
    operation_id="delete_job",
    status_code=204,
    response_class=Response,
    dependencies=CHANGES,
    responses=refusals(404, 409, 422),
)
def delete_job(site: Here, who: Who, job_id: JobId) -> Response:
    """Remove a finished job with its history."""
    with site.client.transaction():
        site.client.delete(job_id)
        site.client.note_action(who, "prune", f"job {job_id}", 1)
    return Response(status_code=204)


@router.get(
    "/{job_id}/attempts",
    operation_id="list_attempts",
    response_model=documents.Attempts,
    responses=refusals(404, 422),
)
def list_attempts(site: Here, job_id: JobId) -> Response:
    """The unsuccessful runs of a job, oldest first, with their tracebacks."""
    return answer({"attempts": [each.as_json() for each in site.client.attempts(job_id)]})


@router.get(
    "/{job_id}/log",
    operation_id="get_log",
    response_model=documents.Log,
    responses=refusals(404, 422),
)
def get_log(site: Here, job_id: JobId) -> Response:
    """What a job logged and printed: of past runs what is kept, of one that goes on here what it says now."""
    return answer({"runs": log_shown(site, job_id)})


@router.get(
    "/{job_id}/stack",
    operation_id="get_stack",
    response_model=documents.Stacks,
    responses=refusals(404, 409, 422),
)
def get_stack(site: Here, job_id: JobId) -> Response:
    """Where a job that runs on this machine is just now, line by line."""
    site.client.get(job_id)
    if site.state is None:
        raise Problem(409, "no family of this machine is known here", error="NoStack")
    try:
        found = stacks_of_job(site.state.ledgers, job_id)
    except JobsError as error:
        raise Problem(409, str(error), error="NoStack") from error
    return answer({"stacks": [{**each, "job": json_id(job_id)} for each in found]})


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    response_model=documents.Cancelled,
    dependencies=CHANGES,
    responses=refusals(404, 409, 422),
)
def cancel_job(site: Here, who: Who, job_id: JobId) -> Response:
    """Cancel an unfinished job; a running one is asked to leave, then killed."""
    with site.client.transaction():
        outcome = site.client.cancel(job_id)
        site.client.note_action(who, "cancel", f"job {job_id}", 1)
    return answer({"id": json_id(job_id), "outcome": outcome})


@router.post(
    "/{job_id}/requeue",
    operation_id="requeue_job",
    response_model=documents.Job,
    dependencies=CHANGES,
    responses=refusals(404, 409, 422),
)
def requeue_job(site: Here, who: Who, job_id: JobId) -> Response:
    """Start a finished job over, its history kept."""
    with site.client.transaction():
        job = site.client.requeue(job_id)
        site.client.note_action(who, "requeue", f"job {job_id}", 1)
    return answer(job_shown(site, job))


@router.post(
    "/{job_id}/reschedule",
    operation_id="reschedule_job",
    response_model=documents.Job,
    dependencies=CHANGES,
    responses=refusals(404, 409, 422),
)
def reschedule_job(
    site: Here, who: Who, job_id: JobId, body: Rescheduling | None = None
) -> Response:
    """Let a job that waits be due at another time, without one at once."""
    when = {} if body is None else body.when()
    with site.client.transaction():
        site.client.reschedule(job_id, **when)
        site.client.note_action(who, "reschedule", f"job {job_id} to be due {Due.of(**when)}", 1)
        job = site.client.get(job_id)
    return answer(job_shown(site, job))


@router.post(
    "/{job_id}/copy",
    operation_id="copy_job",
    status_code=201,
    response_model=documents.Job,
    dependencies=CHANGES,
    responses=refusals(404, 422),
)
def copy_job(
    request: Request, site: Here, who: Who, job_id: JobId, body: Copying | None = None
) -> Response:
    """Run a copy of a job, with changed arguments where `allow_tasks` names its task."""
    job = site.client.get(job_id)
    given = body or Copying(args=None, kwargs=None)
    args, kwargs = changed_arguments(site, job, given.args, given.kwargs)
    with site.client.transaction():
        made = site.client.copy(job_id, args=args, kwargs=kwargs)
        site.client.note_action(who, "copy", f"job {job_id} as {made.id}", 1)
    return _made(request, site, made)


def _responded(site: Site, who: str, calls: list[Call], body: Form, key: str | None) -> list[Job]:
    """The jobs of a request; of one that has come before, by its key and sender, those that it made then."""
    found = site.client.respond(
        calls,
        key=None if key is None else _digest([who, key]),
        digest=_digest(body.model_dump(exclude_unset=True)),
        who=who,
    )
    return [replace(job, created=job.created and not found.repeated) for job in found.jobs]


def _digest(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _made(request: Request, site: Site, job: Job) -> Response:
    """The job that was made, or that was there, and where it is."""
    headers = {"Location": f"{request.scope.get('root_path', '')}/api/v1/jobs/{job.id}"}
    return answer(job_shown(site, job), 201 if job.created else 200, headers)
