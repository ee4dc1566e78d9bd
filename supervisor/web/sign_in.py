"""Signing in and out: a form, a session in a cookie, and a limit on tries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobvisor.supervisor.web.access import check_csrf
from jobvisor.supervisor.web.doorkeeper import Doorkeeper
from jobvisor.supervisor.web.gate import cookie
from jobvisor.supervisor.web.pages.templates import show
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.sessions import LIFETIME_S

router = APIRouter(include_in_schema=False)


def keeper_of(request: Request) -> Doorkeeper:
    """Who judges the requests of this application."""
    found: Doorkeeper = request.app.state.keeper
    return found


@router.get("/sign-in", name="pages.sign_in")
def sign_in_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - its name in the address
    """The form; whoever needs none goes on."""
    keeper = keeper_of(request)
    if not keeper.has_secret or keeper.authenticated_by is not None:
        return _go_on(request, next)
    return _form(request, next)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    user: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002 - its name in the form
) -> Response:
    """Begin a session, where name and password (or the token) are right."""
    await check_csrf(request)
    keeper = keeper_of(request)
    address = request.client.host if request.client else ""
    if seconds := keeper.tries.refuses(address):
        raise Problem(
            429,
            f"too many failed tries from your address; try again in {seconds} s",
            error="Access",
            headers={"Retry-After": str(seconds)},
        )
    name = keeper.is_password(user, password)
    if name is None:
        keeper.tries.note(address)
        return _form(request, next, "This name and password do not fit.", status=403)
    answer = _go_on(request, next)
    session = keeper.sessions.begin(name)
    answer.headers.append(
        "Set-Cookie", cookie(request, keeper.session_cookie, session, max_age=LIFETIME_S)
    )
    return answer


@router.post("/sign-out", name="pages.sign_out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    await check_csrf(request)
    keeper = keeper_of(request)
    keeper.sessions.end(request.cookies.get(keeper.session_cookie, ""))
    root = request.scope.get("root_path", "")
    answer = RedirectResponse(f"{root}/sign-in", 303)
    for name in (keeper.session_cookie, keeper.form_cookie):
        answer.headers.append("Set-Cookie", cookie(request, name, "", max_age=0))
    return answer


def _go_on(request: Request, where: str) -> Response:
    """To a page of ours, whatever the address said."""
    ours = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable()
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}{where if ours else '/'}", 303)


def _form(request: Request, where: str, trouble: str = "", *, status: int = 200) -> Response:
    settings = keeper_of(request).settings
    return show(
        request,
        "sign_in.html",
        status=status,
        next=where,
        user="",
        mistake=trouble,
        by_name=bool(settings.password),
        by_token=bool(settings.token),
    )
