"""Hooks: functions of the application that a worker calls when it begins and when it leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.function import is_method, is_same, place_of
from jobvisor.jobs.task import Task

Function = TypeVar("Function", bound=Callable[[], Any])

BEFORE_FORK, ON_START, ON_STOP = "before_fork", "on_start", "on_stop"


class Hooks:
    """Those that were registered, each kind in its order."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, list[Callable[[], Any]]] = {
            BEFORE_FORK: [],
            ON_START: [],
            ON_STOP: [],
        }

    def of(self, kind: str) -> list[Callable[[], Any]]:
        """The hooks of one kind."""
        return list(self._found[kind])

    def before_fork(self, function: Function, /) -> Function:
        """Call it once where the application was imported: in the template, else in each worker.

        What it makes the copies of a template share; so it may start no thread, and keep no connection.
        A function without arguments, no `async def`: no event loop goes across a fork.
        """
        if inspect.iscoroutinefunction(function):
            raise InvalidOption(
                f"@before_fork {place_of(function)} is an async def, and no event loop goes across a "
                "fork: make it a plain function, or an @on_start"
            )
        return self._add(BEFORE_FORK, function)

    def on_start(self, function: Function, /) -> Function:
        """Call it when a worker begins, before its first job: to connect, to warm up.

        A plain function in the main thread, or an `async def` on the event loop of the async tasks, so that
        they can use what it makes. The worker is ready after all of them; where one raises it is not, as
        where a module cannot be imported.
        """
        return self._add(ON_START, function)

    def on_stop(self, function: Function, /) -> Function:
        """Call it when a worker leaves, after its last job has been settled: to flush, to close.

        As `on_start`. The last that was registered comes first. A worker that is killed calls none, and
        they have `stop_timeout` together.
        """
        return self._add(ON_STOP, function)

    def _add(self, kind: str, function: Function) -> Function:
        _check(kind, function)
        found = self._found[kind]
        for number, known in enumerate(found):
            if is_same(known, function):  # its module was loaded once more
                found[number] = function
                return function
        found.append(function)
        return function


def _check(kind: str, function: Any) -> None:
    if isinstance(function, Task) or not callable(function):
        raise InvalidOption(f"@{kind} takes a function, not {shown(function)}")
    place = place_of(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidOption(f"@{kind} {place} is a generator: its body would not run")
    if is_method(function):
        raise InvalidOption(f"@{kind} {place} is a method: there is no object to call it on")
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise InvalidOption(f"@{kind} {place} must take no argument") from None
    except ValueError:
        return  # some builtins tell nothing of their arguments
