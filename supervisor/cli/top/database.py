"""What the screen asks of a database: bounded reads, and what a key does to a job or to a group of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jobvisor.jobs.annals import Family
from jobvisor.jobs.client import Client, Moves
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.found import Count, Group, Page
from jobvisor.jobs.job import Attempt, Job
from jobvisor.jobs.why import Reason
from jobvisor.supervisor.cli.bulk import Act, Course
from jobvisor.supervisor.cli.noting import who
from jobvisor.supervisor.cli.selection import filter_of
from jobvisor.supervisor.cli.site import Site
from jobvisor.supervisor.cli.top.rows import FAILURES, JOBS
from jobvisor.supervisor.cli.top.typed import typed_words
from jobvisor.supervisor.documents.queues import queues_of

__all__ = ["Database", "Looked"]

ROWS_SHOWN = 200

NO_PAGE = Page([], None, 0)


class Looked(NamedTuple):
    """What one look has found."""

    queues: Mapping[str, Mapping[str, Any]] = {}
    at_least: frozenset[str] = frozenset()
    """The states of which there may be more jobs than were counted."""
    jobs: Sequence[Job] = ()
    looked: int | None = None
    """So many of the newest jobs were looked at for them, and there are others."""
    failures: Sequence[Group] = ()
    families: Sequence[Family] = ()


class Database:
    """Used by one thread; nothing is connected before the first question."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._made: Client | None = None
        self._leaving = False
        self.course: Course | None = None
        """How far a long deed has come; looked at by the thread that draws."""

    def close(self) -> None:
        """Disconnect."""
        if self._made is not None:
            self._made.close()

    def leave(self) -> bool:
        """Let a long deed end after its page; whether there is one."""
        self._leaving = True
        return self.course is not None

    @property
    def _client(self) -> Client:
        self._site.check()  # a file that is gone must not be made anew by a look at it
        if self._made is None:
            self._made = self._site.client()
        return self._made

    def look(self, tab: str, typed: str) -> Looked:
        """What waits, who works, and the rows of one table."""
        client, config = self._client, self._site.config
        queues = queues_of(client, None if config is None else config.queues)
        page = self._page(typed) if tab == JOBS else NO_PAGE
        return Looked(
            queues["queues"],
            frozenset(queues["at_least"]),
            jobs=page.jobs,
            looked=None if page.before is None or len(page.jobs) == ROWS_SHOWN else page.looked,
            failures=client.failures(limit=ROWS_SHOWN).groups if tab == FAILURES else (),
            families=client.families(),
        )

    def _page(self, typed: str) -> Page:
        which = filter_of(self._client, typed_words(typed), tell=lambda _text: None)
        return NO_PAGE if which is None else self._client.page(which, limit=ROWS_SHOWN)

    def job(self, job: int) -> tuple[Job, list[Attempt]]:
        """One job, and its unsuccessful runs."""
        client = self._client
        return client.get(job), client.attempts(job)

    def why(self, job: int) -> list[Reason]:
        """Why it does not run."""
        config = self._site.config
        return self._client.why(job, served=None if config is None else config.queues)

    def cancel(self, job: int) -> str:
        """What became of it, in words."""
        with self._client.transaction():
            outcome = self._client.cancel(job)
            self._client.note_action(who(), "cancel", f"job {job}", 1)
        return f"job {job} {'is asked to end' if outcome == 'requested' else 'is cancelled'}"

    def requeue(self, job: int) -> str:
        """What became of it, in words."""
        with self._client.transaction():
            self._client.requeue(job)
            self._client.note_action(who(), "requeue", f"job {job}", 1)
        return f"job {job} starts over"

    def _go_on(self, _page: Moves) -> None:
        if self._leaving:
            raise _LeftError

    def count(self, group: Group) -> Count:
        """How many failed jobs of a group there are now."""
        found = self._client.requeue_where(_jobs_of(group), dry_run=True)
        return Count(found.jobs, found.at_least)

    def requeue_group(self, group: Group) -> str:
        """Requeue them, a page in a transaction; what became of them, in words."""
        course = Course(Act("requeue", self._client.requeue_where, "failed"))
        self.course = course
        try:
            course.run(_jobs_of(group), self._go_on)
        finally:
            self.course = None
        refused = f", {course.refused} were refused" if course.refused else ""
        return f"{course.done} jobs start over{refused}"


class _LeftError(JobsError):
    """The person has left; what was done until then is done."""


def _jobs_of(group: Group) -> Filter:
    return Filter(state="failed", task=group.task, error_type=group.error_type)
