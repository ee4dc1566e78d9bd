"""The templates: what every page has around it, and how one is made an answer.

All that a template prints is escaped, and cleaned of what would hide or reorder the text beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from jobvisor.jobs import __version__
from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.web.access import VISIT, By, csrf_of, visit_of
from jobvisor.supervisor.web.gate import is_encrypted
from jobvisor.supervisor.web.pages.paths import Paths
from jobvisor.supervisor.web.pages.words import FILTERS, plain, times

__all__ = ["STATIC", "THEMES", "go", "local", "path", "show", "theme_cookie"]

_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

STATIC = StaticFiles(directory=os.path.join(_FOLDER, "static"))

NAVIGATION = (
    ("overview", "Overview"),
    ("queues", "Queues"),
    ("jobs", "Jobs"),
    ("failures", "Failures"),
    ("workers", "Workers"),
    ("families", "Families"),
    ("tasks", "Tasks"),
    ("schedules", "Schedules"),
    ("limits", "Limits"),
    ("actions", "Actions"),
)

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "jobvisor_theme"
THEME_SECONDS = 365 * 86_400

SAID_COOKIE = "jobvisor_said"
"""What the last form did, for the page that is shown after it."""
SAID_MAX = 500
SAID_SECONDS = 60


def _printed(value: object) -> object:
    if value is None:
        return ""
    return value if isinstance(value, Markup) else plain(value)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(os.path.join(_FOLDER, "templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
    finalize=_printed,
)
_ENVIRONMENT.filters.update(FILTERS)
_ENVIRONMENT.globals["times"] = times


def root_of(request: Request) -> str:
    """Where the application is mounted: what stands before each of its addresses."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path(request: Request, name: str, /, **parameters: Any) -> str:
    """The address of a page, below where the application is mounted, without a host."""
    root = root_of(request)
    known: Paths = request.app.state.paths
    return root + known.of(name, parameters)


def local(request: Request, wanted: str, otherwise: str) -> str:
    """An address within these pages, as a form sends it to be brought back to; nobody else's.

    A browser takes `//host`, and with a backslash too, for another host.
    """
    root = root_of(request)
    if not wanted.startswith(f"{root}/") or wanted.startswith("//"):
        return otherwise
    if not wanted.isprintable() or "\\" in wanted or len(wanted) > 2_000:
        return otherwise
    return wanted


def show(
    request: Request,
    template: str,
    /,
    *,
    at: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """A page; `at` is its place in the navigation."""
    said = _said(request)
    page = _ENVIRONMENT.get_template(template).render(
        url=partial(path, request),
        root=root_of(request),
        query=partial(_query, request),
        navigation=NAVIGATION,
        at=at,
        here=here(request),
        theme=theme_of(request),
        now_ms=SYSTEM.now_ms(),
        version=__version__,
        said=said,
        **_of_visit(request),
        **values,
    )
    answer = HTMLResponse(page, status, headers)
    answer.headers.setdefault("Cache-Control", "no-store")
    if said and not _is_look(request):
        answer.delete_cookie(SAID_COOKIE, path=_cookie_path(request))
    return answer


def go(request: Request, address: str, said: str = "") -> Response:
    """On to another page after a form, which says what has been done."""
    answer = RedirectResponse(address, 303)
    if said:
        answer.set_cookie(
            SAID_COOKIE,
            quote(plain(said)[:SAID_MAX]),
            max_age=SAID_SECONDS,
            path=_cookie_path(request),
            httponly=True,
            samesite="strict",
            secure=is_encrypted(request),
        )
    return answer


def theme_of(request: Request) -> str:
    """Light or dark where somebody has chosen, else what the system says."""
    wanted = request.cookies.get(THEME_COOKIE, "")
    return wanted if wanted in THEMES else "auto"


def theme_cookie(request: Request, answer: Response, theme: str) -> None:
    """Remember it; the script of the page, which may set it too, reads it."""
    answer.set_cookie(
        THEME_COOKIE,
        theme,
        max_age=THEME_SECONDS,
        path=_cookie_path(request),
        samesite="strict",
        secure=is_encrypted(request),
    )


def _said(request: Request) -> str:
    return unquote(request.cookies.get(SAID_COOKIE, ""))[:SAID_MAX]


def _is_look(request: Request) -> bool:
    """Whether the script of an open page asks, and shows only what has changed."""
    return request.headers.get("x-live") == "1"


def _cookie_path(request: Request) -> str:
    return root_of(request) or "/"


def here(request: Request) -> str:
    """The address of this page, to come back to."""
    root = root_of(request)
    below = request.scope["path"].removeprefix(root)
    asked = request.scope.get("query_string", b"").decode("ascii", "replace")
    return root + quote(below) + (f"?{asked}" if asked else "")


def _query(request: Request, **changes: Any) -> str:
    """The query of this page with some of it changed; None leaves a word out."""
    words: dict[str, Any] = {
        name: value for name, value in request.query_params.multi_items() if value
    }
    words.update(changes)
    return "?" + urlencode({name: value for name, value in words.items() if value is not None})


def _of_visit(request: Request) -> dict[str, Any]:
    """Who looks, and what he may do."""
    settings = request.app.state.site.settings
    known = VISIT in request.scope  # not where a request was refused before that was asked
    caller = visit_of(request).caller if known else None
    return {
        "read_only": settings.read_only,
        "csrf": csrf_of(request) if known else "",
        "signed_in": caller is not None and caller.by is By.SESSION,
    }
