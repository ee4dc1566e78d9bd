"""A trial of the new code before a reload: a child imports it, and says why it cannot be had.

So nobody who runs the old code leaves before it is known that the new code can be imported.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, JobsError
from jobvisor.jobs.log import say, set_role
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.application import load_application
from jobvisor.supervisor.child import end, kill_group, reap, spawn
from jobvisor.supervisor.config import Config

ANSWER_BYTES_MAX = 4096
GOOD = b"good"
ORPHAN_SECONDS = 10  # beyond `boot_timeout`: by then a parent that lives has ended the trial


class Trial:
    """The child that imports, from its fork to its answer."""

    def __init__(self, config: Config, closing: Sequence[int], clock: Clock) -> None:
        """`closing` are the descriptors that are the parent's alone.

        Raises OSError where the system has no process or descriptor to give.
        """
        self.config = config
        self._clock = clock
        self._until = clock.monotonic_ns() + config.family.boot_timeout_ms * 1_000_000
        self._late = False
        self._read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._refused = ""
        try:
            self.pid = spawn(lambda: _import(config, write), [*closing, self._read])
        except OSError:
            os.close(self._read)
            raise
        finally:
            os.close(write)

    def outcome(self) -> str | None:
        """Why the new code cannot be had, "" where it can; None while that is not known."""
        if self.pid:
            ended = reap(self.pid)
            if ended is None:
                if self._clock.monotonic_ns() > self._until:
                    self._late = True
                    kill_group(self.pid)
                return None
            self.pid = 0
            self._refused = self._answer(ended.cause)
            self.close()
        return self._refused

    def _answer(self, cause: str) -> str:
        """What it said before it ended, and where it said nothing how it ended."""
        told = b""
        with suppress(BlockingIOError):  # what it has started may hold the pipe open
            told = os.read(self._read, ANSWER_BYTES_MAX)
        if told == GOOD:
            return ""
        if told:
            return told.decode(errors="replace")
        return why_it_ended(self.config, cause, late=self._late)

    def close(self) -> None:
        """End the child, whether or not it has answered."""
        if self.pid:
            end(self.pid, self._clock)
            self.pid = 0
        if self._read >= 0:
            os.close(self._read)
            self._read = -1


def why_it_ended(config: Config, cause: str, *, late: bool) -> str:
    """An import that has ended its process without a word; `late` where that was killed at `boot_timeout`."""
    names = ", ".join(config.tasks.modules)
    if late:
        limit = duration_text(config.family.boot_timeout_ms)
        return f"the import of {names} took longer than {limit}"
    return f"the import of {names} ended its process: {cause}"


def _import(config: Config, write: int) -> int:
    set_role("trial")
    # Without a parent nobody looks how long it takes.
    signal.setitimer(signal.ITIMER_REAL, config.family.boot_timeout_ms / 1000 + ORPHAN_SECONDS)
    try:
        load_application(config)
    except JobsError as error:
        say("trial_failed", error=str(error), trace=error.__cause__)
        os.write(write, str(error).encode(errors="replace")[:ANSWER_BYTES_MAX])
        return EX_CONFIG
    os.write(write, GOOD)
    return EX_OK
