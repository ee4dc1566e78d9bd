"""What is done to all jobs that match: cancel, requeue, reschedule, remove; a page in a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.change import Moved, Moves, moved_each, requeued_each
from jobvisor.jobs.door import Door
from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.found import Count
from jobvisor.jobs.job import FINISHED, UNFINISHED, WAITING, State, json_id
from jobvisor.jobs.store import Store
from jobvisor.jobs.units import Duration

__all__ = ["Sweep", "Swept"]

MOVED_AT_ONCE = 1_000
REFUSALS_KEPT = 20
COUNTED_MOST = 100_000
COUNTED_AT_ONCE = 10_000

Act = Callable[[Store, list[int]], Moves]


class Deed(NamedTuple):
    """What is done to each."""

    verb: str
    """As the log of actions has it."""
    may_be: frozenset[State]
    act: Act
    how: str = ""
    """What else is to be known of it, such as the time."""


class Swept(NamedTuple):
    """What became of all jobs that matched."""

    jobs: int
    """How many matched; of a dry run how many would be tried."""
    outcomes: dict[str, int]
    """`pending`, `scheduled`, `blocked`, `cancelled`, `requested` (of running ones), `removed`, `refused`:
    how many of each."""
    refusals: list[Moved]
    """The first twenty that were refused, with the reason."""
    dry_run: bool
    at_least: bool
    """Of a dry run: there are more, they were not counted."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        told = [{"id": json_id(each.id), "error": str(each.error)} for each in self.refusals]
        return {**self._asdict(), "refusals": told}


class _Note:
    """What the log of actions tells of one sweep: one entry, which grows with each page."""

    def __init__(self, by: str, deed: Deed, which: Filter) -> None:
        """Of nobody nothing is noted."""
        self._by = by
        self._verb = deed.verb
        self._what = f"{which} {deed.how}".rstrip()
        self._entry: int | None = None

    def add(self, store: Store, page: Moves) -> None:
        """Within the transaction of a page."""
        done = sum(moved.error is None for moved in page)
        if not self._by or not done:
            return
        if self._entry is None:
            self._entry = store.note_action(self._by, self._verb, self._what, done)
        else:
            store.grow_action(self._entry, done)


class Sweep(Door):
    """The verbs over a Filter.

    Jobs that match when they are called are meant, up to the newest one there is then: what is enqueued
    meanwhile is left alone, and none comes twice. A thousand go in a transaction of their own, so that
    workers get in between; where the program dies, or the database goes away, those before stay done,
    and the same call again does the rest. One that is refused stops no other. They are found as `page`
    finds them: where no index helps a walk along all ids, 1 to 2 s for a million.

    With `dry_run` nothing is changed: they are counted, up to 100,000. `told` is called after each page
    with what became of its jobs; what it raises ends the call between two pages. `by` is who does it, for
    the log of actions: noted in the transaction of each page, so that no deed is without its note.
    """

    def cancel_where(
        self,
        which: Filter,
        *,
        dry_run: bool = False,
        told: Callable[[Moves], None] | None = None,
        by: str = "",
    ) -> Swept:
        """`cancel` of each unfinished job that matches; a filter without a state means all unfinished."""
        return self._sweep(which, _CANCEL, dry_run=dry_run, told=told, by=by)

    def requeue_where(
        self,
        which: Filter,
        *,
        dry_run: bool = False,
        told: Callable[[Moves], None] | None = None,
        by: str = "",
    ) -> Swept:
        """`requeue` of each finished job that matches; the filter has to name its state, or the ids."""
        _check(which)
        _named(which, "requeue")
        return self._sweep(which, _REQUEUE, dry_run=dry_run, told=told, by=by)

    def prune_where(
        self,
        which: Filter,
        *,
        dry_run: bool = False,
        told: Callable[[Moves], None] | None = None,
        by: str = "",
    ) -> Swept:
        """Remove each finished job that matches for good; the filter has to name its state, or the ids."""
        _check(which)
        _named(which, "remove")
        return self._sweep(which, _REMOVE, dry_run=dry_run, told=told, by=by)

    def reschedule_where(
        self,
        which: Filter,
        *,
        run_in: Duration | None = None,
        run_at: datetime | None = None,
        dry_run: bool = False,
        told: Callable[[Moves], None] | None = None,
        by: str = "",
    ) -> Swept:
        """`reschedule` of each job that matches and waits; without a state all that wait are meant."""
        due = Due.of(run_in=run_in, run_at=run_at)
        deed = Deed("reschedule", WAITING, _to(due), f"to be due {due}")
        return self._sweep(which, deed, dry_run=dry_run, told=told, by=by)

    def _sweep(
        self,
        which: Filter,
        deed: Deed,
        *,
        dry_run: bool,
        told: Callable[[Moves], None] | None,
        by: str,
    ) -> Swept:
        _check(which)
        wanted = _narrowed(which, deed.may_be)
        if dry_run:
            found = self._counted(wanted)
            return Swept(found.number, {}, [], dry_run=True, at_least=found.at_least)
        jobs, outcomes, refusals = 0, dict[str, int](), list[Moved]()
        note = _Note(by, deed, which)
        for page in self._pages(wanted, deed.act, note):
            jobs += len(page)
            for moved in page:
                outcomes[moved.outcome] = outcomes.get(moved.outcome, 0) + 1
            refused = [moved for moved in page if moved.error is not None]
            refusals += refused[: REFUSALS_KEPT - len(refusals)]
            if told is not None:
                told(page)
        return Swept(jobs, outcomes, refusals, dry_run=False, at_least=False)

    def _pages(self, which: Filter, act: Act, note: _Note) -> Iterator[Moves]:
        with self._store() as store:
            newest = store.newest_id()
        for ids in self._pages_of_ids(which, newest):
            with self._store() as store, store.transaction():
                # What has left the state, or does not match any more, since it was found.
                page = act(store, store.hold(which.with_ids(ids)))
                note.add(store, page)
            yield page

    def _pages_of_ids(self, which: Filter, newest: int) -> Iterator[list[int]]:
        after: int | None = 0
        while after is not None:
            with self._store() as store:
                page = store.ids_page(which, limit=MOVED_AT_ONCE, after=after)
            found = [number for number in page.found if number <= newest]
            if found:
                yield found
            after = page.after
            if after is not None and after >= newest:
                return  # behind it is only what was enqueued meanwhile

    def _counted(self, which: Filter) -> Count:
        """How many match: by one look where that is enough, else page by page, as they would be moved."""
        with self._store() as store:
            quick = store.count(which, most=COUNTED_MOST + 1)
        if not quick.at_least or quick.number > COUNTED_MOST:
            return _up_to(quick.number)
        number, after = 0, 0
        while number <= COUNTED_MOST:
            with self._store() as store:
                page = store.ids_page(which, limit=COUNTED_AT_ONCE, after=after)
            number += len(page.found)
            if page.after is None:
                break
            after = page.after
        return _up_to(number)


def _up_to(number: int) -> Count:
    return Count(min(number, COUNTED_MOST), at_least=number > COUNTED_MOST)


def _check(which: Any) -> None:
    if not isinstance(which, Filter):
        raise InvalidOption(f"{shown(which)} is no Filter; write Filter(state=...) or so")


def _narrowed(which: Filter, may_be: frozenset[State]) -> Filter:
    """The states that are meant, all in one walk along the ids.

    One state after another would meet a job twice that goes from one to the next meanwhile, or not at all.
    """
    if which.is_empty:
        raise InvalidOption("an empty Filter means every job; say which ones, or name their states")
    wrong = [state for state in which.states if state not in may_be]
    if wrong:
        raise InvalidOption(
            f"state={wrong[0]} cannot be meant here; it must be one of {', '.join(sorted(may_be))}"
        )
    if which.ids is not None and not which.states:
        return which
    return replace(which, state=which.states or tuple(sorted(may_be)))


def _named(which: Filter, verb: str) -> None:
    if not which.states and which.ids is None:
        raise InvalidOption(
            f"the Filter must say which finished jobs to {verb}: state=failed, cancelled or succeeded"
        )


def _cancel(store: Store, ids: list[int]) -> Moves:
    return moved_each(store, ids, lambda store, job: store.cancel(job))


def _requeue(store: Store, ids: list[int]) -> Moves:
    return requeued_each(store, ids)


def _remove(store: Store, ids: list[int]) -> Moves:
    gone = set(store.delete(ids))
    return [Moved(job, "removed") for job in ids if job in gone]


def _to(due: Due) -> Act:
    return lambda store, ids: moved_each(store, ids, lambda store, job: store.reschedule(job, due))


_CANCEL = Deed("cancel", UNFINISHED, _cancel)
_REQUEUE = Deed("requeue", FINISHED, _requeue)
_REMOVE = Deed("prune", FINISHED, _remove)
