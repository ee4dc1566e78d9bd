"""The store of a worker that has a clerk: each verb is asked of it, and no database file is open here.

One thread asks, that of the turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.base import (
    Applied,
    Life,
    Record,
    Rest,
    Sight,
    Turn,
    Waker,
    Whom,
    WorkerStore,
)
from jobvisor.jobs.store.wake import waker_of
from jobvisor.supervisor.clerk.clerk import plain, turn_of
from jobvisor.supervisor.clerk.handle import ClerkHandle


class ClerkStore(WorkerStore):
    """The worker's side of its clerk."""

    one_machine = True

    def __init__(self, clerk: ClerkHandle, events: Events) -> None:
        self.clerk = clerk
        self._events = events
        self.on_wait = self.on_migrate = _nothing

    def open(self) -> None:
        self._ask("open")

    def close(self) -> None:
        with suppress(StoreUnavailable):  # the connection of a clerk that is gone is closed
            self._ask("close")

    def step_aside(self) -> None:
        """No connection is in this process."""

    def descriptors(self) -> list[int]:
        return []

    def waker(self) -> Waker:
        return waker_of(self.clerk.path)

    def database_id(self) -> str:
        return str(self._ask("database_id"))

    def tell_waits(self) -> None:
        self._ask("tell_waits")

    def turn(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record] = (),
        rest: Rest | None = None,
        register: bool = False,
        forget_succeeded: bool = False,
        woken: bool = False,
        whom: Whom = Whom.ANYBODY,
        lanes: int = 1,
        batch: int | None = None,
    ) -> Turn:
        return turn_of(
            self._ask(
                "turn_of_many", life, claim, queues=list(queues), limit=limit, journal=plain(journal),
                rest=rest, register=register, forget_succeeded=forget_succeeded, woken=woken,
                whom=whom, lanes=lanes, batch=batch,
            )
        )  # fmt: skip

    def look(self, queues: Sequence[str], owner: int = 0, *, whom: Whom = Whom.ANYBODY) -> Sight:
        return cast("Sight", self._ask("look", list(queues), owner, whom=whom))

    def apply(
        self, records: Iterable[Record], life: Life, *, forget_succeeded: bool = False
    ) -> Applied:
        asked = self._ask("apply", list(records), life, forget_succeeded=forget_succeeded)
        return cast("Applied", asked)

    def leave(
        self, life: Life, records: Iterable[Record], *, forget_succeeded: bool = False
    ) -> Applied:
        asked = self._ask("leave", life, list(records), forget_succeeded=forget_succeeded)
        return cast("Applied", asked)

    def _ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        return self.clerk.ask(
            self._events,
            verb,
            *arguments,
            on_wait=self.on_wait,
            on_migrate=self.on_migrate,
            **named,
        )


def _nothing() -> None:
    """Nobody wants to know."""
