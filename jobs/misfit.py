"""Whether the functions that make a key, a limit or a share can take what their task is called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from jobvisor.jobs.errors import shown
from jobvisor.jobs.task import Task, parameters_of

__all__ = ["misfits"]

OF_ARGUMENTS = ("unique", "limit", "share", "weight")
"""The options that may be functions of the arguments."""

_MORE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Arguments = tuple[list[str], dict[str, str]]


def misfits(task: Task[..., Any]) -> list[str]:
    """A sentence for each such function that fails whichever way the task is called.

    >>> from jobvisor import task
    >>> @task(name="docs:index", unique=lambda page: page)
    ... def index(page, words): ...
    >>> misfits(index)
    ['docs:index: unique=<lambda> takes (page), but the task (page, words): no call fits both; add *_, **_']
    """
    takes = parameters_of(task.function)
    if takes is None or any(each.kind in _MORE for each in takes.parameters.values()):
        return []  # one that takes anything may be called to fit
    found = []
    for option in OF_ARGUMENTS:
        function = getattr(task.options, option)
        if not callable(function):
            continue
        try:
            own = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins tell nothing
            continue
        if not any(_fits(own, call) for call in _calls(takes, own)):
            name = shown(getattr(function, "__name__", type(function).__name__)).strip("'")
            own = own.replace(return_annotation=inspect.Signature.empty)
            found.append(
                f"{task.name}: {option}={name} takes {own}, but the task {takes}: "
                "no call fits both; add *_, **_"
            )
    return found


def _fits(own: inspect.Signature, call: Arguments) -> bool:
    try:
        own.bind(*call[0], **call[1])
    except TypeError:
        return False
    return True


def _calls(takes: inspect.Signature, own: inspect.Signature) -> Iterator[Arguments]:
    """The ways to call the task: what it must have, and with it what the function has a name for, or all."""
    named = list(takes.parameters.values())
    needed = [each for each in named if each.default is each.empty]
    wanted = [each for each in named if each in needed or each.name in own.parameters]
    for given in (needed, wanted, named):
        placed = [each for each in given if each.kind in _BY_PLACE]
        for count in range(len(placed) + 1):
            rest = [each for each in given if each not in placed[:count]]
            if all(each.kind is not inspect.Parameter.POSITIONAL_ONLY for each in rest):
                yield [each.name for each in placed[:count]], {each.name: "" for each in rest}
