"""The schedules that code says, told by a worker that has read it: once in each generation of a family.

Before its first job, since a worker that is never at rest would never tell; and with them the options of the
tasks that have a schedule, for the scheduler has not their code.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.log import say
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.schedule import CODE, CONFIG, MADE, Declared, Plan, made_keys
from jobvisor.jobs.store import Store
from jobvisor.jobs.task import Call, Defaults, Task
from jobvisor.supervisor.board import (
    CODE_FAMILY,
    CODE_GENERATION,
    CODE_PLANS,
    LEAVE,
    TAKEN_UP,
    Board,
)
from jobvisor.supervisor.role import Seat

__all__ = ["ByClient", "ByStore", "Declaring", "Register", "tell_declared"]

LATER_NS = 10 * SECOND
"""After an error."""

NAMES_TOLD = 20


class Register(Protocol):
    """Where it is told."""

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]], /) -> None:
        """Write these."""

    def declare(self, source: str, family: str, by: int, plans: list[Plan], /) -> Declared:
        """These are the schedules of this family and source."""

    def close(self) -> None:
        """It is not asked again."""


class ByStore:
    """By the worker's own connection, which it keeps."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]], /) -> None:
        """Write these."""
        self._store.note_tasks({name: json.dumps(told) for name, told in tasks.items()})

    def declare(self, source: str, family: str, by: int, plans: list[Plan], /) -> Declared:
        """These are the schedules of this family and source."""
        return self._store.declare_schedules(source, family, by, plans)

    def close(self) -> None:
        """The worker goes on with it."""


class ByClient:
    """By a connection of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]], /) -> None:
        """Write these."""
        self._client.note_tasks(tasks)

    def declare(self, source: str, family: str, by: int, plans: list[Plan], /) -> Declared:
        """These are the schedules of this family and source."""
        return self._client.schedules.declare(source, family, by, plans)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Declaring:
    """What one worker has to tell, or nothing."""

    def __init__(
        self,
        registry: Registry,
        board: Board,
        seat: Seat,
        register: Callable[[], Register],
        clock: Clock,
    ) -> None:
        """`register` makes a way to the database, where there is something to tell."""
        self._registry = registry
        self._board = board
        self._seat = seat
        self._register = register
        self._clock = clock
        self._due_ns = 0
        self._trouble = ""
        self._thread: threading.Thread | None = None
        self._plans = registry.plans()
        self._told_of = (*self._plans, *seat.config.schedules)
        if self._has_nothing():
            self._note()

    @property
    def is_of_use(self) -> bool:
        """Whether there is anything to tell, now or once its code is taken up, which nobody else has told."""
        return self._is_new()

    def declare_if_new(self) -> bool:
        """Tell it now; whether it is told. After an error it is tried again later."""
        if self._is_due():
            self._declare()
        return not self._is_new()

    def declare_beside(self) -> bool:
        """The same in a thread of its own."""
        is_under_way = self._thread is not None and self._thread.is_alive()
        if not is_under_way and self._is_due():
            self._thread = threading.Thread(target=self._declare, name="declaring", daemon=True)
            self._thread.start()
        return not self._is_new()

    def _is_new(self) -> bool:
        board, seat = self._board, self._seat
        return board[CODE_FAMILY] != seat.family or board[CODE_GENERATION] < seat.generation

    def _is_taken_up(self) -> bool:
        """A reload may be refused while its code is on trial: what the old code says is to stay then.

        Who was tried for one that was refused leaves, and has the number of the next.
        """
        seat = self._seat
        return self._board[TAKEN_UP] >= seat.generation and not seat.slot[LEAVE]

    def _has_nothing(self) -> bool:
        return not self._told_of and self._is_taken_up() and self._is_new()

    def _is_due(self) -> bool:
        if self._has_nothing():
            self._note()
        now = self._clock.monotonic_ns()
        return self._is_taken_up() and self._is_new() and now >= self._due_ns

    def _declare(self) -> None:
        self._due_ns = self._clock.monotonic_ns() + LATER_NS  # whatever becomes of it
        seat, register = self._seat, self._register()
        try:
            tasks = self._tasks()
            if tasks:
                register.note_tasks(tasks)
            name, family = seat.config.family.name, seat.family
            if self._plans:
                tell_declared("code", register.declare(CODE, name, family, self._plans))
            keyed = self._with_keys(seat.config.schedules)
            if keyed != list(seat.config.schedules):
                tell_declared("configuration", register.declare(CONFIG, name, family, keyed))
        except JobsError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                say("declaring_failed", error=self._trouble)
            return
        finally:
            register.close()
        self._note()

    def _note(self) -> None:
        """The plans first: who reads the family's word reads them then."""
        self._board[CODE_PLANS] = len(self._plans) + 1
        self._board[CODE_GENERATION] = self._seat.generation
        self._board[CODE_FAMILY] = self._seat.family

    def _with_keys(self, plans: Sequence[Plan]) -> list[Plan]:
        """The schedules of the configuration with the keys that functions of their tasks make.

        The scheduler has declared them, or will, and has not the code: what it does not know stays.
        """
        found = []
        for plan in plans:
            task = self._registry.get(plan.task)
            if task is not None and any(callable(getattr(task.options, name)) for name in MADE):
                plan = _keyed(plan, task)  # noqa: PLW2901 - the same with its keys
            found.append(plan)
        return found

    def _tasks(self) -> dict[str, Mapping[str, Any]]:
        """What is told of those that have a schedule in the code or the configuration."""
        from jobvisor.jobs.described import described  # noqa: PLC0415 - few workers have a schedule

        names = {plan.task for plan in self._told_of}
        aliases = self._registry.aliases()
        known = filter(None, map(self._registry.get, sorted(names)))
        return {task.name: described(task, aliases.get(task.name, ())) for task in known}


def _keyed(plan: Plan, task: Task[..., Any]) -> Plan:
    payload = Payload()
    try:
        args, kwargs = payload.decode(plan.args), payload.decode(plan.kwargs)
        call = Call(plan.task, tuple(args), kwargs, task.options, task.function)
        new = call.new_job(Defaults(), payload)
    except Exception:  # noqa: BLE001 -- the user's function, or arguments it does not take: `check` tells
        return plan
    return plan._replace(keys=json.dumps({**json.loads(plan.keys), **made_keys(call, new)}))


def tell_declared(source: str, found: Declared) -> None:
    """In the log: what has changed by a start, and what could not."""
    if found.changed:
        say("schedules_declared", source=source, changed=_named(found.changed))
    if found.removed:
        say("schedules_removed", names=_named(found.removed))
    for name, holder in list(found.refused.items())[:NAMES_TOLD]:
        say("schedule_refused", source=source, schedule=name, holder=holder)


def _named(names: list[str]) -> str:
    more = [f"and {len(names) - NAMES_TOLD} more"] if len(names) > NAMES_TOLD else []
    return ", ".join([*names[:NAMES_TOLD], *more])
