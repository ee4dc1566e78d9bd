"""Every answer that is no success: one sentence, in a problem document (RFC 9457) or as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response

from jobvisor.jobs.errors import (
    FamilyNotRunning,
    FamilyRunning,
    IllegalMove,
    InvalidOption,
    JobNotFound,
    JobsError,
    PayloadError,
    RowRefused,
    ScheduleNotFound,
    ScheduleTaken,
    SchemaError,
    StoreUnavailable,
    UniqueTaken,
    UnknownTask,
    WaitTimeout,
    shown,
)
from jobvisor.jobs.job import json_id

__all__ = ["MEDIA_TYPE", "Page", "Problem", "for_api", "install", "problem_of"]

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER_S = 5
"""What a caller is told to wait for a database that does not answer."""

_KIND = re.compile(
    r"(constrained-)?(float|str|int|bool)|RetryPolicy|(literal|function-\w+|list|dict)\[.*"
)
"""How Pydantic calls the kinds that a value may be of, as if they were steps to it."""

MISTAKES_SHOWN = 20
"""Of what is wrong with one request."""

_STATUS_OF: Mapping[type[JobsError], int] = {
    JobNotFound: 404,
    ScheduleNotFound: 404,
    ScheduleTaken: 409,
    UnknownTask: 422,
    IllegalMove: 409,
    FamilyRunning: 409,
    FamilyNotRunning: 409,
    WaitTimeout: 504,
    InvalidOption: 422,
    PayloadError: 422,
    RowRefused: 422,
    StoreUnavailable: 503,
    SchemaError: 503,
}
"""What is in none of these is a fault of the installation: 500."""


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 gives it
    """An answer that is no success: raise it anywhere, or send its `response()`.

    `detail` is one sentence for people; `error` a word for programs; `more` are further members of the
    document. It must hold no secret and nothing that a caller has not sent himself.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        error: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.error = error
        self.headers = dict(headers or {})
        self.more = more

    @property
    def title(self) -> str:
        """The words that HTTP has for the status."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Error"

    def document(self) -> dict[str, Any]:
        """What is sent, as RFC 9457 names it."""
        told = {"error": self.error} if self.error else {}
        return {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **told,
            **self.more,
        }

    def response(self) -> Response:
        """The document as an answer."""
        # In ASCII: half a surrogate that somebody sent comes back as the escape it was sent as.
        body = json.dumps(self.document(), separators=(",", ":"))
        return Response(body, self.status, self.headers, MEDIA_TYPE)


Page = Callable[[Request, Problem], Response]
"""How pages show a problem."""


def problem_of(error: JobsError) -> Problem:
    """The problem that one of our errors is to who asked over HTTP."""
    status = next((_STATUS_OF[kind] for kind in type(error).__mro__ if kind in _STATUS_OF), 500)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    more = {"holder": json_id(error.holder)} if isinstance(error, UniqueTaken) else {}
    return Problem(status, str(error), error=type(error).__name__, headers=headers, **more)


def for_api(connection: HTTPConnection) -> bool:
    """Whether a program asks, which reads problem documents: by the path, then by what it accepts."""
    root = connection.scope.get("root_path", "")
    path = connection.scope["path"].removeprefix(root)
    return path.startswith("/api/") or "text/html" not in connection.headers.get("accept", "")


def plain_page(_request: Request, problem: Problem) -> Response:
    """A page of one sentence."""
    title = escape(problem.title)
    text = f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1><p>{escape(problem.detail)}"
    return HTMLResponse(text, problem.status, problem.headers)


def install(app: FastAPI, page: Page = plain_page) -> None:
    """Have the application answer every error by a problem document, or by this page for people."""

    def answer(request: Request, problem: Problem) -> Response:
        return problem.response() if for_api(request) else page(request, problem)

    async def ours(request: Request, error: Exception) -> Response:
        return answer(request, _problem(error))

    for kind in (Problem, JobsError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, ours)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, JobsError):
        return problem_of(error)
    if isinstance(error, RequestValidationError):
        return _problem_of_request(error)
    if isinstance(error, HTTPException):
        return _problem_of_http(error)
    return Problem(
        500,
        "jobvisor has met an error of its own; the log of the web role has it",
        error="Internal",
    )


def _problem_of_http(error: HTTPException) -> Problem:
    """What the framework refuses by itself."""
    status = error.status_code
    said = {
        404: "there is nothing at this address",
        405: "this address does not take this method",
        400: "the body of the request cannot be read as JSON",
    }.get(status, shown(error.detail).strip("'\""))
    return Problem(status, said, error="Request", headers=error.headers)


def _problem_of_request(error: RequestValidationError) -> Problem:
    """What does not fit the document of the API; 400 for a body that is no JSON at all."""
    mistakes = _by_place(map(_mistake, error.errors()))
    broken = any(each.get("type") == "json_invalid" for each in error.errors())
    where, what = mistakes[0] if mistakes else ("the request", "cannot be used")
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return Problem(
        400 if broken else 422,
        f"{where}: {what}{more}",
        error="Request",
        mistakes=[{"where": where, "what": what} for where, what in mistakes[:MISTAKES_SHOWN]],
    )


def _by_place(mistakes: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One mistake for each place: of what may be one thing or another, it is none of them."""
    found: dict[str, list[str]] = {}
    for where, what in mistakes:
        said = found.setdefault(where, [])
        if what not in said:
            said.append(what)
    return [(where, ", or ".join(said)) for where, said in found.items()]


def _mistake(told: Mapping[str, Any]) -> tuple[str, str]:
    """Where, and what is wrong there: never the value, which may be somebody's password."""
    kind, place = told.get("type"), tuple(told.get("loc", ()))
    if kind == "json_invalid":
        return "body", f"is no JSON: {told.get('ctx', {}).get('error', 'it cannot be read')}"
    if kind == "extra_forbidden":
        return _place(place), "is not known here; leave it out"
    if kind == "missing":
        return _place(place), "is missing"
    words = str(told.get("msg", "cannot be used")).removeprefix("Value error, ")
    return _place(place), words[:1].lower() + words[1:]


def _place(steps: Iterable[Any]) -> str:
    """`body.args[0].to`, bounded: its names are a caller's own. The names of kinds are left out.

    >>> _place(("body", "args", 0, "to")), _place(("body", "timeout", "float"))
    ('body.args[0].to', 'body.timeout')
    """
    text = ""
    for step in steps:
        if isinstance(step, str) and _KIND.fullmatch(step):
            continue
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text if len(text) <= 200 else f"{text[:200]}..."
