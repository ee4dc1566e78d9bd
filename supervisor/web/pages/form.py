"""A form that a page has sent, and the question that is asked before what cannot be undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

from fastapi import Depends
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.supervisor.web.pages.templates import here, local, path, show

__all__ = ["SAMPLE_MAX", "Field", "Form", "back_of", "is_sure", "question", "word_of"]

SAMPLE_MAX = 5


class Field(NamedTuple):
    """What a question asks for beside a yes."""

    name: str
    label: str
    value: str
    hint: str
    mistake: str = ""
    """What is wrong with the last answer."""


async def _form(request: Request) -> FormData:
    return await request.form()


Form = Annotated[FormData, Depends(_form)]
"""The type of a parameter that wants the fields of the form."""


def word_of(form: FormData, name: str) -> str:
    """One field as a text, its lines ended by LF alone; empty where it was not sent, or is a file."""
    value = form.get(name)
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""


def is_sure(form: FormData) -> bool:
    """Whether the question has been answered."""
    return word_of(form, "sure") == "yes"


def back_of(request: Request, form: FormData, page: str = "overview", **parameters: int) -> str:
    """Where the form wants to be brought back to, else this page."""
    return local(request, word_of(form, "back"), path(request, page, **parameters))


def question(
    request: Request,
    form: FormData,
    text: str,
    *,
    yes: str,
    back: str,
    about: str = "",
    sample: Sequence[str] = (),
    more: str = "",
    kind: str = "",
    field: Field | None = None,
) -> Response:
    """Ask, with the same form behind the answer; without `yes` there is nothing to be agreed to."""
    name = None if field is None else field.name
    return show(
        request,
        "question.html",
        question=text,
        about=about,
        sample=list(sample)[:SAMPLE_MAX],
        more=more,
        action=here(request),
        values=[pair for pair in _values(form) if pair[0] != name],
        field=field,
        back=back,
        yes=yes,
        kind=kind,
    )


def _values(form: FormData) -> Iterable[tuple[str, str]]:
    for name, value in form.multi_items():
        if isinstance(value, str) and name not in ("csrf", "sure"):
            yield name, value
