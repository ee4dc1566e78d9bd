"""One verb for all jobs that a Filter means: how many, a question, then a page in a transaction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

import click

from jobvisor.jobs.change import Moved, Moves
from jobvisor.jobs.client import Swept
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.found import Count
from jobvisor.supervisor.cli import print_json, say
from jobvisor.supervisor.cli.noting import who

__all__ = ["Act", "Course", "sweep"]

REFUSALS_KEPT = 20

AT_ONCE = 1_000
"""Fewer jobs than this need no word at the end."""


class Where(Protocol):
    """A client's verb over a Filter, such as `client.cancel_where`."""

    def __call__(
        self,
        which: Filter,
        *,
        dry_run: bool = False,
        told: Callable[[Moves], None] | None = None,
        by: str = "",
    ) -> Swept: ...


class Act(NamedTuple):
    """What is done to many jobs."""

    verb: str
    """As the log of actions has it."""
    where: Where
    states: str
    """The states that may be meant, in words."""

    def counted(self, number: Count) -> str:
        """So many of them, in words."""
        return f"{number} {self.states} job{'' if number == Count(1, at_least=False) else 's'}"


class Course:
    """How far it has come, and what became of the jobs so far."""

    def __init__(self, act: Act, of: Count | None = None) -> None:
        """`of` is how many there were, where they were counted."""
        self._act, self._of = act, of
        self._tried = 0
        self._outcomes: dict[str, int] = {}
        self._refusals: list[Moved] = []

    def add(self, page: Moves) -> None:
        """A page is committed."""
        self._tried += len(page)
        for moved in page:
            self._outcomes[moved.outcome] = self._outcomes.get(moved.outcome, 0) + 1
        refused = [moved for moved in page if moved.error is not None]
        self._refusals += refused[: REFUSALS_KEPT - len(self._refusals)]

    @property
    def swept(self) -> Swept:
        """In the words of the client, also of what was broken off."""
        return Swept(self._tried, self._outcomes, self._refusals, dry_run=False, at_least=False)

    @property
    def refused(self) -> int:
        """How many."""
        return self._outcomes.get("refused", 0)

    @property
    def done(self) -> int:
        """How many were not."""
        return self._tried - self.refused

    def __str__(self) -> str:
        """`requeue: 2000 of 17000`."""
        return f"{self._act.verb}: {self._tried}{'' if self._of is None else f' of {self._of}'}"

    def run(
        self,
        which: Filter,
        told: Callable[[Moves], None],
    ) -> None:
        """Do it; who did it is noted in the transaction of each page, also of what is broken off."""

        def count(page: Moves) -> None:
            self.add(page)
            told(page)

        self._act.where(which, told=count, by=who())


def sweep(
    act: Act,
    which: Filter | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Count, ask and do it; None means no job. Exit code 1 where one was refused."""
    number: Count | None = None
    if which is None or dry_run or not yes:
        found = _dry_run(act, which)
        number = Count(found.jobs, found.at_least)
        if dry_run:
            _print_dry_run(act, found, number, as_json=as_json)
            return
    if which is None or number == Count(0, at_least=False):
        say(f"no {act.states} job to {act.verb}")
        if as_json:
            print_json(Course(act).swept.as_json())
        return
    if number is not None:
        _confirm(f"{act.verb} {act.counted(number)}")
    _run(act, which, number, as_json=as_json)


def _dry_run(act: Act, which: Filter | None) -> Swept:
    if which is None:
        return Swept(0, {}, [], dry_run=True, at_least=False)
    return act.where(which, dry_run=True)


def _print_dry_run(act: Act, found: Swept, number: Count, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
    else:
        click.echo(f"would {act.verb} {act.counted(number)}")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}: there is nobody to ask here, so add -y")
    click.confirm(f"{question}?", abort=True, err=True)


def _run(act: Act, which: Filter, of: Count | None, *, as_json: bool) -> None:
    course = Course(act, of)
    # At a terminal the lines themselves show that it goes on.
    shows = sys.stderr.isatty() and (as_json or not sys.stdout.isatty())

    def tell(page: Moves) -> None:
        if not as_json:
            print_moves(page)
        if shows:
            click.echo(f"\r{course}", nl=False, err=True)

    try:
        course.run(which, tell)
    except KeyboardInterrupt:
        say(f"\ninterrupted: {course.done} are done, the others stand as they stood")
        raise
    finally:
        if as_json:
            print_json(course.swept.as_json())
    if shows:
        say("")
    if not course.done and not course.refused:
        say(f"no {act.states} job to {act.verb}")
    if course.done + course.refused > AT_ONCE:
        say(f"{act.verb}: {course.done} done, {course.refused} refused")
    if course.refused:
        click.get_current_context().exit(1)


def print_moves(page: Moves) -> None:
    """A line for each job: its id and what it is now, or why it was refused."""
    for moved in page:
        if moved.error is not None:
            say(f"jobvisor: {moved.error}")
    lines = [f"{moved.id} {moved.outcome}" for moved in page if moved.error is None]
    if lines:
        click.echo("\n".join(lines))
