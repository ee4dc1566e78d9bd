"""The page of the workers of this machine's family: what each does now, why some had to be started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.documents.stack import stacks_of_job, stacks_of_process
from jobvisor.supervisor.web.pages.asked import known_id
from jobvisor.supervisor.web.pages.standing import Standing, cause_of, causes, standing
from jobvisor.supervisor.web.pages.templates import path, show
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False)

JOBS_SHOWN = 10
"""Of one worker with several lanes."""

OTHERS = ("caretaker", "scheduler", "clerk", "template", "web")
"""Processes beside the workers, by their key in the status."""

KINDS = {"busy": "busy", "turn": "busy", "booting": "later", "backoff": "bad"}
"""The colour of what a process does."""

NOT_HERE = (
    "This site was given no folder of a family, so it knows its workers only by their jobs; "
    "the page of a family's own web role shows them."
)


@router.get("/workers", name="pages.workers")
def workers_page(request: Request, site: Here) -> Response:
    """The processes of the family, its pools, and the last deaths."""
    family = standing(site)
    deaths = family.deaths
    return show(
        request,
        "workers.html",
        at="workers",
        family=family if family.known else None,
        not_here="" if family.known else NOT_HERE,
        reasons=[family.reason] if family.reason else [],
        pools=_pools(family.status),
        workers=_workers(site, family),
        deaths=[{**each, "cause": cause_of(each)} for each in deaths],
        causes=causes(deaths),
        restarts=family.status.get("restarts") or 0,
    )


@router.get("/workers/{process}/stack", name="pages.stack")
def stack_page(request: Request, site: Here, process: str) -> Response:
    """Where a process is just now."""
    return _stack(request, site, process, path(request, "workers"))


@router.get("/jobs/{job}/stack", name="pages.stack_of_job")
def stack_of_job_page(request: Request, site: Here, job: str) -> Response:
    """Where a running job is just now."""
    number = known_id(job)
    return _stack(request, site, number, path(request, "job", job=number))


def _stack(request: Request, site: Site, who: str | int, back: str) -> Response:
    found: list[dict[str, Any]] = []
    mistake = ""
    if site.state is None:
        mistake = NOT_HERE
    else:
        folder = site.state.ledgers
        try:
            found = (
                stacks_of_job(folder, who)
                if isinstance(who, int)
                else stacks_of_process(folder, who)
            )
        except JobsError as error:
            mistake = str(error)
    of = f"job {who}" if isinstance(who, int) else who
    return show(
        request, "stack.html", at="workers", of=of, stacks=found, mistake=mistake, back=back
    )


def _pools(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, **{key: told.get(key) for key in ("now", "wanted", "least", "most", "why")}}
        for name, told in (status.get("scaling") or {}).items()
    ]


def _workers(site: Site, family: Standing) -> list[dict[str, Any]]:
    """The workers first, then what else the family has."""
    others = [told for role in OTHERS if isinstance(told := family.status.get(role), dict)]
    slots = [*family.workers, *others]
    shown = [_jobs(slot)[:JOBS_SHOWN] for slot in slots]
    known = site.client.get_many({job["id"] for jobs in shown for job in jobs})
    for job in (job for jobs in shown for job in jobs):
        job["task"] = known[job["id"]].task if job["id"] in known else ""
    return [_worker(slot, jobs) for slot, jobs in zip(slots, shown, strict=True)]


def _worker(slot: Mapping[str, Any], jobs: list[dict[str, Any]]) -> dict[str, Any]:
    role, state = str(slot.get("role", "worker")), str(slot.get("state"))
    is_worker = slot.get("pool") is not None
    return {
        "name": f"{role} {slot.get('slot')}" if is_worker else role,
        "pool": slot.get("pool"),
        "state": state,
        "kind": KINDS.get(state, "plain"),
        "leaving": slot.get("leaving"),
        "jobs": jobs,
        "others": max(0, int(slot.get("running") or len(jobs)) - len(jobs)),
        "lanes": slot.get("lanes") or (1 if is_worker else ""),
        "rss": slot.get("rss"),
        "started": slot.get("started") if is_worker else None,
        "up": slot.get("up_seconds"),
        "pid": slot.get("pid"),
    }


def _jobs(slot: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = slot.get("jobs")
    if not isinstance(told, list):
        told = [{"job": slot.get("job"), "job_seconds": slot.get("job_seconds")}]
    return [
        {"id": int(each["job"]), "seconds": each.get("job_seconds")}
        for each in told
        if each.get("job")
    ]
