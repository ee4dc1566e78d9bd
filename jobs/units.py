"""Durations and sizes as people write them: "1m30s" to milliseconds, "512MB" to bytes, and back.

Inside the code a duration is an integer of milliseconds and a size an integer of bytes; only here
do they meet text. A positive duration never becomes 0, because 0 means "none" for a timeout.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from fractions import Fraction
from functools import lru_cache

from jobvisor.jobs.errors import InvalidOption, shown

Duration = str | int | float | timedelta
"""Seconds as a number, text such as "1m30s", or a timedelta."""

# A hundred years: any moment plus any duration stays inside datetime's and the database's range.
DURATION_MAX_MS = 100 * 365 * 86_400_000
# 8 EiB - 1, what a signed 64-bit column holds.
SIZE_MAX = 2**63 - 1

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_UNIT_BYTES = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

# The lengths are bounded so that no text makes the arithmetic slow.
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_PLAIN_NUMBER = re.compile(_NUMBER)
_SIZE = re.compile(rf"({_NUMBER}) ?(?:([KMGT])(?:i?B)?|(B?))")

_DURATION_HELP = 'write seconds or text such as "250ms", "30s", "1m30s", "7d"'
_SIZE_HELP = 'write bytes or text such as "64KB", "512MB", "2GB"'


def duration_ms(value: Duration) -> int:
    """A duration in milliseconds. Numbers, also as text, are seconds.

    The smallest positive answer is 1, the largest a hundred years; anything else is an
    InvalidOption.

    >>> duration_ms("1m30s"), duration_ms(2.5), duration_ms("0"), duration_ms("0.1ms")
    (90000, 2500, 0, 1)
    """
    if isinstance(value, str):
        return _parsed_duration(value)
    if isinstance(value, timedelta):
        return _whole_ms(Fraction(value // timedelta(microseconds=1), 1_000), value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{shown(value)} is not a duration: {_DURATION_HELP}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidOption(f"{value!r} is not a duration: {_DURATION_HELP}")
    return _whole_ms(Fraction(value) * 1_000, value)


@lru_cache(maxsize=512)  # the same few texts come again with each job: Retry(after="5m")
def _parsed_duration(text: str) -> int:
    trimmed = text.strip()
    if _PLAIN_NUMBER.fullmatch(trimmed):
        return _whole_ms(Fraction(trimmed) * 1_000, text)
    if not _DURATION.fullmatch(trimmed):
        raise InvalidOption(f"{shown(text)} is not a duration: {_DURATION_HELP}")
    parts = _DURATION_PART.findall(trimmed)
    return _whole_ms(sum(Fraction(number) * _UNIT_MS[unit] for number, unit in parts), text)


def _whole_ms(exact: Fraction | int, value: object) -> int:
    if exact < 0:
        raise InvalidOption(f"{shown(value)} is not a duration: it is negative; {_DURATION_HELP}")
    if exact > DURATION_MAX_MS:
        raise InvalidOption(f"{shown(value)} is too long: the longest duration is a hundred years")
    return max(1, round(exact)) if exact else 0


def duration_text(ms: int) -> str:
    """Milliseconds as the text that `duration_ms` reads back to the same number.

    >>> duration_text(90_000), duration_text(1_500), duration_text(250), duration_text(0)
    ('1m30s', '1.5s', '250ms', '0s')
    """
    if ms < 0:
        return f"-{duration_text(-ms)}"
    if 0 < ms < 1_000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    days, minutes = divmod(minutes, 1_440)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if n]
    if rest or not parts:
        parts.append(_seconds_text(rest))
    return "".join(parts)


def _seconds_text(ms: int) -> str:
    seconds, thousandths = divmod(ms, 1_000)
    if not thousandths:
        return f"{seconds}s"
    return f"{seconds}.{thousandths:03d}".rstrip("0") + "s"


def size_bytes(value: str | int) -> int:
    """A size in bytes. K, M, G and T are powers of 1024, as memory is counted.

    >>> size_bytes("512MB"), size_bytes("1.5K"), size_bytes(100), size_bytes("0")
    (536870912, 1536, 100, 0)
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidOption(f"{shown(value)} is not a size: {_SIZE_HELP}")
    size = value if isinstance(value, int) else _parsed_size(value)
    if not 0 <= size <= SIZE_MAX:
        raise InvalidOption(f"{shown(value)} is not a size: it must be between 0 and 8 EiB")
    return size


def _parsed_size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip().upper().replace("I", "i"))
    if not found:
        raise InvalidOption(f"{shown(text)} is not a size: {_SIZE_HELP}")
    number, unit, _ = found.groups()
    return math.ceil(Fraction(number) * _UNIT_BYTES[unit or ""])


def size_text(size: int) -> str:
    """Bytes as a short text for people: a whole number of a unit, or one decimal.

    >>> size_text(536_870_912), size_text(1_536), size_text(100), size_text(0)
    ('512MB', '1.5KB', '100B', '0B')
    """
    for unit in ("T", "G", "M", "K"):
        one = _UNIT_BYTES[unit]
        if size >= one:
            return f"{size // one}{unit}B" if size % one == 0 else f"{size / one:.1f}{unit}B"
    return f"{size}B"
