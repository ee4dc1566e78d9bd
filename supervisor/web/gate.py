"""What stands before the whole application: each request is judged here, and each answer gets its headers."""

from __future__ import annotations

import asyncio
import re
from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobvisor.supervisor.web.access import CSRF_HEADER, VISIT, Visit
from jobvisor.supervisor.web.body import whole_body
from jobvisor.supervisor.web.doorkeeper import Doorkeeper, path_of
from jobvisor.supervisor.web.problems import Page, Problem, for_api
from jobvisor.supervisor.web.tries import WAITING_MAX

__all__ = ["HEAD_BYTES_MAX", "Gate"]

HEADERS: Final = {
    # Nothing of other hosts, nothing written into a page, no frame around one.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it browsers send `Origin: null` with the forms of our own pages.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HEAD_BYTES_MAX: Final = 16 * 1024
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_STRANGE_PATH = re.compile(r"[\x00-\x1f\x7f\\]|//|(^|/)\.{1,2}(/|$)")
_ALLOWED_METHODS = "GET, POST, PUT, PATCH, DELETE"
_ALLOWED_HEADERS = f"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, {CSRF_HEADER}"
_PREFLIGHT_S = "600"


class Gate:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, keeper: Doorkeeper, page: Page, body_s: float) -> None:
        """`page` shows to people what is refused; a body has `body_s` seconds to come."""
        self._body_s = body_s
        self._app = app
        self._keeper = keeper
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, judged before the application hears of it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        out = _Answer(send, self._friend(connection))
        try:
            _check_shape(connection)
            if _is_preflight(connection):
                await _preflight(scope, receive, out, allowed=bool(out.friend))
                return
            visit = self._keeper.visit(connection)
            receive = await whole_body(scope, receive, self._body_s, known=visit.caller is not None)
        except Problem as problem:
            response = await self._refused(connection, problem)
            await response(scope, receive, out)
            return
        scope[VISIT] = visit
        out.cookie = self._new_cookie(connection, visit)
        await self._app(scope, receive, out)

    def _friend(self, connection: HTTPConnection) -> str:
        origin = connection.headers.get("origin", "")
        return origin if self._keeper.is_foreign_friend(origin) else ""

    async def _refused(self, connection: HTTPConnection, problem: Problem) -> Response:
        # Also by another name or of another site: of a right one neither is asked.
        if problem.status in (401, 403) and connection.headers.get("authorization"):
            problem = await self._held_back(connection, problem)
        if for_api(connection):
            return problem.response()
        if problem.status == 401 and connection.scope["method"] in _SAFE_METHODS:
            return RedirectResponse(_sign_in(connection), 303)
        return self._page(Request(connection.scope), problem)

    async def _held_back(self, connection: HTTPConnection, problem: Problem) -> Problem:
        """A wrong token is answered late; where many wait already, told so at once."""
        tries = self._keeper.tries
        seconds = tries.note(connection.client.host if connection.client else "")
        if not seconds:
            return problem
        if tries.waiting >= WAITING_MAX:
            return Problem(
                429,
                "too many wrong tokens; wait a moment",
                error="Access",
                headers={"Retry-After": "2"},
            )
        tries.waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            tries.waiting -= 1
        return problem

    def _new_cookie(self, connection: HTTPConnection, visit: Visit) -> str:
        """The cookie against forms of other sites, for a browser that has none yet."""
        name = self._keeper.form_cookie
        if connection.cookies.get(name) == visit.csrf:
            return ""
        return cookie(connection, name, visit.csrf)


class _Answer:
    """Sends on, with the headers that all answers have."""

    def __init__(self, send: Send, friend: str) -> None:
        self._send = send
        self.friend = friend
        self.cookie = ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            if self.friend:
                headers["Access-Control-Allow-Origin"] = self.friend
                headers["Cross-Origin-Resource-Policy"] = "cross-origin"
                headers.add_vary_header("Origin")
            if self.cookie and headers.get("content-type", "").startswith("text/html"):
                headers.append("Set-Cookie", self.cookie)
        await self._send(message)


def cookie(connection: HTTPConnection, name: str, value: str, *, max_age: int | None = None) -> str:
    """A Set-Cookie header that no script reads, and that no other site's page has sent along."""
    jar: SimpleCookie = SimpleCookie()
    jar[name] = value
    morsel = jar[name]
    morsel["path"] = connection.scope.get("root_path", "") or "/"
    morsel["httponly"] = True
    morsel["samesite"] = "Strict"
    if max_age is not None:
        morsel["max-age"] = max_age
    if is_encrypted(connection):
        morsel["secure"] = True
    return jar.output(header="").strip()


def is_encrypted(connection: HTTPConnection) -> bool:
    """Whether the browser speaks HTTPS, if only to a proxy: then it says so in its Origin."""
    origin = connection.headers.get("origin", "")
    return connection.url.scheme == "https" or origin.startswith("https://")


def _check_shape(connection: HTTPConnection) -> None:
    """400 for what two programs could read in two ways: a proxy and we, for instance."""
    names = [name for name, _ in connection.scope["headers"]]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise _malformed("it has both a length and a transfer encoding")
    for name in (b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin"):
        if names.count(name) > 1:
            raise _malformed(f"it has the header {name.decode()} twice")
    if b"upgrade" in names and b"content-length" in names:
        raise _malformed("it wants another protocol and has a body")
    if sum(len(name) + len(value) for name, value in connection.scope["headers"]) > HEAD_BYTES_MAX:
        raise Problem(
            431,
            f"the headers are larger than {HEAD_BYTES_MAX >> 10} KiB",
            error="Request",
            headers={"Connection": "close"},
        )
    path = path_of(connection)
    if not path.startswith("/") or _STRANGE_PATH.search(path):
        raise _malformed("its path is none of ours")


def _malformed(what: str) -> Problem:
    return Problem(
        400, f"the request is malformed: {what}", error="Request", headers={"Connection": "close"}
    )


def _is_preflight(connection: HTTPConnection) -> bool:
    headers = connection.headers
    asks = "origin" in headers and "access-control-request-method" in headers
    return connection.scope["method"] == "OPTIONS" and asks


async def _preflight(scope: Scope, receive: Receive, send: Send, *, allowed: bool) -> None:
    """What a page of `origins` may send; to all others nothing is allowed."""
    headers = {
        "Access-Control-Allow-Methods": _ALLOWED_METHODS,
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": _PREFLIGHT_S,
    }
    await Response(status_code=204, headers=headers if allowed else {})(scope, receive, send)


def _sign_in(connection: HTTPConnection) -> str:
    path, query = path_of(connection), connection.scope.get("query_string", b"").decode("latin-1")
    then = quote(f"{path}?{query}" if query else path, safe="/")
    return f"{connection.scope.get('root_path', '')}/sign-in?next={then}"
