"""A limit: how many jobs of a name may run at once, and how many may start in a while.

Each job has one key at most. What stands before its first colon is the name of the limit; each key has the
limit for itself: with the limit `stripe` both `stripe:acct_1` and `stripe:acct_2` have all its places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.clock import iso
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.units import duration_ms, duration_text

__all__ = [
    "CONFIG", "COUNTED_MOST", "SET", "Limit", "LimitStanding", "Waiting", "check_limit_key",
    "check_limit_name", "limit_name", "limit_of", "rate_of",
]  # fmt: skip

KEY_MAX = 500  # characters, as the column has it
NAME_MAX = 100
CONCURRENCY_MAX = 10_000
COUNTED_MOST = 10_000  # jobs of a limit, for whoever is shown it
RATE_MAX = 1_000_000
PER_MAX_MS = 366 * 86_400_000
BURST_MAX = 1_000_000
SAVED_MAX_MS = 10 * 366 * 86_400_000  # what a burst saves up, as time at its rate

CONFIG, SET = "config", "set"
"""Who said what a limit is: the file of a family, or somebody at run time."""

_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{NAME_MAX}}}")
_NAME_HELP = f"1 to {NAME_MAX} letters, digits and _ . -"
_RATE = re.compile(r"([0-9]{1,10})/(.{1,30})")
_RATE_HELP = 'write a number and a duration, such as "100/1m" or "10/s"'


class Limit(NamedTuple):
    """One limit, as it is stored."""

    name: str
    concurrency: int | None = None
    """How many of a key may run at once; None for any number."""
    rate: int | None = None
    """How many of a key may start in `per_ms`; None for any number."""
    per_ms: int | None = None
    burst: int | None = None
    """How many may start at once after a pause; None where there is no rate."""
    source: str = SET
    """Who said so: `config`, or `set` at run time."""

    @property
    def rate_text(self) -> str | None:
        """The rate as people write it.

        >>> Limit("stripe", rate=100, per_ms=60_000, burst=2).rate_text
        '100/1m'
        """
        return None if self.rate is None else f"{self.rate}/{duration_text(self.per_ms or 0)}"

    def __str__(self) -> str:
        told = [] if self.concurrency is None else [f"{self.concurrency:,} at once"]
        if self.rate is not None:
            told.append(f"{self.rate_text}, {self.burst:,} after a rest")
        return f"{self.name}: {', '.join(told)}"

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes, in the words in which a limit is set."""
        return {
            "name": self.name, "concurrency": self.concurrency, "rate": self.rate_text,
            "burst": self.burst, "source": self.source,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """A limit, and how its jobs stand; of each number up to 10,000 are counted."""

    limit: Limit
    running: int
    waiting: int
    """Jobs that are blocked for it."""
    keys: int
    """How many keys it has been applied to lately."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        told = {"running": self.running, "waiting": self.waiting, "keys": self.keys}
        return {**self.limit.as_json(), **told}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a job waits for its limit."""

    key: str
    limit: Limit | None
    """None where nobody has said what this limit is: its jobs wait until somebody does."""
    running: int
    ahead: int | None
    """How many of its queue come before it, counted up to 10,000; None where that is not known."""
    next_at: datetime | None
    """When the rate lets the next one start; None where it does not stand in the way."""

    def __str__(self) -> str:
        if self.limit is None:
            return f"limit {self.key}: nobody has said what {limit_name(self.key)} is"
        told = []
        if self.limit.concurrency is not None:
            told.append(f"{self.running:,} of {self.limit.concurrency:,}")
        if self.limit.rate_text is not None:
            after = "" if self.next_at is None else f", the next at {iso(self.next_at)}"
            told.append(f"{self.limit.rate_text}{after}")
        if self.ahead is not None:
            told.append(f"{_ordinal(self.ahead + 1)} in line")
        return f"limit {self.key}: {', '.join(told)}"

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {
            "key": self.key,
            "limit": None if self.limit is None else self.limit.as_json(),
            "running": self.running,
            "ahead": self.ahead,
            "next_at": None if self.next_at is None else iso(self.next_at),
        }


def _ordinal(number: int) -> str:
    last = (
        "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    )
    return f"{number:,}{last}"


def limit_of(
    name: Any,
    *,
    concurrency: Any = None,
    rate: Any = None,
    burst: Any = None,
    source: str = SET,
) -> Limit:
    """Judge what a person wrote; an InvalidOption names what is wrong with it, and the remedy.

    Without a `burst` it is what the rate gives in a second, and one at the least.

    >>> limit_of("stripe", concurrency=5, rate="100/1m")
    Limit(name='stripe', concurrency=5, rate=100, per_ms=60000, burst=2, source='set')
    """
    check_limit_name(name)
    if concurrency is None and rate is None:
        raise InvalidOption(
            f"the limit {name} limits nothing; give it a concurrency, a rate, or both"
        )
    if concurrency is not None:
        _check_whole("concurrency", concurrency, 0, CONCURRENCY_MAX)
    if rate is None:
        if burst is not None:
            raise InvalidOption(
                f'burst={shown(burst)} goes with a rate; give one, such as "100/1m"'
            )
        return Limit(name, concurrency, source=source)
    number, per_ms = rate_of(rate)
    saved = -(-number * 1_000 // per_ms) if burst is None else burst
    _check_whole("burst", saved, 1, BURST_MAX)
    if saved * per_ms > SAVED_MAX_MS * number:
        raise InvalidOption(
            f"burst={saved} of rate {rate} saves up more than ten years; make it less"
        )
    return Limit(name, concurrency, number, per_ms, saved, source)


def rate_of(rate: Any) -> tuple[int, int]:
    """How many in how many milliseconds; InvalidOption where a rate does not say so.

    >>> rate_of("100/1m"), rate_of("10/s")
    ((100, 60000), (10, 1000))
    """
    found = _RATE.fullmatch(rate.strip()) if isinstance(rate, str) else None
    if found is None:
        raise InvalidOption(f"rate={shown(rate)} is no rate: {_RATE_HELP}")
    number, per = int(found[1]), found[2].strip()
    try:
        per_ms = duration_ms(f"1{per}" if per[:1].isalpha() else per)
    except InvalidOption:
        raise InvalidOption(f"rate={shown(rate)} is no rate: {_RATE_HELP}") from None
    if not 1 <= number <= RATE_MAX or not 1 <= per_ms <= PER_MAX_MS:
        raise InvalidOption(
            f"rate={shown(rate)} must be 1 to {RATE_MAX:,} in a time of 1ms to 366d; "
            "for none at all write concurrency = 0"
        )
    return number, per_ms


def _check_whole(option: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidOption(
            f"{option}={shown(value)} must be a whole number from {low} to {high:,}"
        )


def check_limit_name(name: Any) -> str:
    """The name of a limit, or an InvalidOption.

    >>> check_limit_name("stripe")
    'stripe'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidOption(f"{shown(name)} is no name of a limit: write {_NAME_HELP}")
    return name


def check_limit_key(option: str, key: Any) -> str:
    """The key of a job's limit, or an InvalidOption that begins with the option's name.

    >>> check_limit_key("limit", "stripe:acct_1")
    'stripe:acct_1'
    """
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_MAX or not _is_text(key):
        raise InvalidOption(
            f"{option}={shown(key)} must be a str of 1 to {KEY_MAX} characters: a limit's name, or "
            'the name, a colon and what the limit is for, such as "stripe:acct_1"'
        )
    if not _NAME.fullmatch(limit_name(key)):
        raise InvalidOption(
            f"{option}={shown(key)} begins with no name of a limit: before the first colon write "
            f"{_NAME_HELP}"
        )
    return key


def limit_name(key: str) -> str:
    """The name of the limit that a key is of.

    >>> limit_name("stripe:acct_1"), limit_name("stripe")
    ('stripe', 'stripe')
    """
    return key.partition(":")[0]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
