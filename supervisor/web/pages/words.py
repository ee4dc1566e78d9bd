"""How a value is written on a page: a moment, a duration, a size, a stranger's text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from jobvisor.jobs.clock import SYSTEM, from_datetime, iso, to_datetime
from jobvisor.jobs.found import Count
from jobvisor.jobs.units import duration_text, size_text

__all__ = ["FILTERS", "SHOWN_MAX"]

SHOWN_MAX = 65_536
"""Letters of one value on a page."""


def plain(value: object) -> str:
    r"""A stranger's text without what would hide or reorder the letters beside it; lines stay.

    >>> plain("one\x00\u202etwo")
    'one\\x00\\u202etwo'
    """
    text = str(value)
    shown = text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1]
        for letter in shown
    )


def brief(seconds: float | None) -> str:
    """A duration as people say it, by its two largest units.

    >>> brief(0.0042), brief(0.25), brief(7.3), brief(90), brief(100_000), brief(None)
    ('4 ms', '250 ms', '7.3 s', '1 min 30 s', '1 d 3 h', '')
    """
    if seconds is None:
        return ""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 10:
        return f"{seconds:.1f} s"
    parts, left = [], round(seconds)
    for unit, one in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, one)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def ago(moment: datetime | str | None) -> Markup:
    """How long ago, or in how long; the moment itself stands behind it."""
    if isinstance(moment, str):
        moment = _moment(moment)
    if moment is None:
        return Markup('<span class="quiet">never</span>')
    past = (SYSTEM.now_ms() - from_datetime(moment)) / 1000
    exact = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(
        iso(moment), exact, distance(past)
    )


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def distance(past: float) -> str:
    """Seconds that have passed, or are to pass, in one unit: the script of the page says it likewise.

    >>> distance(0.3), distance(42), distance(-90), distance(7200), distance(259200)
    ('now', '42 s ago', 'in 1 min', '2 h ago', '3 d ago')
    """
    size = abs(past)
    if size < 1:
        return "now"
    for unit, one in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if size >= one:
            told = f"{int(size // one)} {unit}"
            break
    return f"{told} ago" if past > 0 else f"in {told}"


def moment(value: datetime | None) -> str:
    """A moment to the millisecond."""
    return (
        ""
        if value is None
        else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.}{value.microsecond // 1000:03d} UTC"
    )


def number(value: float | None) -> str:
    """A number with its thousands apart.

    >>> number(1234567), number(0.25)
    ('1,234,567', '0.25')
    """
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def count(value: Count) -> str:
    """How many, and whether there may be more.

    >>> count(Count(2000, at_least=True))
    '2,000+'
    """
    return f"{value.number:,}{'+' if value.at_least else ''}"


def times(value: int, word: str) -> str:
    """So many of something.

    >>> times(1, "job"), times(2000, "job")
    ('1 job', '2,000 jobs')
    """
    return f"{value:,} {word}{'' if value == 1 else 's'}"


def size(value: int | None) -> str:
    """Bytes for people."""
    return "" if value is None else size_text(value)


def between(began: datetime | None, ended: datetime | None) -> float | None:
    """Seconds from one moment to the other."""
    return None if began is None or ended is None else (ended - began).total_seconds()


def as_json(value: Any) -> str:
    r"""A value as JSON on several lines, which reads back also where `plain` has been over it.

    >>> as_json("a\x85b\u202e")
    '"a\\u0085b\\u202e"'
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]
        for letter in text
    )


FILTERS = {
    "ago": ago,
    "as_json": as_json,
    "between": between,
    "brief": brief,
    "count": count,
    "clock": lambda ms: f"{to_datetime(ms):%H:%M:%S}",
    "duration": lambda ms: duration_text(int(ms)),
    "moment": moment,
    "number": number,
    "plain": plain,
    "size": size,
}
