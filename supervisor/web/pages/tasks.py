"""The page of the tasks that workers have registered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.annals import TASK, KnownTask
from jobvisor.supervisor.web.pages.templates import show
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False)

OPTIONS_APART = frozenset({"queue", "retries"})
"""They have a column of their own."""

TEXT_MAX = 300


@router.get("/tasks", name="pages.tasks")
def tasks_page(request: Request, site: Here) -> Response:
    """Each with its options, as a worker has last told them."""
    paused = {each.name: each for each in site.client.paused() if each.kind == TASK}
    told = [
        {**_task(site, each), "paused": paused.pop(each.name, None)} for each in site.client.tasks()
    ]
    # Of what is still in there no worker has told.
    return show(request, "tasks.html", at="tasks", tasks=told, others=list(paused.values()))


def _task(site: Site, task: KnownTask) -> dict[str, Any]:
    """What a worker told was JSON once; of a release that tells otherwise as much as can be read."""
    options = task.told.get("options")
    options = options if isinstance(options, Mapping) else {}
    return {
        "name": task.name,
        "about": str(task.told.get("doc") or "")[:TEXT_MAX],
        "parameters": ", ".join(_parameters(task.told.get("parameters")))[:TEXT_MAX],
        "queue": options.get("queue", ""),
        "retries": options.get("retries", ""),
        "options": [
            f"{name} {_worded(value)}"
            for name, value in options.items()
            if name not in OPTIONS_APART
        ],
        "seen": task.seen_at,
        "may_enqueue": any(
            fnmatchcase(task.name, pattern) for pattern in site.settings.allow_tasks
        ),
    }


def _parameters(told: Any) -> Iterator[str]:
    """As a signature has them; what is left out by default is in brackets."""
    for each in told if isinstance(told, list) else ():
        if isinstance(each, Mapping):
            name = str(each.get("name", "?"))
            yield name if each.get("required", True) else f"[{name}]"


def _worded(value: Any) -> str:
    """An option as it is read: of a retry policy its kind and what that is given, of `keep` each end."""
    if isinstance(value, Mapping) and "kind" in value:
        return " ".join(str(each) for each in value.values() if not isinstance(each, bool))
    if isinstance(value, Mapping):
        return " and ".join(f"{name} {_worded(each)}" for name, each in value.items())[:TEXT_MAX]
    return value if isinstance(value, str) else json.dumps(value)[:TEXT_MAX]
