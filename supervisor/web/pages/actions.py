"""The page of what people did: who, when, what, and to how many."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.annals import Action
from jobvisor.supervisor.web.pages.asked import id_of
from jobvisor.supervisor.web.pages.templates import path, show
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)

PAGE = 100

_ONE_JOB = re.compile(r"job ([0-9]{1,19})")


@router.get("/actions", name="pages.actions")
def actions_page(request: Request, site: Here) -> Response:
    """The newest first, a hundred at a time."""
    before = id_of(request.query_params.get("before", ""))
    found = site.client.actions(limit=PAGE + 1, before=before)
    told = [_action(each, partial(path, request)) for each in found[:PAGE]]
    older = found[PAGE - 1].id if len(found) > PAGE else None
    return show(request, "actions.html", at="actions", actions=told, older=older)


def _action(action: Action, url: Any) -> dict[str, Any]:
    one = _ONE_JOB.fullmatch(action.what)
    return {
        "at": action.at,
        "who": action.who,
        "what": action.verb,
        "of": action.what,
        "link": url("job", job=int(one[1])) if one else "",
        "count": action.number,
    }
