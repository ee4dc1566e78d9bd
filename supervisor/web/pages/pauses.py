"""What the buttons of the pages of queues and tasks do: pause and resume."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.pages.form import Form, back_of, is_sure, question, word_of
from jobvisor.supervisor.web.pages.templates import go
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False, dependencies=[Depends(writing)])


@router.post("/pauses/pause", name="pages.pause")
def pause(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Have no job of a queue, or of a task, begin until somebody resumes it."""
    kind, name = _which(word_of(form, "queue"), word_of(form, "task"))
    back = back_of(request, form, f"{kind}s")
    if not is_sure(form):
        return question(
            request,
            form,
            f"Pause {kind} {name}?",
            yes="Pause it",
            back=back,
            about="No job of it begins any more, in any family, until it is resumed. Jobs are accepted, "
            "and what runs goes on.",
        )
    with site.client.transaction():
        site.client.pause(**{kind: name})
        site.client.note_action(who, "pause", f"{kind} {name}")
    return go(request, back, f"{kind.capitalize()} {name} is paused.")


@router.post("/pauses/resume", name="pages.resume")
def resume(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Let its jobs begin again."""
    kind, name = _which(word_of(form, "queue"), word_of(form, "task"))
    back = back_of(request, form, f"{kind}s")
    if not site.client.resume(**{kind: name}):
        return go(request, back, f"{kind.capitalize()} {name} was not paused.")
    site.client.note_action(who, "resume", f"{kind} {name}")
    return go(request, back, f"{kind.capitalize()} {name} is resumed.")


def _which(queue: str, task: str) -> tuple[str, str]:
    return ("task", task) if task else ("queue", queue)
