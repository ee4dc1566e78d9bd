"""What every verb is written with: named statements, and what a change leaves behind.

A dialect brings the statements and the connection; wakes and events wait for the commit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import JobNotFound, shown
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.filter import ID_MAX
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store.audience import Audience
from jobvisor.jobs.store.base import Store
from jobvisor.jobs.store.rows import Changed


class Dialect(Store):
    """A store as its verbs see it; what differs between databases is below the abstract line."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self.clock = clock
        self.events = events
        self.on_wait = self.on_migrate = _nothing
        self.payload = Payload()
        self._pending_made = False
        self._events: list[Event] = []
        self._audience = Audience(clock)
        self._freed: set[str] = set()  # keys of limits that this transaction has made room in
        self._depth = 0  # of transactions within each other
        self._holds_keys = False  # whether it has locked such keys
        self._left: set[int] = set()  # rows that the database lets nobody change

    # -- what a dialect brings

    @abstractmethod
    def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement; its rows."""

    def _asked(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement that may have no rows, within a transaction; those it has."""
        return self._rows(name, parameters)

    @abstractmethod
    def _change(self, name: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement; how many rows it changed."""

    @abstractmethod
    def _change_many(self, name: str, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement for each; how many rows changed in all."""

    @abstractmethod
    def _attempted(self, action: Any, *arguments: Any) -> tuple[Any, str | None]:
        """Run an action under a savepoint; (its value, None), or (None, why the database refused).

        An IllegalMove of its own passes through; nothing of the action is left then either.
        """

    # -- what every change leaves behind

    def _moved(
        self,
        verb: str,
        job: int,
        row: Changed,
        *,
        error: str | None = None,
        kind: str | None = None,
        delay_ms: int = 0,
    ) -> None:
        """After a statement moved a row: who may claim it wakes, who listens or follows hears of it.

        Where the job was asked to end its row is cancelled by whatever verb ended its run, and that is
        what is told: no retry will follow.
        """
        if row.state == "cancelled":
            verb, delay_ms = "cancel", 0
        if verb != "enqueue":  # a follower finds new jobs by their ids
            self._audience.note(job)
        if row.state in ("pending", "scheduled"):
            self._pending_made = True
        if row.limit_key is not None:
            self._freed.add(row.limit_key)
        if self.events.active:
            kind = kind or row.state
            self._events.append(
                Event(
                    verb, job, row.task, row.queue, row.attempt, row.attempts_max,
                    error=error, delay_ms=delay_ms, kind=kind,
                )
            )  # fmt: skip

    def _forget_changes(self) -> None:
        """The transaction has ended: nothing of it is left to be done."""
        self._audience.clear()
        self._freed.clear()
        self._holds_keys = False


def _nothing() -> None:
    """Nobody wants to know that the store waits, or migrates."""


def check_id(job: int) -> None:
    """A number that no database has is not asked for: PostgreSQL would take it for another type."""
    if not 0 < job <= ID_MAX:
        raise JobNotFound(f"there is no job {shown(job)}")
