"""What goes on around each run: context managers of the application, within each other in their order."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import CoroutineType
from typing import Any, NamedTuple, TypeVar

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.function import is_method, is_same, place_of
from jobvisor.jobs.task import Task

Function = TypeVar("Function", bound=Callable[..., Any])


class Around(NamedTuple):
    """One of them."""

    function: Callable[..., Any]
    """As it was registered."""
    make: Callable[[Any], Any]
    """A context manager for the Context of a run."""


class Arounds:
    """Those that were registered, the outermost first."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[Around] = []

    def around(self, function: Function, /) -> Function:
        """Let a context manager be entered before each run of a task, and left after it.

            @around
            def session(ctx: Context) -> Iterator[None]:
                with Session(engine) as made:
                    ctx.state["session"] = made
                    yield

        A generator function, or whatever returns a context manager when it is called with the Context. An
        asynchronous one is for `async def` tasks alone, any other for all. The first that was registered
        is the outermost. What it raises is the task's failure, or its choice (`raise Retry(...)`); where it
        swallows what the task has raised the job succeeds with None.
        """
        made = Around(function, _maker(function))
        for number, known in enumerate(self.found):
            if is_same(known.function, function):  # its module was loaded once more
                self.found[number] = made
                return function
        self.found.append(made)
        return function

    def within(self, function: Callable[..., Any], context: Any) -> Callable[..., Any]:
        """The function of a task with all of them around its call."""
        inner = called_asynchronously if is_asynchronous(function) else called
        return partial(inner, self.found, function, context)


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Whether it is an `async def`, or an object that is called like one."""
    call = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def called(
    arounds: list[Around], function: Callable[..., Any], context: Any, *args: Any, **kwargs: Any
) -> Any:
    """What the function returns; None where one of them swallowed what it raised."""
    with ExitStack() as stack:
        for around in arounds:
            made = _made(around, context)
            if hasattr(type(made), "__enter__"):
                stack.enter_context(made)
        value = function(*args, **kwargs)
        if isinstance(
            value, CoroutineType
        ):  # of a plain function: what is around it ends with that
            return awaited(stack.pop_all(), value)
        return value


async def awaited(stack: ExitStack, coroutine: CoroutineType[Any, Any, Any]) -> Any:
    """What it returns."""
    with stack:
        return await coroutine


async def called_asynchronously(
    arounds: list[Around], function: Callable[..., Any], context: Any, *args: Any, **kwargs: Any
) -> Any:
    """The same of an `async def`."""
    async with AsyncExitStack() as stack:
        for around in arounds:
            made = _made(around, context)
            if hasattr(type(made), "__aenter__"):
                await stack.enter_async_context(made)
            else:
                stack.enter_context(made)
        return await function(*args, **kwargs)


CODES = frozenset({called.__code__, awaited.__code__, called_asynchronously.__code__})
"""Of our frames, which tell the user nothing in a traceback."""


def _maker(function: Any) -> Callable[[Any], Any]:
    if isinstance(function, Task) or not callable(function):
        raise InvalidOption(f"@around takes a function, not {shown(function)}")
    place = place_of(function)
    if is_method(function):
        raise InvalidOption(f"@around {place} is a method: there is no object to call it on")
    if inspect.iscoroutinefunction(function):
        raise InvalidOption(f"@around {place} never yields: write `yield` where the task is to run")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise InvalidOption(f"@around {place} must take one argument, the Context") from None
    except ValueError:
        pass  # some builtins tell nothing of their arguments
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(function)
    return contextmanager(function) if inspect.isgeneratorfunction(function) else function


def _made(around: Around, context: Any) -> Any:
    made = around.make(context)
    if not (hasattr(type(made), "__enter__") or hasattr(type(made), "__aenter__")):
        raise TypeError(
            f"@around {place_of(around.function)} returned {shown(made)}, which is no context manager; "
            "write `yield` where the task is to run"
        )
    return made
