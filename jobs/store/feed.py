"""The feed of changes: where a follower stands in it, and which numbers before that are still to come.

Numbers are drawn before their transaction commits, so they are seen out of order where there are
several writers at once. A number that was drawn and is not there yet is looked for again, until every
transaction that can have drawn it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

FOLLOWED_MOST = 3_600  # seconds that one `follow` may ask for
KEPT_MS = 600_000  # for how long a change is kept,
KEPT = 10_000  # and how many at most
AT_ONCE = 10_000  # changes, or new jobs, of one look: more are a gap
LATE_MOST = 1_000  # ranges of numbers that are looked for again; the oldest are given up
YOUNG_NS = 10_000_000_000  # an id may be drawn some time before its transaction has a number
BEGUN_BACK = 1_000  # numbers before the first look that may still be under way


class Late(NamedTuple):
    """Numbers that were drawn and not seen: of transactions under way, or of none that committed."""

    first: int
    last: int
    missed_ns: int
    """When they were missed first."""
    bound: int
    """Every transaction that can have drawn one has a number below this."""


class Cursor(NamedTuple):
    """A place in the feed of one database, made by `follow` and by each look; not to be read."""

    change: int
    job: int
    era: str
    late_changes: tuple[Late, ...] = ()
    late_jobs: tuple[Late, ...] = ()


class Changes(NamedTuple):
    """One look at the feed."""

    cursor: Cursor
    """Where the next look begins."""
    jobs: list[int]
    """The ids that are new, have changed or are gone: each once, and perhaps one that did not change."""
    is_complete: bool
    """False: more may have changed than is told here, so look at everything anew."""


class Standing(NamedTuple):
    """What the database says of itself at the beginning of a look."""

    followed: bool
    """Whether somebody follows now; else changes are not kept."""
    change: int
    """The greatest number of a change that was drawn."""
    job: int
    """The greatest id that was drawn."""
    oldest: int | None
    """The number of the oldest change that is kept."""
    era: str
    """Another one where numbers may have gone back, as after a crash."""
    ended: int | None
    """Every transaction with a number below this has ended; None where there is one writer at a time."""
    begun: int | None
    """Every transaction with a number has one below this."""

    def fits(self, cursor: Cursor) -> bool:
        """Whether all that came after the cursor is still there."""
        return (
            bool(self.followed)
            and self.era == cursor.era
            and self.change >= cursor.change
            and self.job >= cursor.job
            and (self.oldest is None or self.oldest <= cursor.change + 1)
        )


def ranges(late: Sequence[Late], after: int, newest: int, now_ns: int) -> list[Late]:
    """Where a look may find something: among what was late, and after what was known."""
    fresh = [Late(after + 1, newest, now_ns, 0)] if newest > after else []
    return [*late, *fresh]


def missing(looked: Iterable[Late], found: Iterable[int]) -> list[Late]:
    """What of these ranges was not found.

    >>> missing([Late(1, 9, 0, 0)], [3, 4, 9])
    [Late(first=1, last=2, missed_ns=0, bound=0), Late(first=5, last=8, missed_ns=0, bound=0)]
    """
    numbers = iter(sorted(found))
    number = next(numbers, None)
    left: list[Late] = []
    for each in sorted(looked):
        first = each.first
        while number is not None and number <= each.last:
            if first < number:
                left.append(each._replace(first=first, last=number - 1))
            first = number + 1
            number = next(numbers, None)
        if first <= each.last:
            left.append(each._replace(first=first))
    return left


def still_late(left: Iterable[Late], standing: Standing, now_ns: int) -> tuple[Late, ...]:
    """Those of the missing numbers that may yet come, the newest of them."""
    if standing.ended is None or standing.begun is None:
        return ()
    kept: list[Late] = []
    for each in left:
        if now_ns - each.missed_ns < YOUNG_NS:
            kept.append(each._replace(bound=standing.begun))
        elif standing.ended < each.bound:
            kept.append(each)
    return tuple(kept[-LATE_MOST:])
