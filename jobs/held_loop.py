"""The loop of a process that runs one coroutine after the other: made for the first, kept open for all.

So a client that was made when the worker began serves all its jobs. What a job has left ends with it, as at
the end of `asyncio.run`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from jobvisor.jobs.loop import Run, caught, new_loop, note_generators

THREADS = min(32, (os.cpu_count() or 1) + 4)  # for `asyncio.to_thread`, as asyncio has it


class HeldLoop:
    """Of one process: a copy of it makes its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._run: Run | None = None
        self._main: asyncio.Task[Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
        """What it returned, or what it raised; when all that it has left has ended."""
        self._run = run = Run()
        return self._finished(_live(run, coroutine), coroutine, copy_context())

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """What runs now: its first task, then those that it has started."""
        others = [] if self._run is None else self._run.tasks
        return [] if self._main is None else [self._main, *others]

    def attend(
        self, coroutine: Coroutine[Any, Any, Any], context: Context
    ) -> tuple[Any, BaseException | None]:
        """The same in this very context, and what it has left goes on whenever the loop does."""
        return self._finished(caught(coroutine), coroutine, context)

    def _finished(
        self, whole: Any, coroutine: Coroutine[Any, Any, Any], context: Context
    ) -> tuple[Any, BaseException | None]:
        try:
            loop = self._usable()
        except (OSError, RuntimeError) as error:
            whole.close()
            coroutine.close()
            return None, error
        try:
            self._main = main = asyncio.Task(whole, loop=loop, context=context)
            ended: tuple[Any, BaseException | None] = loop.run_until_complete(main)
        except BaseException as error:  # noqa: BLE001 -- it was stopped, robbed of its descriptors, or a signal's handler raised
            self._leave_copy()
            self.close()
            return None, error
        finally:
            self._main = self._run = None
        return ended

    def _usable(self) -> asyncio.AbstractEventLoop:
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 -- the public one raises
            raise RuntimeError(
                "an async task cannot run in a thread whose event loop runs; run it in another one"
            )
        if self._pid != os.getpid() and self._loop is not None:
            # What it waits with is shared with the process that it was copied from: only forgotten.
            _abandoned.append(self._loop)
            self._loop = None
        if self._loop is None or self._loop.is_closed():
            self._pid = os.getpid()
            self._loop = new_loop(THREADS, ends_copies=True)
        return self._loop

    def _leave_copy(self) -> None:
        if self._pid != os.getpid():
            os._exit(0)

    def close(self) -> None:
        """End all that is left on it."""
        loop, self._loop = self._loop, None
        if loop is None or loop.is_closed() or self._pid != os.getpid():
            return
        try:
            for end in (_end_tasks, loop.shutdown_asyncgens, loop.shutdown_default_executor):
                if not _goes_round(loop, end()):
                    break
        finally:
            with suppress(OSError):
                loop.close()


def _goes_round(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Whether it was done; a loop that is broken does nothing more."""
    try:
        loop.run_until_complete(coroutine)
    except BaseException:  # noqa: BLE001 -- its descriptors may be gone, or a handler of a signal has raised
        coroutine.close()
        return False
    return True


async def _live(run: Run, coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """The outermost function of a job."""
    pid = os.getpid()
    run.enter()
    note_generators()
    value, failed = await caught(coroutine)
    if os.getpid() != pid:
        os._exit(1 if failed else 0)
    if run.has_left:
        await run.end()
    return value, run.broken_by or failed


async def _end_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


_abandoned: list[asyncio.AbstractEventLoop] = []  # copies of another process's: never closed
