"""What a built-in task is given: judged when it runs, since rows are written by anybody.

Each names the argument, its value and what it must be.
"""

from __future__ import annotations

from typing import Any

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.units import duration_ms


def refuse(name: str, value: Any, wanted: str) -> InvalidOption:
    """The error for a value that is none of what is wanted."""
    return InvalidOption(f"{name}={shown(value)} must be {wanted}")


def a_text(name: str, value: Any) -> str:
    """A text without NUL."""
    if not isinstance(value, str) or "\0" in value:
        raise refuse(name, value, "a text without NUL")
    return value


def texts(name: str, value: Any) -> list[str]:
    """A list of texts."""
    if not isinstance(value, (list, tuple)):
        raise refuse(name, value, "a list of texts")
    return [a_text(f"{name}[{number}]", each) for number, each in enumerate(value)]


def a_whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refuse(name, value, f"a whole number from {low} to {high}")
    return value


def a_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise refuse(name, value, "true or false")
    return value


def a_duration(name: str, value: Any) -> int | None:
    """Milliseconds; None where nothing is said."""
    if value is None:
        return None
    try:
        return duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"{name}: {error}") from error


def a_mapping(name: str, value: Any) -> dict[str, Any]:
    """An object whose names are texts; an empty one where nothing is said."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise refuse(name, value, "an object")
    return value
