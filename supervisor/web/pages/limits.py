"""The page of the limits: what each allows, how many jobs run and wait; and the form that sets one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.limit import LimitStanding
from jobvisor.supervisor.documents.limits import UNKNOWN_MAX, counted, said_of
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.pages.form import Form, back_of, is_sure, question, word_of
from jobvisor.supervisor.web.pages.templates import go, show
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)

WRITING = [Depends(writing)]

SHOWN_MAX = 1_000


@router.get("/limits", name="pages.limits")
def limits_page(request: Request, site: Here) -> Response:
    """All of them, by name, and those that jobs wait for and nobody has set."""
    limits = site.client.limits
    told = [_limit(each) for each in limits.list(limit=SHOWN_MAX)]
    return show(
        request, "limits.html", at="limits", limits=told, unknown=limits.unknown(most=UNKNOWN_MAX)
    )


@router.post("/limits/set", name="pages.set_limit", dependencies=WRITING)
def set_limit(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Say what one is, from now on."""
    client = site.client
    with client.transaction():
        limit = client.limits.set(
            word_of(form, "name").strip(),
            concurrency=_number(form, "concurrency"),
            rate=word_of(form, "rate").strip() or None,
            burst=_number(form, "burst"),
        )
        client.note_action(who, "limit", str(limit))
    return go(request, back_of(request, form, "limits"), f"Limit {limit}.")


@router.post("/limits/remove", name="pages.remove_limit", dependencies=WRITING)
def remove_limit(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Take back what was said of one."""
    name, client = word_of(form, "name"), site.client
    back = back_of(request, form, "limits")
    if not is_sure(form):
        return question(
            request,
            form,
            f"Remove limit {name}?",
            yes="Remove it",
            back=back,
            kind="danger",
            about="What a running family's configuration says of it counts again within seconds. "
            "Without that its jobs wait until somebody says what it is.",
        )
    with client.transaction():
        if client.limits.remove(name):
            client.note_action(who, "limit", f"{name}: removed")
    return go(request, back, f"Limit {name} is gone.")


def _limit(each: LimitStanding) -> dict[str, Any]:
    limit = each.limit
    return {
        "name": limit.name,
        "concurrency": limit.concurrency,
        "rate": limit.rate_text,
        "burst": limit.burst,
        "running": counted(each.running),
        "waiting": counted(each.waiting),
        "key_count": counted(each.keys),
        "source": said_of(limit),
    }


def _number(form: Form, name: str) -> int | None:
    text = word_of(form, name).strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidOption(f"{name}={text[:20]!r} must be a whole number, or empty for none")
    return int(text)
