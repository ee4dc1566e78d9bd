"""What a caretaker sees to of limits: what the config says of them, and that no job waits in vain."""

from __future__ import annotations

from collections.abc import Sequence

from jobvisor.jobs.limit import Limit
from jobvisor.jobs.log import say
from jobvisor.jobs.store import Store
from jobvisor.supervisor.caretaker.told import Told

DECLARED_EVERY = 10.0  # seconds between two looks whether what the config says is there
ADMITTED_EVERY = 1.0
TRIMMED_EVERY = 10.0
SOONEST = 0.02  # seconds
NAMES_LOGGED = 20


class Limits:
    """The duties of limits."""

    def __init__(self, store: Store, limits: Sequence[Limit], told: Told) -> None:
        """`limits` are those of the config."""
        self._store = store
        self._limits = limits
        self._told = told

    def declare(self) -> float | None:
        """A duty: say what the config says. At the start it counts, later only where nobody says anything."""
        if self._limits:
            changed = self._store.declare_limits(self._limits, missing=self._told.is_told)
            if changed:
                say("limits_declared", names=", ".join(changed[:NAMES_LOGGED]))
        self._told.note()
        return None

    def admit(self) -> float | None:
        """A duty: let begin what whoever freed a place has missed, and what a rate lets begin now."""
        next_ms = self._store.admit()
        return None if next_ms is None else min(ADMITTED_EVERY, max(SOONEST, next_ms / 1000))

    def trim(self) -> float | None:
        """A duty: forget keys that no job has any more, page by page; at once where most were such."""
        return SOONEST if self._store.trim_limit_keys() else None
