"""How long a unique key is held, and what a call does that finds it held: judged where it is written."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.nearest import suggestion
from jobvisor.jobs.units import Duration, duration_ms, duration_text

__all__ = [
    "CONFLICTS",
    "KEPT",
    "UNFINISHED",
    "WAITING",
    "OnConflict",
    "UniqueFor",
    "check_on_conflict",
    "check_together",
    "check_unique_for",
    "check_wait",
    "keyed_terms",
    "unique_for_text",
]

UNFINISHED, KEPT, WAITING = "unfinished", "kept", "waiting"
"""How long a key is held; the last is that of a debounced job, until it begins."""
CONFLICTS = ("return", "raise", "replace", "debounce")
UNIQUE_FOR_MAX_MS = 10 * 366 * 86_400_000
"""Ten years."""

UniqueFor = Duration
"""`"unfinished"`, `"kept"`, or a duration."""
OnConflict = Literal["return", "raise", "replace", "debounce"]


class Keyed(Protocol):
    """What is asked of options, already judged one by one."""

    @property
    def unique(self) -> Any:
        """The key, or how it is made."""

    @property
    def unique_for(self) -> str | int | None:
        """A word, or milliseconds."""

    @property
    def on_conflict(self) -> str | None:
        """A word of CONFLICTS."""

    @property
    def delay_ms(self) -> int | None:
        """Of a debounced job: from the last call on."""

    @property
    def max_wait_ms(self) -> int | None:
        """And from the first one on."""

    @property
    def run_in_ms(self) -> int | None:
        """What says when it runs, otherwise."""

    @property
    def run_at_ms(self) -> int | None:
        """Or this."""


def check_unique_for(option: str, value: Any) -> str | int:
    """One of the words, or a duration in milliseconds.

    >>> check_unique_for("unique_for", "kept"), check_unique_for("unique_for", "10m")
    ('kept', 600000)
    """
    if value in (UNFINISHED, KEPT):
        return str(value)
    try:
        ms = duration_ms(value)
    except InvalidOption:
        raise InvalidOption(
            f'{option}={shown(value)} must be "unfinished", "kept", or a duration such as "10m"'
        ) from None
    if not 0 < ms <= UNIQUE_FOR_MAX_MS:
        raise InvalidOption(
            f'{option}={shown(value)} must be above 0 and at most ten years, or "kept"'
        )
    return ms


def check_on_conflict(option: str, value: Any) -> str:
    """One of the words."""
    if value not in CONFLICTS:
        near = suggestion(value, CONFLICTS) if isinstance(value, str) else f"one of {CONFLICTS}"
        raise InvalidOption(f"{option}={shown(value)} is no answer to a conflict; {near}")
    return str(value)


def check_wait(option: str, value: Any) -> int:
    """A duration above 0, in milliseconds."""
    try:
        ms = duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error
    if not 0 < ms <= UNIQUE_FOR_MAX_MS:
        raise InvalidOption(f"{option}={shown(value)} must be above 0 and at most ten years")
    return ms


def check_together(options: Keyed) -> None:
    """InvalidOption where what was said of keys contradicts itself."""
    debounces = options.on_conflict == "debounce"
    for name, ms in (("delay", options.delay_ms), ("max_wait", options.max_wait_ms)):
        if debounces and ms is None:
            raise InvalidOption(
                f'on_conflict="debounce" needs {name}=: delay="5s" after the last call, '
                'but max_wait="1m" after the first one'
            )
        if not debounces and ms is not None:
            raise InvalidOption(f'{name} is only about on_conflict="debounce"; leave it out')
    if not debounces:
        return
    if options.unique_for not in (None, UNFINISHED):
        raise InvalidOption(
            'on_conflict="debounce" gives the key back when the job begins; leave unique_for out'
        )
    if options.run_in_ms is not None or options.run_at_ms is not None:
        raise InvalidOption(
            'on_conflict="debounce" says when by delay; leave run_in and run_at out'
        )
    delay, most = options.delay_ms or 0, options.max_wait_ms or 0
    if most < delay:
        raise InvalidOption(
            f"max_wait={duration_text(most)!r} is below delay={duration_text(delay)!r}; "
            "it must be at least as long"
        )


def keyed_terms(options: Keyed) -> dict[str, Any]:
    """What the `Terms` of a job say of its key; nothing where it is held as every key is.

    InvalidOption where there is no key, or what was said contradicts itself.
    """
    said = (options.unique_for, options.on_conflict, options.delay_ms, options.max_wait_ms)
    if options.unique is False or said == (None,) * 4:
        return {}
    if options.unique is None:
        words = zip(("unique_for", "on_conflict", "delay", "max_wait"), said, strict=True)
        name = next(word for word, value in words if value is not None)
        raise InvalidOption(f"{name} is about a unique key; give unique= too")
    check_together(options)
    conflict = options.on_conflict or "return"
    held_for = options.unique_for or UNFINISHED
    if conflict == "return" and held_for == UNFINISHED:
        return {}
    return {
        "conflict": conflict,
        "is_held": held_for != UNFINISHED or conflict == "debounce",
        "held_ms": held_for if isinstance(held_for, int) else None,
        "debounce_ms": options.max_wait_ms,
    }


def unique_for_text(value: str | int) -> str:
    """As it is written.

    >>> unique_for_text(600_000), unique_for_text("kept")
    ('10m', 'kept')
    """
    return value if isinstance(value, str) else duration_text(value)
