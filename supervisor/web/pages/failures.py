"""The page of failed jobs in groups: by their task and the type of their last error."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.found import Group
from jobvisor.supervisor.web.pages.templates import path, show
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)


@router.get("/failures", name="pages.failures")
def failures_page(request: Request, site: Here) -> Response:
    """The groups, that whose last job failed last first."""
    found = site.client.failures()
    url = partial(path, request)
    more = "There are more groups than are shown: these are those that failed last."
    return show(
        request,
        "failures.html",
        at="failures",
        groups=[shown(each, url) for each in found.groups],
        estimate=more if found.at_least else "",
    )


def _message(group: Group) -> str:
    """What the last error says behind its type, if it says more."""
    text = group.message or ""
    return text.removeprefix(group.error_type).removeprefix(": ")


def shown(group: Group, url: Any) -> dict[str, Any]:
    """A group with the address of its jobs, and what a form sends to have them all requeued or removed."""
    words = {"state": "failed", "task": group.task, "error_type": group.error_type}
    return {
        "task": group.task,
        "error_type": group.error_type,
        "message": _message(group),
        "count": group.jobs,
        "first": group.first,
        "last": group.last,
        "example": group.example,
        "link": f"{url('jobs')}?{urlencode(words)}",
        "requeue": {**words, "verb": "requeue-all"},
        "delete": {**words, "verb": "delete-all"},
    }
