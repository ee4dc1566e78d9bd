"""What the buttons of a list do to many jobs: those that were chosen, or all that the page would show."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import APIRouter, Depends
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.client import Swept
from jobvisor.jobs.due import NOW
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import FINISHED, UNFINISHED, WAITING, State
from jobvisor.supervisor.documents.words import call
from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api.bulk import sweep
from jobvisor.supervisor.web.pages.asked import Asked, ids_of
from jobvisor.supervisor.web.pages.form import (
    SAMPLE_MAX,
    Field,
    Form,
    back_of,
    is_sure,
    question,
    word_of,
)
from jobvisor.supervisor.web.pages.known import meant
from jobvisor.supervisor.web.pages.templates import go
from jobvisor.supervisor.web.pages.when import due_of
from jobvisor.supervisor.web.pages.words import times
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False, dependencies=[Depends(writing)])


class Act(NamedTuple):
    """What is done to many jobs."""

    verb: str
    """As the log of actions has it."""
    states: frozenset[State]
    """What a job must be in for it."""
    unsaid: frozenset[State]
    """The states that are meant where none is said."""
    done: str
    about: str


ACTS = {
    "requeue": Act(
        "requeue",
        FINISHED,
        frozenset({State.FAILED}),
        "requeued",
        "Each starts over at attempt 0; its history is kept.",
    ),
    "reschedule": Act(
        "reschedule",
        WAITING,
        WAITING,
        "rescheduled",
        "Each is due at this time then; one that is blocked goes on waiting for what it waits for.",
    ),
    "cancel": Act(
        "cancel",
        UNFINISHED,
        UNFINISHED,
        "cancelled",
        "Those that run are asked to leave, and killed after cancel_grace; the others will not run.",
    ),
    "delete": Act(
        "prune", FINISHED, FINISHED, "deleted", "They go for good, and their history with them."
    ),
}


@router.post("/jobs/bulk", name="pages.bulk")
def bulk(request: Request, site: Here, who: Who, form: Form) -> Response:
    """Ask with the number first; then do it, a page of jobs in a transaction."""
    name, everything = _verb(form)
    act = ACTS[name]
    wanted = _filter(site, form, act, everything)
    back = back_of(request, form, "jobs")
    due = due_of(form) if name == "reschedule" else NOW
    if isinstance(due, Field) or not is_sure(form):
        field = due if isinstance(due, Field) else None
        return _ask(request, site, form, who, name=name, wanted=wanted, back=back, field=field)
    return go(request, back, _told(act, sweep(site, who, act.verb, wanted, dry_run=False, due=due)))


def _told(act: Act, swept: Swept) -> str:
    refused = swept.outcomes.get("refused", 0)
    told = f"{times(swept.jobs - refused, 'job')} {act.done}"
    if asked := swept.outcomes.get("requested", 0):
        told += f", {asked:,} of them asked to leave"
    if refused:
        told += f"; {refused:,} refused: {swept.refusals[0].error}"
    return f"{told}."


def _ask(
    request: Request,
    site: Site,
    form: FormData,
    who: str,
    *,
    name: str,
    wanted: Filter,
    back: str,
    field: Field | None = None,
) -> Response:
    """How many there are, and some of them."""
    swept = sweep(site, who, ACTS[name].verb, wanted, dry_run=True)
    number = f"{swept.jobs:,}{'+' if swept.at_least else ''} {'job' if swept.jobs == 1 else 'jobs'}"
    if not swept.jobs:
        return question(
            request, form, f"There is no job to {name}", yes="", back=back, about=_which(wanted)
        )
    hiding = site.hiding
    sample = [
        f"{job.id} {job.task}({call(hiding.shown(job.as_json()))})"
        for job in site.client.page(wanted, limit=SAMPLE_MAX).jobs
    ]
    more = swept.jobs - len(sample)
    return question(
        request,
        form,
        f"{name.capitalize()} {number}?",
        yes=f"{name.capitalize()} {number}",
        back=back,
        about=f"{_which(wanted)} {ACTS[name].about}",
        sample=sample,
        more=f"{more:,}{'+' if swept.at_least else ''}" if more > 0 and sample else "",
        kind="danger" if name in ("cancel", "delete") else "",
        field=field,
    )


def _which(wanted: Filter) -> str:
    """What is meant, in words."""
    said = {
        name: value
        for name, value in wanted.as_json().items()
        if name not in ("ids", "in_arguments")
    }
    words = [
        f"{name.replace('_', ' ')} {' or '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in said.items()
    ]
    return f"Those of {', '.join(words)}." if wanted.numbers is None else "Those that were chosen."


def _verb(form: FormData) -> tuple[str, bool]:
    """The verb, and whether all are meant that match."""
    given = word_of(form, "verb")
    name = given.removesuffix("-all")
    if name not in ACTS:
        raise InvalidOption(f"{shown(given)} is nothing that is done to jobs")
    return name, given.endswith("-all")


def _filter(site: Site, form: FormData, act: Act, everything: bool) -> Filter:
    if not everything:
        ids = ids_of(form.getlist("id"))
        if not ids:
            raise InvalidOption("no job was chosen; tick one of the list first")
        return Filter(ids=ids, state=sorted(act.states))
    asked = Asked.of(form)
    tasks = meant(site, asked)
    if not asked.state:
        return site.hiding.searched(asked.filter(state=sorted(act.unsaid), **tasks))
    wanted = site.hiding.searched(asked.filter(**tasks))
    if not act.states & set(wanted.states):
        raise InvalidOption(f"{asked.state} jobs cannot be {act.done}")
    return wanted
