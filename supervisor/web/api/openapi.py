"""The document of the API: what FastAPI makes of the types, with problem documents where it has none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from jobvisor.supervisor.web.problems import MEDIA_TYPE

__all__ = ["answer", "describe", "refusals"]

_ALWAYS = (400, 401, 403, 413, 429, 500, 503)
"""What any call may be answered with: a malformed request, no right, too much of it, no database."""

_WORDS = {
    400: "The request is malformed, or its body is no JSON.",
    401: "Whoever asks has not shown who he is.",
    403: "Whoever asks may not do this.",
    404: "There is no such thing.",
    405: "This address does not take this method.",
    409: "What it is about is not in a state that allows this.",
    413: "The body is too large.",
    422: "A value is not what it must be.",
    429: "Too many wrong tokens.",
    500: "An error of jobvisor's own, or of its installation.",
    503: "The database does not answer now; `Retry-After` says when to ask again.",
}


class Mistake(BaseModel):
    """One thing that is wrong with a request."""

    where: str
    what: str


class ProblemDocument(BaseModel):
    """An answer that is no success (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no job has the id 17: it may have been pruned",
                    "error": "JobNotFound",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence: what is wrong, and what to do.")
    error: str | None = Field(None, description="A word for programs, such as `JobNotFound`.")
    holder: int | str | None = Field(None, description="Of `UniqueTaken`: the job with the key.")
    mistakes: list[Mistake] | None = None


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a call may be refused with, besides what any call may be."""
    return {
        status: {"model": ProblemDocument, "description": _WORDS[status]}
        for status in (*_ALWAYS, *statuses)
    }


def describe(app: FastAPI) -> None:
    """Have the application's document say that its refusals are problem documents, and how one signs in."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            for operation in _operations(document):
                _say_problems(operation["responses"])
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = {
                "type": "http",
                "scheme": "bearer",
                "description": "`[web] token`; this machine needs none where none is set.",
            }
            document["security"] = [{"token": []}, {}]
        schema: dict[str, Any] = app.openapi_schema or document
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _operations(document: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return (
        operation
        for path, operations in document.get("paths", {}).items()
        for operation in operations.values()
        if path.startswith("/api/")
    )


def _say_problems(responses: dict[str, Any]) -> None:
    """Also of a call that does not say its refusals itself."""
    for status in {*map(str, _ALWAYS), *responses}:
        if status >= "400":
            told = responses.setdefault(status, {"description": _WORDS[int(status)]})
            told["content"] = {
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
            }


def answer(told: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document as the answer."""
    # In ASCII, so that half a surrogate, which a stranger may have stored, is no error.
    body = json.dumps(told, separators=(",", ":"))
    return Response(body, status, headers, "application/json")
