"""What the button of the page of queues does that makes one fair, or ordinary again."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.pages.form import Form, back_of, is_sure, question, word_of
from jobvisor.supervisor.web.pages.templates import go
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False, dependencies=[Depends(writing)])


@router.post("/queues/fair", name="pages.fair")
def set_fair(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Serve the shares of a queue in turn, or no more."""
    name, fair = word_of(form, "queue"), word_of(form, "fair") == "on"
    back, word = back_of(request, form, "queues"), "fair" if fair else "ordinary"
    if not is_sure(form):
        return question(
            request,
            form,
            f"Make queue {name} {word}?",
            yes=f"Make it {word}",
            back=back,
            about="The jobs of each share come in turn then, however many one of them has waiting, in "
            "all families. What waits already is lined up within seconds."
            if fair
            else "Its jobs come by their age then, whatever their share, in all families.",
        )
    with site.client.transaction():
        if site.client.set_fair(name, fair):
            site.client.note_action(who, "fair", f"queue {name} {'on' if fair else 'off'}")
    return go(request, back, f"Queue {name} is {word}.")
