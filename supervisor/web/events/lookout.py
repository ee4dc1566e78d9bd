"""The looks: each asks the database what changed since the one before, for all readers together.

Whoever changes jobs looks once a second whether somebody follows, so what was changed just before they
heard of us is not told: a moment after each beginning, and after each gap, everything is to be looked
at anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.job import Summary
from jobvisor.jobs.store.audience import TRUSTED_NS
from jobvisor.jobs.store.feed import Cursor
from jobvisor.supervisor.web.events.message import Shown, Told, told

FOLLOWED_S = 10
"""For so long it follows, and asks again after half of it. Who is back within it misses nothing."""

HEARD_NS = TRUSTED_NS + SECOND // 10
"""After a beginning: by now everybody knows that somebody follows."""

AGAIN_NS = 10 * SECOND
"""After a beginning: the longer transactions that did not know have ended, too."""

BEGINS = "it begins here"

JOBS_MOST = 2_000  # that changed between two looks; of more it is told only that they are more
TEXT_MOST = 1 << 20  # letters of one look


class Seen(NamedTuple):
    """What one look has found."""

    told: list[Told] = []  # noqa: RUF012 -- nobody changes it
    reset: str | None = None
    """Why everything is to be looked at anew."""
    trouble: str | None = None
    """Why nothing could be seen."""
    began: bool = False
    """Nobody followed before: what changed until now is not known."""


class Lookout:
    """One thread at a time may use it, but that one may still close the connection of the time before."""

    def __init__(
        self,
        client: Client,
        shown: Shown,
        clock: Clock = SYSTEM,
    ) -> None:
        self._client = client
        self._shown = shown
        self._clock = clock
        self._own: Client | None = None
        self._cursor: Cursor | None = None
        self._asked = 0
        self._due: list[tuple[int, str]] = []
        """When everything is to be looked at anew, and why."""
        self._troubled = False

    @property
    def is_sure(self) -> bool:
        """Whether everybody tells what he changes, as far as is known; else a word is due in a moment."""
        soon = self._clock.boottime_ns() + HEARD_NS
        waits = any(at <= soon for at, _why in self._due)
        follows = self._clock.boottime_ns() - self._asked < FOLLOWED_S * SECOND
        return self._cursor is not None and follows and not waits and not self._troubled

    def look(self, jobs: frozenset[int]) -> Seen:
        """What changed; where that is too much, of these jobs alone."""
        try:
            seen = self._look(jobs)
        except JobsError as error:
            self._troubled = True
            return Seen(trouble=str(error))
        if self._troubled:
            self._troubled = False
            self._due.append((self._clock.boottime_ns(), "the database answers again"))
        return seen._replace(reset=seen.reset or self._now_due())

    def rest(self) -> None:
        """Nobody listens: no connection stays open. Who comes back soon goes on from here."""
        # First: where closing it takes so long that nobody waits for it, the next look has one of its own.
        own, self._own = self._own, None
        if own is not None and own is not self._client:
            own.close()

    def _look(self, jobs: frozenset[int]) -> Seen:
        own = self._own
        if own is None:
            own = self._own = self._client.another()
        began = self._follow(own)
        assert self._cursor is not None
        changes = own.changes(self._cursor)
        self._cursor = changes.cursor
        if not changes.is_complete:
            # Perhaps nobody followed for a while, by the database's clock: it is asked for anew.
            self._asked -= FOLLOWED_S * SECOND // 2
            self._look_anew("more changed than could be followed")
        found = changes.jobs
        if len(found) > JOBS_MOST:
            self._look_anew("more changed than is told one by one")
            found = [job for job in found if job in jobs]
        return Seen(self._told(own, found), began=began)

    def _follow(self, client: Client) -> bool:
        """Ask for the feed where it is time; whether that is a beginning."""
        now = self._clock.boottime_ns()
        waited = now - self._asked
        if self._cursor is not None and waited < FOLLOWED_S * SECOND // 2:
            return False
        begins = self._cursor is None or waited >= FOLLOWED_S * SECOND
        cursor = client.follow(FOLLOWED_S)
        self._asked = now
        if begins:
            self._cursor = cursor
            since = self._clock.boottime_ns()  # when it was written, for all to see
            self._due = [(since + HEARD_NS, BEGINS), (since + AGAIN_NS, BEGINS)]
        return begins

    def _look_anew(self, why: str) -> None:
        """A moment from now, so that it is not said more than once a second."""
        then = self._clock.boottime_ns() + HEARD_NS
        if all(at > then for at, _why in self._due):
            self._due.append((then, why))

    def _now_due(self) -> str | None:
        now = self._clock.boottime_ns()
        reasons = [why for at, why in self._due if at <= now]
        self._due = [each for each in self._due if each[0] > now]
        return reasons[-1] if reasons else None

    def _told(self, client: Client, jobs: list[int]) -> list[Told]:
        if not jobs:
            return []
        found = {each.id: each for each in client.summaries(jobs)}
        made = list(self._as_text(jobs, found))
        if sum(len(each.text) for each in made) <= TEXT_MOST:
            return made
        self._look_anew("more changed than is told one by one")
        return []

    def _as_text(self, jobs: list[int], found: dict[int, Summary]) -> Iterable[Told]:
        for job in jobs:
            each = found.get(job)
            if each is None:
                yield Told(job, told(None, job))
            else:
                text = told(self._shown(each.as_json()), job)
                yield Told(job, text, each.state.value, each.queue, each.task)
