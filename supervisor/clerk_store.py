"""The store of a worker that has a clerk: each verb is asked of it, and no database file is open here.

One request at a time, of the one thread that makes the turns. While it waits for an answer the worker
hears whatever else it would in a sleep; how long that may take is judged by the beat of the clerk.
Events and log lines come with the answers, and are told here.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

from jobvisor.jobs.errors import ForkedStore, StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.base import Applied, Life, Record, Rest, Sight, Turn, Waker, WorkerStore
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.store.wake import waker_of
from jobvisor.supervisor.channel import Channel, ClosedError, Wait
from jobvisor.supervisor.child import Exit, spawn
from jobvisor.supervisor.clerk import MIGRATES, WAITS, Answer, Clerk, plain, turn_of
from jobvisor.supervisor.role import Role

WAIT_SECONDS = 0.25  # between two looks of a worker at what else there is, while its clerk works


class ClerkStore(WorkerStore):
    """The worker's side of its clerk."""

    one_machine = True

    def __init__(
        self,
        store: SqliteStore,
        events: Events,
        *,
        beat: Callable[[], None],
        wait: Wait,
        closing: Iterable[int] = (),
    ) -> None:
        """Fork the clerk: in a process with one thread, before anything of a user's runs in it.

        It uses `store`, which is connected nowhere, and closes the descriptors of `closing` first.
        `beat` is called there; `wait` here, until a descriptor is ready for some events of
        `select.poll` or a moment has passed. Raises OSError where the system has no process to give.
        """
        self._path = store.path
        self._events = events
        self._wait = wait
        self._pid = os.getpid()
        self.on_wait = self.on_migrate = _nothing
        self.on_gone: Callable[[str], None] = lambda _cause: None
        """Called once where the clerk is found dead, with how it ended; from then on no verb is done."""
        self._channel, other = Channel.pair()
        self.clerk = 0
        """Its pid."""
        clerk = Clerk(other, store, self._pid, beat)
        try:
            self.clerk = spawn(clerk.run, [*closing, self._channel.fileno()], own_group=False)
        finally:
            other.close()
            if not self.clerk:
                self._channel.close()
        _close_in_copies(self._channel)

    @property
    def is_gone(self) -> bool:
        """Whether the clerk is known to be dead."""
        return self._channel.fileno() < 0

    def fileno(self) -> int:
        """The end of the channel, which no task may close; -1 where the clerk is gone."""
        return self._channel.fileno()

    def end(self) -> None:
        """End the clerk; what it has not committed is undone."""
        if not self.is_gone:
            self._end()

    # -- the verbs

    def open(self) -> None:
        self._ask("open")

    def close(self) -> None:
        self._ask("close")

    def step_aside(self) -> None:
        """No connection is in this process."""

    def descriptors(self) -> list[int]:
        return []

    def waker(self) -> Waker:
        return waker_of(self._path)

    def database_id(self) -> str:
        return str(self._ask("database_id"))

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
    ) -> Turn:
        return turn_of(
            self._ask(
                "turn", life, claim, queues=list(queues), limit=limit, journal=plain(journal),
                rest=rest, register=register, forget_succeeded=forget_succeeded, woken=woken,
            )
        )  # fmt: skip

    def look(self, queues: Sequence[str], owner: int = 0) -> Sight:
        return cast("Sight", self._ask("look", list(queues), owner))

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

    # -- asking

    def _ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        if os.getpid() != self._pid:
            raise ForkedStore(
                f"the clerk of process {self._pid} was asked by its copy {os.getpid()}; "
                "open a store of its own after a fork"
            )
        if self.is_gone:
            raise _gone()
        try:
            self._channel.send((verb, arguments, named), self._wait)
            answer = self._answer()
        except ClosedError:
            self.on_gone(self._end())
            raise _gone() from None
        except BaseException:
            self._end()  # interrupted: what comes next on this channel answers nothing that is asked
            raise
        return self._told(answer)

    def _answer(self) -> Answer:
        while True:
            told = self._channel.receive()
            if told is None:
                self._wait(self._channel.fileno(), select.POLLIN)
            elif told == WAITS:
                self.on_wait()
            elif told == MIGRATES:
                self.on_migrate()
            else:
                return cast("Answer", told)

    def _told(self, answer: Answer) -> Any:
        for line in answer.lines:
            logging.getLogger(line["name"]).handle(logging.makeLogRecord(line))
        for event in answer.events:
            self._events.emit(event)
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _end(self) -> str:
        """End the clerk, which may have ended by itself, and say how it did."""
        self._channel.close()
        with suppress(ChildProcessError):  # a task has waited for any child
            found, status = os.waitpid(self.clerk, os.WNOHANG)
            if not found:
                os.kill(self.clerk, signal.SIGKILL)
                _, status = os.waitpid(self.clerk, 0)
            return Exit(self.clerk, os.waitstatus_to_exitcode(status)).cause
        return "nobody knows how"


def hired(role: Role, store: SqliteStore, events: Events) -> ClerkStore:
    """The store of a worker in its boot, which has not imported the application yet."""
    seat = role.seat
    ours = (seat.lifeline, seat.parent_poke, seat.caretaker_poke, *role.signals.descriptors())

    def wait(descriptor: int, ready: int) -> None:
        role.watch(descriptor, ready)
        role.sleep(WAIT_SECONDS)
        role.watch(None)

    return ClerkStore(store, events, beat=role.beat, wait=wait, closing=ours)


def _gone() -> StoreUnavailable:
    return StoreUnavailable(
        "the process that held this worker's connection to the database is gone; "
        "what the worker has recorded is stored from its ledger when it has left"
    )


def _nothing() -> None:
    """Nobody wants to know."""


def _close_in_copies(channel: Channel) -> None:
    """A forked copy of the worker closes its end: else the clerk would not hear that the worker is gone."""
    known = weakref.ref(channel)

    def close() -> None:
        found = known()
        if found is not None:
            found.close()

    os.register_at_fork(after_in_child=close)
