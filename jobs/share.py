"""On whose behalf a job runs in a fair queue, and how much of it that one gets: `share=` and `weight=`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jobvisor.jobs.errors import InvalidOption, shown

Share = str | Callable[..., str | int | None]
Weight = int | Callable[..., int]

SHARE_MAX = 500  # characters
WEIGHT_MAX = 1_000
NO_SHARE: Mapping[str, Any] = MappingProxyType({})


def check_share(option: str, value: Any) -> Share:
    """A share as a task or a call has it, or an InvalidOption that begins with the option's name.

    >>> check_share("share", "tenant-7")
    'tenant-7'
    """
    return value if callable(value) else _name(option, value)


def check_weight(option: str, value: Any) -> Weight:
    """A weight, likewise.

    >>> check_weight("weight", 3)
    3
    """
    return value if callable(value) else _number(option, value)


def share_of(
    share: Share | None, weight: Weight | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The terms of one call: functions are asked with its arguments; without a share there are none.

    >>> share_of(lambda tenant, **_: tenant, 3, (7,), {})
    {'share': '7', 'weight': 3}
    """
    if callable(share):
        share = _of_function(share(*args, **kwargs))
    if share is None:
        return NO_SHARE
    if callable(weight):
        weight = _number("weight", weight(*args, **kwargs))
    return {"share": share, "weight": weight}


def _of_function(found: Any) -> str | None:
    """What a function of the arguments returned: None is no share, a number is written out."""
    if found is None:
        return None
    return _name("share", str(found) if type(found) is int else found)


def _name(option: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= SHARE_MAX:
        raise InvalidOption(
            f"{option}={shown(value)} must be a str of 1 to {SHARE_MAX} characters, such as "
            f'"tenant-7", or a function of the arguments that returns one'
        )
    if "\0" in value or not _is_text(value):
        raise InvalidOption(
            f"{option}={shown(value)} contains NUL or a lone surrogate; leave it out"
        )
    return str(value)


def _number(option: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= WEIGHT_MAX:
        raise InvalidOption(
            f"{option}={shown(value)} must be a whole number from 1 to {WEIGHT_MAX}, or a function "
            f"of the arguments that returns one"
        )
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
