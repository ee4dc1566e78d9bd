"""How people are shown what went wrong: a page of one sentence, like all others."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from jobvisor.supervisor.web.pages.templates import show
from jobvisor.supervisor.web.problems import Problem

__all__ = ["error_page"]

HEADINGS = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    409: "Not in this state",
    413: "Too large",
    422: "That cannot be used",
    429: "Too many tries",
    503: "The database does not answer",
}


def error_page(request: Request, problem: Problem) -> Response:
    """The page of a problem."""
    heading = HEADINGS.get(problem.status, problem.title)
    return show(
        request,
        "error.html",
        status=problem.status,
        headers=problem.headers,
        code=problem.status,
        heading=heading,
        detail=problem.detail,
    )
