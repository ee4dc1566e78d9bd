"""What is done to a family needs no database: where its note cannot be kept, that is said."""

from __future__ import annotations

from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.log import say
from jobvisor.supervisor.web.site import Site

__all__ = ["note_of_family"]


def note_of_family(site: Site, who: str, verb: str, what: str, number: int | None = None) -> str:
    """Note it; the sentence for whoever asked where that failed, else nothing."""
    try:
        site.client.note_action(who, verb, what, number)
    except JobsError as error:
        say("action_not_noted", who=who, verb=verb, what=what, error=str(error))
        return f" It is not in the log of actions: {error}"
    return ""
