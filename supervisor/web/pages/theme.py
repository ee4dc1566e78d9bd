"""The colours that somebody chose: light, dark, or as the system has them; a cookie remembers it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.supervisor.web.access import check_csrf
from jobvisor.supervisor.web.pages.templates import THEMES, go, local, path, theme_cookie

router = APIRouter(include_in_schema=False)


@router.post("/theme", name="pages.theme", dependencies=[Depends(check_csrf)])
def choose(
    request: Request, theme: Annotated[str, Form()] = "auto", back: Annotated[str, Form()] = ""
) -> Response:
    """Choose, and go back to the page; the script of a page does without this."""
    answer = go(request, local(request, back, path(request, "overview")))
    theme_cookie(request, answer, theme if theme in THEMES else "auto")
    return answer
