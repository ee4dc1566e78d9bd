"""A ledger carried to the store: its journal applied, what ran charged or given back, the rest released.

All of one life in one transaction, and each statement fenced by id, state, owner and claim: settling
a life twice, or while somebody else does, changes nothing the second time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jobvisor.jobs.errors import (
    ForkedStore,
    SchemaError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from jobvisor.jobs.log import log_lost
from jobvisor.jobs.retry import policy_from_json
from jobvisor.jobs.store import Applied, Life, Record, Rest, Store
from jobvisor.jobs.store.base import Death, Held
from jobvisor.supervisor.board import Running
from jobvisor.supervisor.deaths.guilt import Cause, death_of, given_back, judged, vanished
from jobvisor.supervisor.ledger.evidence import Read
from jobvisor.supervisor.ledger.rejected import keep_rejected, keep_strange


class Settled(NamedTuple):
    """What became of a dead life."""

    applied: Applied
    ended: list[tuple[Running, Death]]
    """The jobs whose run ended with it, and what it meant for each."""

    @property
    def foremost(self) -> tuple[int, Death] | None:
        """The job that pays, else the only one; None of several that do not pay."""
        paying = [each for each in self.ended if each[1].outcome != "stopped"] or self.ended
        return (paying[0][0].job, paying[0][1]) if len(paying) == 1 else None


def settle(
    store: Store,
    life: Life,
    records: list[Record],
    running: Sequence[Running],
    cause: Cause,
    *,
    forget: bool,
) -> Settled:
    """Settle a dead life in one transaction: what it recorded, what ran, and what it had not begun."""
    with store.transaction():
        # First: a turn that this life had sent before its death ends now, or claims nothing.
        store.remove_owner(life.owner)
        applied = store.apply(records, life, forget_succeeded=forget)
        ended = _end_running(store, life, _unrecorded(running, records), cause)
        store.release_rest(life.owner)
    return Settled(applied, ended)


def tell(applied: Applied, rejected: str) -> None:
    """What a settling could not do: told in the log, and kept in the folder of refused outcomes."""
    log_lost(applied.lost)
    for record, reason in applied.rejected:
        keep_rejected(rejected, record, reason)


def tell_strange(found: Read | None, rejected: str) -> None:
    """What a later release recorded in a ledger that is given up now: kept, and told in the log."""
    if found is not None and found.strange:
        keep_strange(rejected, found.header.owner, found.strange)


def settle_rebooted(store: Store, life: Life, found: Read, *, forget: bool) -> Applied:
    """Settle a life of an earlier boot: its records are authentic, but what it wrote last is lost."""
    with store.transaction():
        store.remove_owner(life.owner)
        applied = store.apply(found.records, life, forget_succeeded=forget)
        settle_vanished(store, life)
    return applied


def is_of_one_life(error: Exception) -> bool:
    """Whether settling failed for this one life, by its file or its rows, so that others can be settled."""
    if isinstance(error, StoreError):
        return not isinstance(error, (StoreUnavailable, StoreRefused, SchemaError, ForkedStore))
    return isinstance(error, (OSError, KeyError, ValueError, struct.error))


def settle_vanished(store: Store, life: Life, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Settle a life without evidence of what it had started: every row goes back uncharged.

    A job that loses its worker like that four times is failed. Page by page, and the owner with the last
    one: a kill in between leaves an owner with fewer rows. After each page `go_on` is asked, outside of
    any transaction: False leaves the rest for later, and so does this.
    """
    while store.vanish(life.owner, vanished(life)):
        if not go_on():
            return False
    with store.transaction():
        store.remove_owner(
            life.owner
        )  # what it had sent before its death ends now, or claims nothing
        while store.vanish(life.owner, vanished(life)):
            pass  # what it had claimed with its last statement: a page at the most
    return True


def _unrecorded(running: Sequence[Running], records: list[Record]) -> list[Running]:
    """Without those that had ended when their process died: the record was written, the rest was not."""
    recorded = {(record.job, record.claim) for record in records}
    return [run for run in running if (run.job, run.claim) not in recorded]


def _end_running(
    store: Store, life: Life, running: Sequence[Running], cause: Cause
) -> list[tuple[Running, Death]]:
    # Rows are locked in the order of their ids.
    order = sorted(zip(running, judged(running, cause), strict=True))
    for run, _ in order:
        if run.progress is not None:
            store.progress(run.job, life.owner, run.claim, run.progress)
    ended = []
    for run, found in order:
        held = store.held(run.job, life.owner, run.claim) if found.pays else None
        if held is not None:  # else an earlier settling had it
            death = _with_evidence(death_of(cause, held)._replace(company=found.company), run)
            store.rescue(run.job, life.owner, held, death, _delay(held))
            ended.append((run, death))
    back = given_back(cause, len(running))
    innocent = [
        (run, _with_evidence(back._replace(company=found.company), run))
        for run, found in order
        if not found.pays
    ]
    went = store.give_back_all(life.owner, [(run.job, run.claim, death) for run, death in innocent])
    return ended + [each for each in innocent if each[0].job in set(went)]


def _with_evidence(death: Death, run: Running) -> Death:
    """What it means for a job, with what is known of how that was going."""
    return death._replace(
        stack=run.stack, said=run.said, cpu_ms=run.cpu_ms, rss_bytes=run.rss_bytes
    )


def _delay(held: Held) -> int | None:
    if held.attempt >= held.attempts_max or held.is_overdue:
        return None
    return policy_from_json(held.policy).delay_ms(held.attempt, None)


def recall(
    store: Store, life: Life, found: Read, claim: int, *, forget: bool
) -> tuple[Applied, int]:
    """Behind a long job: what its worker has finished is settled, what it has not begun goes back.

    That is of the claims up to this one. `found` was read after the recall word was set and the worker had
    time to see it: what runs first, then the journal.
    """
    held = tuple(run.job for run in found.running)
    with store.transaction():
        applied = store.apply(found.records, life, forget_succeeded=forget)
        released = store.release_rest(life.owner, Rest(up_to=claim, held=held))
    return applied, released
