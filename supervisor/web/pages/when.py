"""The time that a form wants jobs to be due at, or the question for it."""

from __future__ import annotations

from starlette.datastructures import FormData

from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import InvalidOption
from jobvisor.supervisor.web.pages.form import Field, word_of

__all__ = ["due_of"]


def due_of(form: FormData) -> Due | Field:
    """The time, or what has to be asked for: with what was wrong about the last answer."""
    said = word_of(form, "when")
    mistake = ""
    if said.strip():
        try:
            return Due.read(said)
        except InvalidOption as error:
            mistake = str(error)
    return Field("when", "When", said or "now", "now, 1h30m or 2027-01-31T08:00Z", mistake)
