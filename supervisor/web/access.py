"""Who asks, and what he may do: what endpoints and pages are told of it.

`Who` is the type of a parameter that wants a name, `writing` the dependency of everything that changes
something, `csrf()` what a template puts into each of its forms.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import Depends
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import HTTPConnection, Request

from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.site import site_of

__all__ = ["CSRF_FIELD", "CSRF_HEADER", "By", "Caller", "Who", "csrf", "csrf_of", "who", "writing"]

VISIT: Final = "jobvisor.visit"
"""Where the gate keeps the visit in the scope of a request."""

CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a page of somebody else's can send without asking."""


class By(Enum):
    """How somebody was let in."""

    TOKEN = "a Bearer token"  # noqa: S105 - how, not which
    SESSION = "a sign-in"
    MACHINE = "this machine, where nothing is set that would be asked for"
    HOST = "the application around this one"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    by: By


@dataclass(frozen=True, slots=True)
class Visit:
    """What the gate knows of a request that it let in."""

    caller: Caller | None
    """None at the few addresses that need no sign-in."""
    csrf: str
    """What this browser must send with each of its forms; also its cookie."""


def visit_of(connection: HTTPConnection) -> Visit:
    """What the gate found out about this request."""
    found: Visit = connection.scope[VISIT]
    return found


def who(connection: HTTPConnection) -> str:
    """The name of whoever asks, for the log of actions."""
    caller = visit_of(connection).caller
    return caller.name if caller else "nobody"


Who = Annotated[str, Depends(who)]
"""The type of a parameter that wants to know who asks."""


async def writing(request: Request) -> None:
    """The dependency of all that changes something: refused where the site is read-only.

    A browser must send what its page was given, as the field `csrf` of a form or as the header
    `X-CSRF-Token`: another site's page can make it send a request, and cannot know this.
    """
    if site_of(request).settings.read_only:
        raise Problem(403, "this site is read-only: [web] read_only = true", error="ReadOnly")
    await check_csrf(request)


async def check_csrf(request: Request) -> None:
    """Problem 403 where a browser asks, and not one of our own pages in it."""
    visit = visit_of(request)
    if not _is_browser(request, visit.caller):
        return
    given = request.headers.get(CSRF_HEADER, "")
    if not given and _content_type(request) in _FORMS[:2]:
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else ""
    if not hmac.compare_digest(given.encode(), visit.csrf.encode()):
        raise Problem(
            403,
            "this form is not one of ours, or too old; load the page again and repeat it",
            error="Csrf",
        )


def _is_browser(request: Request, caller: Caller | None) -> bool:
    """Whether a browser may have been made to send this by somebody else's page."""
    if caller is not None and caller.by is By.TOKEN:
        return False  # no browser sends one by itself
    if caller is None or caller.by is By.SESSION:
        return True
    headers = request.headers
    told = any(name in headers for name in ("origin", "sec-fetch-site", "cookie"))
    return told or _content_type(request) in _FORMS


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def csrf_of(connection: HTTPConnection) -> str:
    """What a script of our pages sends as the header `X-CSRF-Token`."""
    return visit_of(connection).csrf


@pass_context
def csrf(context: Context) -> Markup:
    """The hidden field of a form, for a template that has its `request`."""
    request: Any = context["request"]
    return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, csrf_of(request))
