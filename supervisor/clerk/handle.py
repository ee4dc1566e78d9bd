"""A worker's handle on one clerk: forked, asked one thing at a time, ended with the worker or before.

Events and log lines come with the answers, and are told here. While it waits for an answer the worker
hears whatever it hears in a sleep; how long an answer may take is judged by the beat of the clerk.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from jobvisor.jobs.errors import ForkedStore, StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.supervisor.child import Exit, spawn
from jobvisor.supervisor.clerk.channel import Channel, ClosedError, Wait, packed
from jobvisor.supervisor.clerk.clerk import MIGRATES, WAITS, Among, Answer, Clerk, Make

NOT_DURABLE = Among()


class ClerkHandle:
    """One clerk, of the process that has forked it."""

    def __init__(
        self,
        path: str,
        make: Make,
        *,
        wait: Wait,
        beat: Callable[[], None] = lambda: None,
        closing: Iterable[int] = (),
    ) -> None:
        """Fork it: in a process with one thread, before anything of a user's runs in it.

        There `make` makes its stores, of the file of this path, and the descriptors of `closing` are
        closed first.
        `beat` is called there; `wait` here, until a descriptor is ready for some events of
        `select.poll` or a moment has passed. Raises OSError where the system has no process to give.
        """
        self.path = path
        self._wait = wait
        self._worker = os.getpid()
        self.on_gone: Callable[[str], None] = lambda _cause: None
        """Called once where it is found dead, with how it ended; from then on nothing is done."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Called in a wait for an answer, about as often as `wait` returns."""
        self._channel, other = Channel.pair()
        self.pid = 0
        self.is_gone = False
        """Whether it is known to be dead."""
        clerk = Clerk(other, make, self._worker, beat)
        try:
            self.pid = spawn(clerk.run, [*closing, self._channel.fileno()], own_group=False)
        finally:
            other.close()
            if not self.pid:
                self._channel.close()
        _close_in_copies(self._channel)

    @property
    def is_of_another(self) -> bool:
        """Whether this process is a copy of the one whose clerk it is."""
        return os.getpid() != self._worker

    def fileno(self) -> int:
        """The worker's end of the channel, which no task may close; it stays when the clerk is gone."""
        return self._channel.fileno()

    def ask(
        self,
        events: Events,
        verb: str,
        *arguments: Any,
        among: Among = NOT_DURABLE,
        on_wait: Callable[[], None] | None = None,
        on_migrate: Callable[[], None] | None = None,
        **named: Any,
    ) -> Any:
        """The value of a verb of one of its stores, or its error raised.

        The hooks are called while that takes long.
        """
        if self.is_of_another:
            raise ForkedStore(
                f"the clerk of process {self._worker} was asked by its copy {os.getpid()}; "
                "open a store of its own after a fork"
            )
        if self.is_gone:
            raise _gone()
        message = packed((among, verb, arguments, named))
        try:
            self._channel.send_packed(message, self._wait)
            answer = self._answer({WAITS: on_wait, MIGRATES: on_migrate})
        except ClosedError:
            self.on_gone(self._end())
            raise _gone() from None
        except BaseException:
            # Interrupted: what comes next on this channel answers nothing that is asked.
            self.on_gone(f"a request was interrupted, {self._end()}")
            raise
        return _told(answer, events)

    def _answer(self, hooks: dict[str, Callable[[], None] | None]) -> Answer:
        while True:
            told = self._channel.receive()
            if told is None:
                self._wait(self._channel.fileno(), select.POLLIN)
                self.meanwhile()
            elif isinstance(told, str):
                hook = hooks[told]
                if hook is not None:
                    hook()
            else:
                return cast("Answer", told)

    def look(self) -> None:
        """See whether it has ended though nobody has asked it."""
        poll = select.poll()
        poll.register(self._channel.fileno(), 0)  # the end of the other side is always told
        if not self.is_gone and poll.poll(0):
            self.on_gone(self._end())

    def end(self) -> None:
        """End the clerk; what it has not committed is undone."""
        if not self.is_gone:
            self._end()
        self._channel.close()

    def _end(self) -> str:
        """End it, where it has not ended by itself, and say how it did."""
        self.is_gone = True
        with suppress(ChildProcessError):  # a task has waited for any child
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if not found:
                os.kill(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
            return Exit(self.pid, os.waitstatus_to_exitcode(status)).cause
        return "nobody knows how"


def _told(answer: Answer, events: Events) -> Any:
    for line in answer.lines:
        logging.getLogger(line["name"]).handle(logging.makeLogRecord(line))
    for event in answer.events:
        events.emit(event)
    if answer.error is not None:
        raise answer.error
    return answer.value


def _gone() -> StoreUnavailable:
    return StoreUnavailable(
        "the process that held this worker's connection to the database is gone; "
        "the worker is replaced when its jobs have ended"
    )


def _close_in_copies(channel: Channel) -> None:
    """A forked copy of the worker closes its end: else the clerk would not hear that the worker is gone."""
    known = weakref.ref(channel)

    def close() -> None:
        found = known()
        if found is not None:
            found.close()

    os.register_at_fork(after_in_child=close)
