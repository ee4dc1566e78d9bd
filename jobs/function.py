"""A function of the user's: where it stands, and whether it is the one that is known already."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any


def is_same(known: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether the new one is the known one, or what a reload of its module made of it.

    Functions made inside a function share a name without being the same.
    """
    if known is new:
        return True
    names = [getattr(function, "__qualname__", "<locals>") for function in (known, new)]
    homes = [getattr(function, "__module__", None) for function in (known, new)]
    if "__main__" in homes:  # a script that is imported as a module as well
        homes = [file_of(function) for function in (known, new)]
    return homes[0] == homes[1] and names[0] == names[1] and "<" not in names[0]


def file_of(function: Callable[..., Any]) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else os.path.realpath(code.co_filename)


def place_of(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return repr(function)
    return f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


def is_method(function: Callable[..., Any]) -> bool:
    """Whether it stands in a class body and takes the object, or the class, first."""
    inside, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    code = getattr(function, "__code__", None)
    if not inside or inside.endswith("<locals>") or code is None or not code.co_argcount:
        return False
    return not inspect.ismethod(function) and code.co_varnames[0] in ("self", "cls")
