"""Small charts of the sums of minutes: drawn, as a table, and in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from jobvisor.jobs.annals import MINUTE_MS, Sums
from jobvisor.jobs.clock import to_datetime
from jobvisor.supervisor.web.pages.drawing import bars, line
from jobvisor.supervisor.web.pages.words import brief, number

__all__ = ["RANGES", "Range", "charts"]


@dataclass(frozen=True, slots=True)
class Range:
    """How far back, in how many minutes a bucket, and how many of these a row of the table has."""

    word: str
    minutes: int
    bucket: int
    told: int

    @property
    def buckets(self) -> int:
        """How many there are."""
        return self.minutes // self.bucket


RANGES = {"1h": Range("1 hour", 60, 1, 5), "24h": Range("24 hours", 1440, 15, 4)}


class Bucket(NamedTuple):
    """The sums of all queues in one piece of the time that is shown."""

    at_ms: int
    succeeded: int = 0
    failed: int = 0
    started: int = 0
    wait_ms: int = 0
    wait_max_ms: int = 0
    depth: int | None = None

    @property
    def wait_s(self) -> float | None:
        """How long a job waited on average; None where none began."""
        return self.wait_ms / self.started / 1000 if self.started else None

    @property
    def longest_s(self) -> float | None:
        """And the longest; None where none began."""
        return self.wait_max_ms / 1000 if self.started else None

    def plus(self, other: Sums | Bucket) -> Bucket:
        """Both together; of the depth the most."""
        depths = [each for each in (self.depth, other.depth) if each is not None]
        return Bucket(
            self.at_ms,
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.started + other.started,
            self.wait_ms + other.wait_ms,
            max(self.wait_max_ms, other.wait_max_ms),
            max(depths, default=None),
        )


class Chart(NamedTuple):
    """One chart, as its template wants it."""

    name: str
    title: str
    value: str
    """What it comes to."""
    svg: Markup
    top: str
    """The greatest value that is drawn; empty where nothing is."""
    columns: list[str]
    rows: list[list[str]]
    """The same in numbers: the hour first, the newest row first."""
    words: str
    """The same in a sentence, for those who do not see it."""


def charts(sums: Iterable[Sums], span: Range, now_ms: int) -> list[Chart]:
    """The four of the overview."""
    buckets = _buckets(sums, span, now_ms)
    return [make(buckets, span) for make in (_done, _failed, _waits, _depth)]


def _buckets(sums: Iterable[Sums], span: Range, now_ms: int) -> list[Bucket]:
    """All of them, the oldest first, the empty ones too."""
    wide = span.bucket * MINUTE_MS
    last = now_ms // wide * wide
    found = {at: Bucket(at) for at in range(last - (span.buckets - 1) * wide, last + wide, wide)}
    for each in sums:
        at = each.at_ms // wide * wide
        if at in found:
            found[at] = found[at].plus(each)
    return list(found.values())


def _done(buckets: Sequence[Bucket], span: Range) -> Chart:
    counts = [each.succeeded for each in buckets]
    done = sum(counts)
    return Chart(
        name="done",
        title="Done",
        value=number(done),
        svg=bars(counts, "bar-good"),
        top=_most(counts, span),
        columns=["Succeeded"],
        rows=_rows(buckets, span, lambda each: [number(each.succeeded)]),
        words=f"{number(done)} jobs succeeded in {span.word}.",
    )


def _failed(buckets: Sequence[Bucket], span: Range) -> Chart:
    counts = [each.failed for each in buckets]
    failed, done = sum(counts), sum(each.succeeded for each in buckets)
    share = f" ({failed / (failed + done):.1%})" if failed else ""
    return Chart(
        name="failed",
        title="Failed",
        value=f"{number(failed)}{share}",
        svg=bars(counts, "bar-bad"),
        top=_most(counts, span),
        columns=["Failed"],
        rows=_rows(buckets, span, lambda each: [number(each.failed)]),
        words=f"{number(failed)} jobs failed for good in {span.word}{share}.",
    )


def _waits(buckets: Sequence[Bucket], span: Range) -> Chart:
    means = [each.wait_s for each in buckets]
    whole = _sum(buckets)
    mean, longest = brief(whole.wait_s), brief(whole.longest_s)
    return Chart(
        name="waits",
        title="Waiting time",
        value=f"{mean}, at most {longest}" if mean else "no job began",
        svg=line(means),
        top=f"top {brief(max(each or 0 for each in means))}" if mean else "",
        columns=["Average", "Longest"],
        rows=_rows(buckets, span, lambda each: [brief(each.wait_s), brief(each.longest_s)]),
        words=f"Jobs that began in {span.word} had waited {mean} on average, {longest} at the longest."
        if mean
        else f"No job began in {span.word}.",
    )


def _depth(buckets: Sequence[Bucket], span: Range) -> Chart:
    depths = [each.depth for each in buckets]
    seen = [each for each in depths if each is not None]
    most = max(seen, default=0)
    return Chart(
        name="depth",
        title="Pending",
        value=f"{number(seen[-1])} lately" if seen else "not seen yet",
        svg=line(depths),
        top=f"top {number(most)}" if most else "",
        columns=["Most pending"],
        rows=_rows(buckets, span, lambda each: [number(each.depth)]),
        words=f"At most {number(most)} jobs were pending in {span.word}.",
    )


def _most(counts: Sequence[int], span: Range) -> str:
    most = max(counts, default=0)
    return f"top {number(most)} in {span.bucket} min" if most else ""


def _rows(
    buckets: Sequence[Bucket], span: Range, told: Callable[[Bucket], list[str]]
) -> list[list[str]]:
    pieces = [
        _sum(buckets[start : start + span.told]) for start in range(0, len(buckets), span.told)
    ]
    return [[f"{to_datetime(each.at_ms):%H:%M}", *told(each)] for each in reversed(pieces)]


def _sum(buckets: Sequence[Bucket]) -> Bucket:
    total = Bucket(buckets[0].at_ms)
    for each in buckets:
        total = total.plus(each)
    return total
