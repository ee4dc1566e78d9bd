"""The forms that make a job: a copy with other arguments, or a new one of a task that `allow_tasks` names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.errors import InvalidOption, JobsError
from jobvisor.jobs.job import Job
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.hiding import MASK
from jobvisor.supervisor.web.ordering import Order, call_of, changed_arguments, check_allowed
from jobvisor.supervisor.web.pages.asked import known_id
from jobvisor.supervisor.web.pages.form import Form, word_of
from jobvisor.supervisor.web.pages.templates import go, path, show
from jobvisor.supervisor.web.pages.words import SHOWN_MAX, as_json
from jobvisor.supervisor.web.problems import Problem, problem_of
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)

ROWS_MAX = 24
"""Lines of a field for arguments; longer ones scroll."""

OPTIONS = ("queue", "run_in", "priority")

WRITING = [Depends(writing)]


@router.get("/jobs/{job}/copy", name="pages.copy")
def copy_page(request: Request, site: Here, job: str) -> Response:
    """The arguments of a job, to be changed."""
    found = site.client.get(known_id(job))
    told = site.hiding.shown(found.as_json())
    args, kwargs = as_json(told["args"]), as_json(told["kwargs"])
    if max(len(args), len(kwargs)) > SHOWN_MAX:
        raise Problem(
            413,
            f"the arguments of job {found.id} are too large to be changed in a page; "
            f"`jobvisor copy {found.id}` takes them",
        )
    return _copy_form(request, found, args, kwargs)


@router.post("/jobs/{job}/copy", name="pages.copied", dependencies=WRITING)
def copy(request: Request, site: Here, who: Who, form: Form, job: str) -> Response:
    """Enqueue the copy, and show it; what is wrong with the arguments stands above the form."""
    found = site.client.get(known_id(job))
    args, kwargs = word_of(form, "args"), word_of(form, "kwargs")
    try:
        changed = changed_arguments(site, found, *_read(args, kwargs))
        with site.client.transaction():
            made = site.client.copy(found, args=changed[0], kwargs=changed[1])
            site.client.note_action(who, "copy", f"job {found.id} as {made.id}", 1)
    except (JobsError, Problem) as error:
        return _copy_form(request, found, args, kwargs, error)
    said = f"Job {made.id} is a copy of job {found.id}."
    return go(request, path(request, "job", job=made.id), said)


@router.get("/tasks/enqueue", name="pages.enqueue")
def enqueue_page(request: Request, site: Here, task: str = "") -> Response:
    """An empty form for a task."""
    check_allowed(site, task)
    return _enqueue_form(request, task, {"args": "[]", "kwargs": "{}"})


@router.post("/tasks/enqueue", name="pages.enqueued", dependencies=WRITING)
def enqueue(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Enqueue it, and show it; what is wrong stands above the form."""
    task = word_of(form, "task")
    words = {name: word_of(form, name) for name in ("args", "kwargs", *OPTIONS)}
    try:
        args, kwargs = _read(words["args"], words["kwargs"])
        order = Order(task, args, kwargs, _options(words), typed=True)
        made = site.client.respond([call_of(site, order)], who=who).jobs[0]
    except (JobsError, Problem) as error:
        return _enqueue_form(request, task, words, error)
    said = f"Job {made.id} is enqueued." if made.created else f"Job {made.id} was there already."
    if made.replaced:
        said = f"Job {made.id} was waiting, and has these arguments now."
    return go(request, path(request, "job", job=made.id), said)


def _read(args: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    return _json("Arguments", args, list), _json("Arguments by name", kwargs, dict)


def _json(name: str, text: str, kind: type) -> Any:
    """The JSON of a field; InvalidOption says what is wrong with it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOption(f"{name}: this is no JSON ({error})") from None
    if not isinstance(found, kind):
        raise InvalidOption(f"{name}: write a JSON {'list' if kind is list else 'object'}")
    return found


def _options(words: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {name: words[name] for name in ("queue", "run_in") if words[name]}
    if words["priority"]:
        try:
            options["priority"] = int(words["priority"])
        except ValueError:
            raise InvalidOption("Priority: write a whole number") from None
    return options


# -- the form


def _copy_form(
    request: Request, job: Job, args: str, kwargs: str, error: Exception | None = None
) -> Response:
    return _form(
        request,
        job.task,
        {"args": args, "kwargs": kwargs},
        error,
        at="jobs",
        heading=f"Run a copy of job {job.id}",
        verb="Run the copy",
        action=path(request, "copied", job=job.id),
        back=path(request, "job", job=job.id),
        options=None,
    )


def _enqueue_form(
    request: Request, task: str, words: Mapping[str, str], error: Exception | None = None
) -> Response:
    return _form(
        request,
        task,
        words,
        error,
        at="tasks",
        heading="Enqueue a job",
        verb="Enqueue",
        action=path(request, "enqueued"),
        back=path(request, "tasks"),
        options={name: words.get(name, "") for name in OPTIONS},
    )


def _form(
    request: Request, task: str, words: Mapping[str, str], error: Exception | None, **values: Any
) -> Response:
    problem = problem_of(error) if isinstance(error, JobsError) else error
    args, kwargs = words["args"], words["kwargs"]
    return show(
        request,
        "enqueue.html",
        status=problem.status if isinstance(problem, Problem) else 200,
        mistake=problem.detail if isinstance(problem, Problem) else "",
        task=task,
        args=args,
        kwargs=kwargs,
        rows={"args": _lines(args), "kwargs": _lines(kwargs)},
        masked=MASK in args or MASK in kwargs,
        **values,
    )


def _lines(text: str) -> int:
    return min(ROWS_MAX, max(2, text.count("\n") + 1))
