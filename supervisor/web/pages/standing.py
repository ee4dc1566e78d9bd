"""How the family of this machine stands, as pages tell it; where there is none here, why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.documents.standing import of_holder, trouble
from jobvisor.supervisor.web.site import Site

__all__ = ["Standing", "cause_of", "causes", "standing"]

KINDS = {
    "running": "good",
    "starting": "busy",
    "stopping": "warn",
    "degraded": "bad",
    "stopped": "bad",
}
"""The colour of a family's state."""


class Standing:
    """The family's own last word, and whether it is well."""

    def __init__(
        self, status: Mapping[str, Any], reason: str | None, *, known: bool = True
    ) -> None:
        self.status = status
        self.reason = reason
        """Why it is not well; None where it is."""
        self.known = known
        """Whether there is a family here at all that could be asked."""

    @property
    def name(self) -> str:
        """The family's."""
        return str(self.status.get("family", ""))

    @property
    def state(self) -> str:
        """In a word."""
        return str(self.status.get("state", "stopped"))

    @property
    def kind(self) -> str:
        """The colour of its state."""
        return KINDS.get(self.state, "warn")

    @property
    def host(self) -> str:
        """The machine that it runs on."""
        return str(self.status.get("host", ""))

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Its workers, as the status has them."""
        return list(self.status.get("workers") or [])

    @property
    def deaths(self) -> list[dict[str, Any]]:
        """The last deaths, the newest first."""
        return list(reversed(self.status.get("deaths") or []))

    def pools_of(self, queue: str) -> list[str] | None:
        """Which pools serve a queue; None where the family does not tell."""
        serves = self.status.get("serves")
        if not isinstance(serves, dict):
            return None
        return [pool for pool, queues in serves.items() if queue in queues]

    @property
    def queues(self) -> set[str]:
        """All that it serves."""
        serves = self.status.get("serves") or {}
        return {queue for queues in serves.values() for queue in queues}


def standing(site: Site) -> Standing:
    """As it is now; nothing is asked but its lock and its file."""
    if site.state is None:
        return Standing({}, None, known=False)
    try:
        pid = site.state.holder()
        found = site.state.status()
    except JobsError as error:
        return Standing({"state": "degraded"}, str(error))
    living = of_holder(found, pid) if pid is not None else None
    state = "stopped" if pid is None else "starting"
    return Standing(living or {"state": state}, trouble(found, pid))


def cause_of(death: Mapping[str, Any]) -> str:
    """What a process died of, as short as it can be said: `SIGSEGV`, `killed at its timeout of 1 s`.

    >>> cause_of({"cause": "its worker was killed by SIGSEGV", "outcome": "crash"})
    'SIGSEGV'
    """
    return str(death.get("cause")).removeprefix("its worker was killed by ")


def causes(deaths: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deaths by what they were of, the most frequent first; they come the newest first."""
    counted = Counter(map(cause_of, deaths))
    last: dict[str, Any] = {}
    for each in deaths:
        last.setdefault(cause_of(each), each.get("at"))
    return [
        {"word": word, "count": count, "last": last[word]} for word, count in counted.most_common()
    ]
