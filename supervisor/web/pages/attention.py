"""What needs attention, in words: what somebody who is on call would have to find out from ten tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from jobvisor.jobs.annals import QUEUE, Family, Paused
from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.found import Group
from jobvisor.jobs.schedule import Schedule
from jobvisor.supervisor.documents.limits import told_unknown_limits
from jobvisor.supervisor.documents.unknown import told_unknown, unknown_of_status
from jobvisor.supervisor.web.pages.standing import Standing, cause_of
from jobvisor.supervisor.web.pages.words import brief, count, distance, times

__all__ = ["LATE_S", "Attention", "attention"]

LATE_S = 60.0
"""A queue whose oldest pending job has waited for so long is late."""
LONG_S = 600.0
"""And so long is bad."""
RECENT_MS = 3_600_000
"""What died or failed within the last hour is worth a word."""
SHOWN_MAX = 20
OF_A_KIND_MAX = 5

Link = Callable[..., str]


class Attention(NamedTuple):
    """One sentence, how bad it is, and where to look."""

    kind: str
    """`bad` or `warn`."""
    word: str
    text: str
    link: str = ""
    link_word: str = ""


def attention(
    family: Standing,
    *,
    oldest: Mapping[str, float],
    families: Iterable[Family],
    failures: Iterable[Group],
    tasks: Mapping[int, str],
    paused: Iterable[Paused],
    url: Link,
    schedules: Iterable[Schedule] = (),
    unknown_limits: Iterable[str] = (),
) -> list[Attention]:
    """All of it, the worst first; `tasks` names those of the jobs that paid for a death."""
    pauses = list(paused)
    queues = {each.name for each in pauses if each.kind == QUEUE}
    going = {queue: seconds for queue, seconds in oldest.items() if queue not in queues}
    found = [
        *_of_family(family, url),
        *_of_families(families, url),
        *_of_queues(family, going, list(families), url),
        *_of_pauses(pauses, oldest, url),
        *_of_deaths(family, tasks, url),
        *_of_failures(failures, url),
        *_of_schedules(schedules, url),
        *_of_limits(unknown_limits, url),
    ]
    return sorted(found, key=lambda each: each.kind != "bad")[:SHOWN_MAX]


def _of_schedules(schedules: Iterable[Schedule], url: Link) -> Iterator[Attention]:
    for each in schedules:
        about = url("schedules"), "Schedules"
        if each.late >= LATE_S:
            text = f"Schedule {each.name} has been due for {brief(each.late)} and has enqueued nothing."
            yield Attention("bad" if each.late >= LONG_S else "warn", "late", text, *about)
        elif not each.next and not each.paused:
            yield Attention(
                "warn", "schedule", f"Schedule {each.name} never ticks: {each.words}", *about
            )


def _of_limits(unknown: Iterable[str], url: Link) -> Iterator[Attention]:
    for sentence in told_unknown_limits(unknown)[:OF_A_KIND_MAX]:
        yield Attention("warn", "limit", _sentence(sentence), url("limits"), "Limits")


def _of_family(family: Standing, url: Link) -> Iterator[Attention]:
    if not family.known:
        return
    if family.reason and not family.reason.startswith("degraded"):
        yield Attention("bad", family.state, f"The family here is not well: {family.reason}.")
    for reason in family.status.get("degraded") or []:
        yield Attention("bad", "degraded", _sentence(str(reason)), url("workers"), "Workers")
    for sentence in told_unknown(unknown_of_status(family.status))[:OF_A_KIND_MAX]:
        yield Attention("warn", "unknown", sentence, url("tasks"), "Tasks")
    reload = family.status.get("reload") or {}
    if reload.get("state") == "refused":
        yield Attention("warn", "reload", f"The last reload was refused: {reload.get('reason')}")


def _of_families(families: Iterable[Family], url: Link) -> Iterator[Attention]:
    for each in families:
        if each.died or each.silent > each.dead_after:
            yield Attention(
                "bad",
                "silent",
                f"Family {each.name} on {each.host} has been silent for {brief(each.silent)}: its jobs "
                "go to others.",
                url("families"),
                "Families",
            )


def _of_queues(
    family: Standing, oldest: Mapping[str, float], families: Sequence[Family], url: Link
) -> Iterator[Attention]:
    """Queues that nobody serves, then those that are late."""
    alone = len(families) <= 1
    late = sorted(oldest.items(), key=lambda each: -each[1])
    for queue, seconds in late[:OF_A_KIND_MAX]:
        link = f"{url('jobs')}?{urlencode({'state': 'pending', 'queue': queue})}"
        if family.pools_of(queue) == []:
            whose = "Nobody serves" if alone else "No pool of this machine serves"
            text = f"{whose} queue {queue}; its oldest job has waited {brief(seconds)}."
            yield Attention("bad" if alone else "warn", "unserved", text, link, "Its jobs")
        elif seconds >= LATE_S:
            kind = "bad" if seconds >= LONG_S else "warn"
            yield Attention(
                kind, "late", f"Queue {queue} has waited {brief(seconds)}.", link, "Its jobs"
            )


def _of_pauses(
    paused: Sequence[Paused], oldest: Mapping[str, float], url: Link
) -> Iterator[Attention]:
    """A pause is somebody's will, and easily forgotten."""
    for each in paused[:OF_A_KIND_MAX]:
        past = (SYSTEM.now_ms() - from_datetime(each.since)) / 1000
        text = f"{each.kind.capitalize()} {each.name} is paused, since {distance(past)}."
        if each.kind == QUEUE and each.name in oldest:
            text = f"{text[:-1]}; its oldest job has waited {brief(oldest[each.name])}."
        page = "queues" if each.kind == QUEUE else "tasks"
        yield Attention("warn", "paused", text, url(page), page.capitalize())


def _of_deaths(family: Standing, tasks: Mapping[int, str], url: Link) -> Iterator[Attention]:
    counted = Counter(
        (cause_of(each), tasks.get(each.get("job") or 0, ""))
        for each in family.deaths
        if _is_recent(each.get("at"))
    )
    for (cause, task), number in counted.most_common(OF_A_KIND_MAX):
        where = f" in {task}" if task else ""
        yield Attention(
            "bad" if number > 2 else "warn",
            "died",
            f"{times(number, 'worker')} died{where} within the last hour: {cause}.",
            url("workers"),
            "Workers",
        )


def _of_failures(failures: Iterable[Group], url: Link) -> Iterator[Attention]:
    recent = [each for each in failures if _is_recent(each.last)]
    for group in recent[:OF_A_KIND_MAX]:
        what = group.error_type or "no word is kept"
        past = (SYSTEM.now_ms() - from_datetime(group.last)) / 1000
        number = count(group.jobs)
        jobs = "job" if number == "1" else "jobs"
        link = {"state": "failed", "task": group.task, "error_type": group.error_type}
        yield Attention(
            "warn",
            "failing",
            f"{number} {jobs} of {group.task} failed, the last {distance(past)}: {what}.",
            f"{url('jobs')}?{urlencode(link)}",
            "These jobs",
        )


def _is_recent(moment: Any) -> bool:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return False
    return isinstance(moment, datetime) and SYSTEM.now_ms() - from_datetime(moment) < RECENT_MS


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
