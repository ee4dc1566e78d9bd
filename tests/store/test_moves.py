"""The table of moves: every verb in every state goes where the table says, or changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from jobvisor.jobs.due import NOW, Due
from jobvisor.jobs.errors import IllegalMove, JobNotFound
from jobvisor.jobs.job import FINISHED, MOVES, Job, State
from jobvisor.jobs.store import Store
from tests.clock import MovableClock
from tests.store.making import CRASH, GONE, STOPPED, claim, job_in, life, record

Verb = Callable[[Store, Job], None]


def void(_value: object) -> None:
    """What a deed answers is tested elsewhere."""


def recorded(verb: str) -> Verb:
    """A record under the fence that stands in the row, as its last owner may bring it again."""

    def apply(store: Store, job: Job) -> None:
        who = life()._replace(owner=job.owner or 1)
        store.apply([record(who, job.claim or 1, job, verb)], who)

    return apply


def rescue(delay_ms: int | None) -> Verb:
    def of_a_dead_owner(store: Store, job: Job) -> None:
        row = store.held(job.id, job.owner or 1, job.claim or 1)
        if row is not None:
            store.rescue(job.id, job.owner or 1, row, CRASH, delay_ms)

    return of_a_dead_owner


def give_back(store: Store, job: Job) -> None:
    row = store.held(job.id, job.owner or 1, job.claim or 1)
    if row is not None:
        store.give_back(job.id, job.owner or 1, row, STOPPED)


def vanish(store: Store, job: Job) -> None:
    store.vanish(job.owner or 1, GONE)


def requeue(store: Store, job: Job) -> None:
    with suppress(IllegalMove):
        store.requeue(job.id)


def reschedule(due: Due) -> Verb:
    def to_then(store: Store, job: Job) -> None:
        with suppress(IllegalMove):
            store.reschedule(job.id, due)

    return to_then


def cancel(store: Store, job: Job) -> None:
    with suppress(IllegalMove):
        store.cancel(job.id)


# A name, the verb of the table, what is done.
DEEDS: list[tuple[str, str, Verb]] = [
    ("promote", "promote", lambda store, _job: void(store.promote())),
    ("claim", "claim", lambda store, _job: void(claim(store, life()))),
    *((verb, verb, recorded(verb)) for verb in ("succeed", "retry", "snooze", "fail", "release")),
    ("cancel", "cancel", cancel),
    ("rescue to retry", "rescue", rescue(1_000)),
    ("rescue at once", "rescue", rescue(0)),
    ("rescue for good", "rescue", rescue(None)),
    ("vanish", "rescue", vanish),
    ("give back", "release", give_back),
    ("release the rest", "release", lambda store, job: void(store.release_rest(job.owner or 1))),
    ("block", "block", lambda store, job: void(store.block(job.id))),
    ("unblock", "unblock", lambda store, job: void(store.unblock(job.id))),
    ("requeue", "requeue", requeue),
    ("reschedule to now", "reschedule", reschedule(NOW)),
    ("reschedule to later", "reschedule", reschedule(Due(in_ms=1_000))),
    ("prune", "prune", lambda store, _job: void(store.prune(dict.fromkeys(FINISHED, 0), limit=9))),
]


def state_of(store: Store, number: int) -> State | None:
    try:
        return store.get(number).state
    except JobNotFound:
        return None


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    ("word", "deed"), [deed[1:] for deed in DEEDS], ids=[deed[0] for deed in DEEDS]
)
def test_a_verb_goes_where_the_table_of_moves_says(
    store: Store, clock: MovableClock, state: State, word: str, deed: Verb
) -> None:
    before = store.get(job_in(store, state))
    if word == "promote":
        clock.move(60_000)
    deed(store, before)
    after = state_of(store, before.id)
    legal = {move for move in MOVES[word] if move[0] is state}
    if not legal or (word == "cancel" and after is state is State.RUNNING):
        assert after is state
    else:
        assert (state, after) in legal


@pytest.mark.parametrize("state", [one for one in State if one is not State.RUNNING])
@pytest.mark.parametrize(
    "verb", ["succeed", "retry", "snooze", "fail", "release", "cancel", "rescue", "vanish"]
)
def test_what_leaves_running_changes_nothing_of_a_row_that_does_not_run(
    store: Store, state: State, verb: str
) -> None:
    before = store.get(job_in(store, state))
    deeds = {"rescue": rescue(1_000), "vanish": vanish}
    deeds.get(verb, recorded(verb))(store, before)
    assert store.get(before.id) == before
