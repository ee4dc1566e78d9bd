"""One event loop for the coroutines of many jobs: each run has its tasks, and ends as `asyncio.run` ends one.

Whose a task is, or work in a thread (`asyncio.to_thread`), is told by a context variable, which whatever a
job starts inherits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Run | None] = ContextVar("jobvisor_run", default=None)


async def within(run: Run, coroutine: Coroutine[Any, Any, R]) -> R:
    """The outermost function of each task that a run makes."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        # Out of a task it would end the loop, and with it every other run.
        run.broken_by = error
        if run.main is not None:
            run.main.cancel()
        raise asyncio.CancelledError from error


async def caught(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """What it returned, or what it raised, with this frame the outermost."""
    try:
        return await coroutine, None
    except BaseException as error:  # noqa: BLE001 -- the border of a user's code: nothing it raises passes
        return None, error


def called(pid: int, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The outermost function of work in a thread. A copy of the process ends with it."""
    try:
        return function(*args, **kwargs)
    finally:
        if os.getpid() != pid:
            os._exit(0)  # the thread would go on with what others have to do


class Run:
    """One coroutine, and what it starts on its way."""

    __slots__ = ("_called", "_generators", "_tasks", "_within", "_work", "broken_by", "main")

    def __init__(
        self, within: Callable[..., Any] = within, called: Callable[..., Any] = called
    ) -> None:
        """The functions `within` and `called` of this file, perhaps under the name of a lane."""
        self._within = within
        self._called = called
        self._tasks: dict[asyncio.Task[Any], Coroutine[Any, Any, Any]] = {}
        self._work: set[Future[Any]] = set()
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] | None = None
        self.main: asyncio.Task[Any] | None = None
        self.broken_by: BaseException | None = None
        """A SystemExit or KeyboardInterrupt out of one of its tasks."""

    def begin(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R], context: Context
    ) -> asyncio.Task[R]:
        """Its first task, which catches what its coroutine raises."""
        context.run(_current.set, self)
        self.main = main = asyncio.Task(coroutine, loop=loop, context=context)
        return main

    def enter(self) -> None:
        """The same for a task that is there already, told from within."""
        _current.set(self)
        self.main = asyncio.current_task()

    def add_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R], **options: Any
    ) -> asyncio.Task[R]:
        """A further one."""
        task = asyncio.Task(self._within(self, coroutine), loop=loop, **options)
        self._tasks[task] = coroutine
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        # One that was cancelled before its first step has not begun what it was made for.
        self._tasks.pop(task).close()

    def add_work(self, executor: Executor, function: Callable[..., R], *args: Any) -> Future[R]:
        """Work in a thread."""
        future = executor.submit_for(self._called, os.getpid(), function, *args)
        self._work.add(future)
        future.add_done_callback(self._work.discard)
        return future

    def add_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An asynchronous generator that it has begun to iterate."""
        if self._generators is None:
            self._generators = weakref.WeakSet()
        self._generators.add(generator)

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Those that it has started, from any thread."""
        return list(self._tasks)

    @property
    def has_left(self) -> bool:
        """Whether anything of it still goes on."""
        return bool(self._tasks or self._work or self._generators)

    async def end(self) -> None:
        """Cancel the tasks that are left, wait for them and for the work in threads, close generators."""
        await self._end_tasks()
        while self._generators:
            generator = self._generators.pop()
            try:
                await generator.aclose()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- it is told, as asyncio.run does
                _tell_error(f"an error occurred while {generator!r} was closed", error)
            await self._end_tasks()  # which it has started to end itself

    async def _end_tasks(self) -> None:
        told: set[asyncio.Task[Any]] = set()
        while self._tasks or self._work:
            tasks = list(self._tasks)
            for task in tasks:
                if task not in told:
                    task.cancel()
                    told.add(task)
            with suppress(asyncio.CancelledError):  # of the run itself, which has ended
                if tasks:
                    await asyncio.wait(tasks)
                    _tell_errors(tasks)
                    await asyncio.sleep(0)  # their callbacks, by which they are forgotten
                elif work := list(self._work):
                    await asyncio.wait([asyncio.wrap_future(future) for future in work])


def _tell_errors(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            _tell_error("unhandled exception in a task that a job had left", error, task=task)


def _tell_error(message: str, error: BaseException, **more: Any) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": message, "exception": error, **more}
    )


def note_generators() -> None:
    """From now on a generator belongs to the run that begins it; told within a loop, after it was started."""
    hooks = sys.get_asyncgen_hooks()

    def begun(generator: AsyncGenerator[Any, Any]) -> None:
        run = _current.get()
        if run is not None:
            run.add_generator(generator)
        if hooks.firstiter is not None:
            hooks.firstiter(generator)

    sys.set_asyncgen_hooks(begun, hooks.finalizer)


class Executor(ThreadPoolExecutor):
    """Where `asyncio.to_thread` works: it knows whose work it does."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As any executor; work of a run belongs to it."""
        run = _current.get()
        if run is None or kwargs:
            return super().submit(fn, *args, **kwargs)
        return run.add_work(self, fn, *args)

    def submit_for(self, fn: Callable[..., R], /, *args: Any) -> Future[R]:
        """Work that is known already."""
        return super().submit(fn, *args)


def new_loop(threads: int, *, ends_copies: bool) -> asyncio.AbstractEventLoop:
    """A loop for runs, with at most so many threads for their work.

    `ends_copies`: a copy of the process that was forked by a coroutine ends with its first wait. It would
    take steps of other runs, and events that are the original's.
    """
    loop = asyncio.new_event_loop()
    loop.set_task_factory(_make_task)
    loop.set_default_executor(Executor(threads, thread_name_prefix="to_thread"))
    if ends_copies:
        _ending.add(loop)
    return loop


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    run = _current.get()
    if run is None or not asyncio.iscoroutine(coroutine):
        return asyncio.Task(coroutine, loop=loop, **options)
    return run.add_task(loop, coroutine, **options)


_ending: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


class _Ended:
    """In a copy of the process, the callbacks that a loop has ready: none of them is called."""

    def append(self, _handle: object) -> None:
        """What the copy still asks for is not done."""

    def __len__(self) -> int:  # noqa: PLE0303 -- it never does
        _leave()

    def popleft(self) -> NoReturn:
        _leave()


def _leave() -> NoReturn:
    os._exit(0)


def _end_in_copy() -> None:
    for loop in list(_ending):
        loop.stop()  # of a loop that is made otherwise: it ends with what it has ready
        if hasattr(loop, "_ready"):
            loop._ready = _Ended()  # noqa: SLF001 -- nothing public keeps it from the next callback


os.register_at_fork(after_in_child=_end_in_copy)
