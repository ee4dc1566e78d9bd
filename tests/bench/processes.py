"""Processes that prepare each by itself, start together, and are timed until the last has ended."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobvisor.jobs.clock import SYSTEM

#: Called in the process with its number, from 1; what it returns is run at the common start.
Prepare = Callable[[int], Callable[[], None]]

_READY, _FAILED = b"+", b"!"


def together(number: int, prepare: Prepare) -> float:
    """Seconds from the common start until the last of them has ended."""
    crew = _Crew(number, prepare)
    began = SYSTEM.monotonic_ns()
    crew.go()
    crew.join()
    return (SYSTEM.monotonic_ns() - began) / 1e9


@contextmanager
def meanwhile(number: int, prepare: Prepare) -> Iterator[None]:
    """They run while the caller does something else, and are killed afterwards."""
    crew = _Crew(number, prepare)
    crew.go()
    try:
        yield
    finally:
        crew.kill()


class _Crew:
    """Forked, each prepared and waiting for the word."""

    def __init__(self, number: int, prepare: Prepare) -> None:
        ready, told = os.pipe()
        self._word, self._hold = os.pipe()
        self._told = told
        self._pids = [self._fork(prepare, place + 1) for place in range(number)]
        os.close(told)
        os.close(self._word)
        answers = [os.read(ready, 1) for _ in self._pids]
        os.close(ready)
        if answers != [_READY] * number:
            self.kill()
            raise RuntimeError("a process could not prepare")

    def go(self) -> None:
        """Let all of them begin: each reads the end of the pipe."""
        os.close(self._hold)

    def join(self) -> None:
        """Until the last has ended."""
        codes = [os.waitpid(pid, 0)[1] for pid in self._pids]
        if any(codes):
            raise RuntimeError("a process of the measurement failed")

    def kill(self) -> None:
        """End them at once."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _fork(self, prepare: Prepare, place: int) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(self._hold)
                self._work(prepare, place)
                code = 0
            except BaseException:  # noqa: BLE001 -- nobody is above us but the copy of our parent
                traceback.print_exc()
            finally:
                os._exit(code)
        return pid

    def _work(self, prepare: Prepare, place: int) -> None:
        answer = _FAILED
        try:
            work = prepare(place)
            answer = _READY
        finally:
            os.write(self._told, answer)
        os.read(self._word, 1)
        work()
