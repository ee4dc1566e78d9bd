"""How long a unique key is held, by whom, and what becomes of a call that finds it held."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from jobvisor.jobs.change import requeued_each
from jobvisor.jobs.clock import from_datetime, to_datetime
from jobvisor.jobs.errors import StoreRefused, UniqueTaken
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import FINISHED, Job, NewJob, State, Terms
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.database import KINDS, Database
from tests.store.making import claim, family, job_in, life, new, record, undone

DELAY_MS, MOST_MS = 5_000, 12_000

HOLDS: dict[str, dict[str, Any]] = {
    "unfinished": {},
    "kept": {"is_held": True},
    "for a time": {"is_held": True, "held_ms": 60_000},
    "debounced": {"conflict": "debounce", "is_held": True, "debounce_ms": MOST_MS},
}


def keyed(hold: str = "unfinished", key: str = "k", conflict: str = "", **values: Any) -> NewJob:
    """A new job that holds its key in this way, and does this where it finds it held."""
    terms = dict(HOLDS[hold])
    if conflict:
        terms["conflict"] = conflict
    if hold == "debounced":
        values.setdefault("run_in_ms", DELAY_MS)
    said = Terms(**terms)
    return new(unique_key=key, terms=None if said == Terms() else said, **values)


def debounced(**values: Any) -> NewJob:
    return keyed("debounced", **values)


def due(job: Job) -> int:
    """In how long after the test's beginning."""
    return from_datetime(job.run_at) - START_MS


@pytest.mark.parametrize(("first", "second"), list(itertools.product(HOLDS, HOLDS)))
def test_a_key_that_is_held_in_one_way_is_held_for_all_others(
    store: Store, first: str, second: str
) -> None:
    holder = store.enqueue_one(keyed(first))
    again = store.enqueue_one(keyed(second, conflict="return"))
    assert (again.id, again.created, again.replaced) == (holder.id, False, False)
    assert store.enqueue([keyed(second, conflict="return")] * 2) == [(holder.id, False)] * 2
    assert store.holder("k") == holder.id
    assert [job.id for job in store.find()] == [holder.id]


@pytest.mark.parametrize("hold", HOLDS)
def test_a_job_tells_how_long_its_key_is_held(store: Store, hold: str) -> None:
    job = store.enqueue_one(keyed(hold))
    told = {"unfinished": "unfinished", "kept": "kept", "for a time": "1m", "debounced": "waiting"}
    until = to_datetime(START_MS + 60_000) if hold == "for a time" else None
    assert (job.unique, job.unique_for, job.unique_until) == ("k", told[hold], until)
    assert job == store.get(job.id)


def test_a_kept_key_is_held_after_the_end_and_free_when_the_row_is_gone(store: Store) -> None:
    number = job_in(store, State.SUCCEEDED, unique_key="k", terms=Terms(is_held=True))
    assert store.enqueue([keyed("kept"), keyed()]) == [(number, False)] * 2
    store.delete([number])
    assert store.holder("k") is None
    assert store.enqueue_one(keyed()).created


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.SUCCEEDED, State.CANCELLED])
def test_a_key_for_a_time_is_held_for_that_time_whatever_becomes_of_the_job(
    store: Store, clock: MovableClock, state: State
) -> None:
    number = job_in(store, state, unique_key="k", terms=Terms(is_held=True, held_ms=60_000))
    clock.move(59_999)
    assert store.enqueue_one(keyed("for a time")).id == number
    clock.move(1)
    assert store.holder("k") is None
    again = store.enqueue_one(keyed("for a time"))
    assert again.created
    assert store.holder("k") == again.id
    assert store.get(number).state is state


def test_a_call_may_be_refused_where_the_key_is_held_and_then_stores_nothing(store: Store) -> None:
    holder = store.enqueue_one(keyed())
    with pytest.raises(UniqueTaken, match=f"job {holder.id} holds the unique key 'k'") as told:
        store.enqueue([new(), keyed(key="other"), keyed(conflict="raise")])
    assert told.value.holder == holder.id
    with pytest.raises(UniqueTaken):
        store.enqueue_one(keyed(conflict="raise"))
    assert [job.id for job in store.find()] == [holder.id]
    assert store.enqueue_one(keyed(key="free", conflict="raise")).created


def test_two_of_one_key_at_once_are_refused_without_the_id_of_a_job_that_never_was(
    store: Store,
) -> None:
    with pytest.raises(UniqueTaken, match="two of these jobs have the unique key 'k'") as told:
        store.enqueue([new(), keyed(), keyed(conflict="raise")])
    assert told.value.holder == 0
    assert store.find() == []


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("state", [State.SCHEDULED, State.PENDING, State.BLOCKED])
def test_a_waiting_job_is_replaced_by_what_it_is_called_with(
    store: Store, state: State, hold: str
) -> None:
    values = {"unique_key": "k", "terms": keyed(hold).terms}
    number = job_in(store, state, args="[1]", **values)
    job = store.enqueue_one(
        keyed(
            conflict="replace", args="[2]", kwargs='{"a":3}', queue="mail", priority=4, attempts_max=7,
            timeout_ms=1_500, run_in_ms=30_000, expires_in_ms=1_000, headers='{"h":1}',
        )
    )  # fmt: skip
    assert (job.id, job.created, job.replaced) == (number, False, True)
    assert (job.args, job.kwargs, job.queue, job.priority) == ([2], {"a": 3}, "mail", 4)
    assert (job.attempts_max, job.timeout, job.headers) == (7, 1.5, {"h": 1})
    assert (due(job), job.expires_at) == (30_000, to_datetime(START_MS + 31_000))
    assert job.state is (State.BLOCKED if state is State.BLOCKED else State.SCHEDULED)
    assert job.unique_for == store.get(number).unique_for
    assert store.holder("k") == number
    assert len(store.find()) == 1


def test_a_replaced_job_that_is_due_can_be_claimed_at_once(store: Store) -> None:
    number = job_in(store, State.SCHEDULED, unique_key="k")
    job = store.enqueue_one(keyed(conflict="replace", args="[2]"))
    assert (job.id, job.state) == (number, State.PENDING)
    assert [(each.id, each.args) for each in claim(store, life())] == [(number, "[2]")]


@pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED])
@pytest.mark.parametrize("conflict", ["replace", "debounce"])
def test_a_job_that_does_not_wait_is_left_alone_and_the_answer_says_so(
    store: Store, state: State, conflict: str
) -> None:
    number = job_in(store, state, args="[1]", unique_key="k", terms=Terms(is_held=True))
    before = store.get(number)
    asked = (
        debounced(args="[2]") if conflict == "debounce" else keyed(conflict="replace", args="[2]")
    )
    job = store.enqueue_one(asked)
    assert (job.id, job.created, job.replaced, job.state) == (number, False, False, state)
    assert store.get(number) == before


def test_a_retry_that_is_replaced_begins_anew(store: Store) -> None:
    who, number = life(), store.enqueue_one(keyed()).id
    (job,) = claim(store, who)
    store.apply([record(who, 1, job, "retry")], who)
    made = store.enqueue_one(keyed(conflict="replace", args="[2]"))
    assert (made.id, made.attempt, made.deferred, made.error) == (number, 0, None, None)
    assert len(store.attempts(number)) == 1
    assert store.apply([record(who, 1, job, "succeed")], who).changed == 0


# -- debounce


def test_each_call_moves_a_debounced_job_but_not_beyond_its_longest_wait(
    store: Store, clock: MovableClock
) -> None:
    first = store.enqueue_one(debounced(args="[0]"))
    assert (first.created, first.state, due(first)) == (True, State.SCHEDULED, DELAY_MS)
    moments = []
    for n in range(1, 5):
        clock.move(3_000)
        job = store.enqueue_one(debounced(args=f"[{n}]"))
        assert (job.id, job.replaced, job.args) == (first.id, True, [n])
        moments.append(due(job))
    assert moments == [8_000, 11_000, MOST_MS, MOST_MS]
    assert job.state is State.PENDING


def test_a_call_with_a_shorter_wait_shortens_it_and_a_longer_one_does_not_lengthen_it(
    store: Store, clock: MovableClock
) -> None:
    store.enqueue_one(debounced())
    clock.move(1_000)
    for most, delay, moment in (
        (60_000, 30_000, MOST_MS),
        (7_000, 30_000, 8_000),
        (60_000, 30_000, 8_000),
    ):
        terms = Terms(conflict="debounce", is_held=True, debounce_ms=most)
        job = store.enqueue_one(new(unique_key="k", terms=terms, run_in_ms=delay))
        assert due(job) == moment


def test_a_debounced_job_gives_its_key_back_when_it_is_claimed(
    store: Store, clock: MovableClock
) -> None:
    number = store.enqueue_one(debounced()).id
    clock.move(DELAY_MS)
    who = life()
    (job,) = claim(store, who)
    assert job.id == number
    assert store.holder("k") is None
    following = store.enqueue_one(debounced(args="[2]"))
    assert following.created
    assert store.enqueue_one(debounced(args="[3]")).id == following.id
    assert store.apply([record(who, 1, job)], who).changed == 1
    assert store.holder("k") == following.id


@pytest.mark.parametrize("verb", ["retry", "snooze"])
def test_a_retry_that_finds_its_key_taken_is_superseded(
    store: Store, clock: MovableClock, verb: str
) -> None:
    number = store.enqueue_one(debounced()).id
    clock.move(DELAY_MS)
    who = life()
    (job,) = claim(store, who)
    store.enqueue_one(debounced())
    assert store.apply([record(who, 1, job, verb)], who).changed == 1
    ended = store.get(number)
    assert (ended.state, ended.finished_at) == (State.CANCELLED, to_datetime(clock.now_ms()))
    assert ended.error == "superseded: a later call has its unique key"
    assert [each.outcome for each in store.attempts(number)] == (
        ["error"] if verb == "retry" else []
    )


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_key_that_an_unfinished_job_has_taken_does_not_come_back_to_a_retry(
    store: Store, clock: MovableClock, many: bool
) -> None:
    number = store.enqueue_one(debounced()).id
    clock.move(DELAY_MS)
    who = life()
    (job,) = claim(store, who)
    if many:
        (taker, created), _ = store.enqueue([keyed(), new(run_in_ms=1)])
    else:
        made = store.enqueue_one(keyed())
        taker, created = made.id, made.created
    assert created
    store.apply([record(who, 1, job, "retry")], who)
    assert store.get(number).state is State.CANCELLED
    assert store.holder("k") == taker


def test_a_retry_holds_its_key_again_where_nobody_has_taken_it_and_has_a_window_of_its_own(
    store: Store, clock: MovableClock
) -> None:
    number = store.enqueue_one(debounced()).id
    clock.move(60_000)
    who = life()
    (job,) = claim(store, who)
    store.apply([record(who, 1, job, "retry", delay_ms=3_600_000)], who)
    assert store.holder("k") == number
    moments = []
    for _ in range(4):
        made = store.enqueue_one(debounced())
        assert (made.id, made.attempt) == (number, 0)
        moments.append(due(made) - 60_000)
        clock.move(3_000)
    assert moments == [DELAY_MS, 8_000, 11_000, MOST_MS]


def test_a_job_that_lost_its_key_unseen_is_cancelled_before_it_begins(
    database: Database, store: Store, clock: MovableClock
) -> None:
    # As if its retry and the call that took its key had not seen each other.
    number = store.enqueue_one(debounced()).id
    clock.move(DELAY_MS)
    database.sql("UPDATE uniques SET job = 1000000")
    ordinary = store.enqueue_one(new())
    assert [job.id for job in claim(store, life())] == [ordinary.id]
    job = store.get(number)
    assert (job.state, job.attempt) == (State.CANCELLED, 0)
    assert job.error == "superseded: a later call has its unique key"
    assert store.attempts(number) == []


# -- requeue, prune, move


def test_a_requeued_debounced_job_holds_its_key_or_is_refused(
    store: Store, clock: MovableClock
) -> None:
    number = store.enqueue_one(debounced()).id
    store.cancel(number)
    following = store.enqueue_one(debounced())
    with pytest.raises(UniqueTaken, match=f"job {following.id} holds its unique key 'k'") as told:
        store.requeue(number)
    assert told.value.holder == following.id
    assert store.get(number).state is State.CANCELLED
    store.cancel(following.id)
    store.requeue(number)
    assert store.holder("k") == number
    clock.move(1)
    assert [job.id for job in claim(store, life())] == [number]


HELD_APART = ["kept", "for a time", "debounced"]


@pytest.mark.parametrize("hold", HELD_APART)
@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_job_is_not_requeued_under_a_key_that_another_one_holds(
    store: Store, hold: str, state: State
) -> None:
    number = job_in(store, state, unique_key="k")
    holder = store.enqueue_one(keyed(hold))
    with pytest.raises(UniqueTaken, match=f"job {holder.id} holds its unique key 'k'") as told:
        store.requeue(number)
    assert told.value.holder == holder.id
    assert store.get(number).state is state


@pytest.mark.parametrize("hold", ["unfinished", *HELD_APART])
def test_what_is_refused_among_many_that_are_requeued_is_left_as_it_was(
    store: Store, hold: str
) -> None:
    refused = [store.enqueue_one(keyed()).id]
    store.cancel(refused[0])
    refused.append(store.enqueue_one(debounced()).id)
    store.cancel(refused[1])
    free = job_in(store, State.FAILED)
    store.enqueue_one(keyed(hold))
    before = store.get_many(refused)
    with store.transaction():
        moved = requeued_each(store, [free, *refused])
    assert [each.outcome for each in moved] == ["pending", "refused", "refused"]
    assert store.get_many(refused) == before


def test_a_requeued_job_has_its_key_again_after_a_row_that_holds_none(
    store: Store, clock: MovableClock
) -> None:
    number = job_in(store, State.FAILED, unique_key="k")
    store.enqueue_one(debounced(args="[2]"))
    clock.move(DELAY_MS)
    who = life()
    (job,) = claim(store, who)
    store.requeue(number)
    assert store.holder("k") == number
    store.apply([record(who, 1, job, "retry")], who)  # its key is another job's by now
    assert store.get(job.id).state is State.CANCELLED
    assert store.holder("k") == number


def test_what_holds_no_key_any_more_is_swept_away(
    database: Database, store: Store, clock: MovableClock
) -> None:
    if database.alone and database.prefix != "our_":
        pytest.skip("one is enough")
    for hold in ("kept", "for a time", "debounced"):
        for n in range(3):
            store.enqueue_one(keyed(hold, key=f"{hold} {n}"))
    running = store.enqueue_one(keyed("debounced", key="runs"))
    clock.move(60_000)
    store.cancel(running.id)
    gone = store.enqueue_one(keyed("kept", key="gone"))
    store.cancel(gone.id)
    store.delete([gone.id])
    assert not store.trim_uniques()
    keys = sorted(row[0] for row in database.sql("SELECT key FROM uniques"))
    assert keys == sorted([*(f"{h} {n}" for h in ("debounced", "kept") for n in range(3)), "runs"])


@pytest.mark.parametrize("hold", ["kept", "for a time", "debounced"])
def test_an_exported_job_takes_its_key_along(
    store: Store, clock: MovableClock, tmp_path_factory: pytest.TempPathFactory, hold: str
) -> None:
    number = store.enqueue_one(keyed(hold)).id
    rows = store.export(0, 10, finished=True)
    other = KINDS["sqlite"](tmp_path_factory.mktemp("other"))
    try:
        there = other.open()
        assert there.import_(rows) == (1, 0)
        assert there.holder("k") == number
        assert there.get(number) == store.get(number)
        assert not there.enqueue_one(keyed(conflict="return")).created
        assert there.import_(rows) == (0, 1)
    finally:
        other.close()


def test_an_import_names_who_holds_a_key_there(
    store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store.enqueue([new(), new()])
    store.enqueue_one(keyed("kept"))
    rows = store.export(2, 10, finished=True)
    other = KINDS["sqlite"](tmp_path_factory.mktemp("other"))
    try:
        there = other.open()
        holder = there.enqueue_one(keyed("for a time")).id
        with pytest.raises(UniqueTaken, match=f"job {holder} holds its unique key 'k'"):
            there.import_(rows)
        assert [job.id for job in there.find()] == [holder]
    finally:
        other.close()


@pytest.mark.parametrize("hold", HELD_APART)
def test_an_unfinished_job_is_not_imported_under_a_key_that_another_one_holds(
    store: Store, tmp_path_factory: pytest.TempPathFactory, hold: str
) -> None:
    store.enqueue([new(), new()])
    store.enqueue_one(keyed())
    rows = store.export(2, 10, finished=True)
    other = KINDS["sqlite"](tmp_path_factory.mktemp("other"))
    try:
        there = other.open()
        holder = there.enqueue_one(keyed(hold)).id
        with pytest.raises(UniqueTaken, match=f"job {holder} holds its unique key 'k'"):
            there.import_(rows)
        assert [job.id for job in there.find()] == [holder]
    finally:
        other.close()


def test_a_debounced_job_that_ran_when_it_was_exported_has_no_key_there(
    store: Store, clock: MovableClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    number = store.enqueue_one(debounced()).id
    clock.move(DELAY_MS)
    claim(store, life())
    other = KINDS["sqlite"](tmp_path_factory.mktemp("other"))
    try:
        there = other.open()
        there.import_(store.export(0, 10, finished=True))
        assert there.holder("k") is None
        other.clock.move(DELAY_MS)
        assert [job.id for job in claim(there, life())] == [number]
    finally:
        other.close()


# -- many at once


def test_among_many_jobs_each_finds_its_key_as_it_would_alone(
    store: Store, clock: MovableClock
) -> None:
    held = [store.enqueue_one(keyed(hold, key=hold)).id for hold in HOLDS]
    jobs = [
        new(),
        *(keyed(key=hold) for hold in HOLDS),
        *(keyed(key=hold, conflict="replace", args="[2]") for hold in HOLDS),
        debounced(key="x", args="[1]"),
        debounced(key="x", args="[2]"),
        keyed("kept", key="y"),
        keyed(key="y"),
        keyed(key="z"),
        keyed("for a time", key="z"),
    ]
    ids = store.enqueue(jobs)
    assert [number for number, _ in ids[1:9]] == held * 2
    assert [created for _, created in ids] == [True, *[False] * 8, *[True, False] * 3]
    assert ids[9][0] == ids[10][0] != ids[11][0] == ids[12][0] != ids[13][0] == ids[14][0]
    assert [store.get(number).args for number in (*held, ids[9][0])] == [[2]] * 5
    assert len(store.find()) == len(held) + 4


def test_many_keys_in_each_way_are_stored_in_pages(store: Store) -> None:
    jobs = [keyed(hold, key=f"{hold} {n}", conflict="return") for n in range(60) for hold in HOLDS]
    made = store.enqueue(jobs)
    assert all(created for _, created in made)
    assert [number for number, _ in store.enqueue(jobs)] == [number for number, _ in made]
    assert len(store.find(limit=1_000)) == len(jobs)


@pytest.mark.parametrize("hold", HOLDS)
def test_an_undone_transaction_leaves_no_key(store: Store, hold: str) -> None:
    with undone(store):
        store.enqueue_one(keyed(hold))
        assert store.holder("k") is not None
    assert store.holder("k") is None
    assert store.enqueue_one(keyed(hold)).created


@pytest.mark.parametrize("hold", HOLDS)
def test_a_key_is_found_by_search_however_it_is_held(store: Store, hold: str) -> None:
    number = store.enqueue_one(keyed(hold, key="needle")).id
    assert [job.id for job in store.find(Filter(text="eedl"))] == [number]


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_finished_job_of_a_key_for_a_time_can_be_requeued(
    store: Store, clock: MovableClock, state: State
) -> None:
    number = job_in(store, state, unique_key="k", terms=Terms(is_held=True, held_ms=60_000))
    store.requeue(number)
    assert store.holder("k") == number
    clock.move(60_000)
    assert store.holder("k") is None


# -- beside retention, and older releases


def test_a_job_is_kept_as_long_as_its_key_is_held_for_a_time(
    store: Store, clock: MovableClock
) -> None:
    terms = Terms(is_held=True, held_ms=60_000)
    number = job_in(store, State.SUCCEEDED, unique_key="k", terms=terms)
    clock.move(59_999)
    assert store.prune({State.SUCCEEDED: 0}, limit=10) == 0
    assert store.holder("k") == number
    clock.move(1)
    assert store.prune({State.SUCCEEDED: 0}, limit=10) == 1
    assert store.find() == []


@pytest.mark.parametrize("number", [1, 3])
def test_where_successes_are_not_kept_those_with_a_key_for_a_time_are(
    store: Store, number: int
) -> None:
    who = life()
    store.enqueue_one(keyed("for a time"))
    for _ in range(number - 1):
        store.enqueue_one(new())
    jobs = claim(store, who)
    journal = [record(who, 1, job) for job in jobs]
    turn = store.turn(who, 2, queues=["default"], limit=1, journal=journal, forget_succeeded=True)
    assert (turn.applied.changed, turn.applied.lost) == (number, [])
    assert [(job.state, job.unique) for job in store.find()] == [(State.SUCCEEDED, "k")]
    assert not store.enqueue_one(keyed("for a time")).created


def test_what_an_older_family_does_not_know_is_refused_and_what_is_done_here_is_not(
    store: Store,
) -> None:
    store.add_family(family(version="0.5.0"))
    for hold in ("kept", "for a time", "debounced"):
        with pytest.raises(StoreRefused, match=r"a family of release '0\.5\.0' is at work"):
            store.enqueue_one(keyed(hold))
        with pytest.raises(StoreRefused):
            store.enqueue([new(), keyed(hold)])
    made = store.enqueue_one(keyed(conflict="replace"))
    assert (made.created, store.enqueue_one(keyed(conflict="replace")).replaced) == (True, True)
    with pytest.raises(UniqueTaken):
        store.enqueue([new(), keyed(conflict="raise")])


@pytest.mark.parametrize("number", [1, 2])
def test_a_job_that_is_replaced_in_a_fair_queue_takes_its_turn(
    database: Database, store: Store, clock: MovableClock, number: int
) -> None:
    store.set_fair("default", fair=True)
    clock.move(1_000)
    store.enqueue_one(new(unique_key="k", run_in_ms=60_000))
    store.enqueue([new(terms=Terms(share="a"))] * 3)
    replacing = new(unique_key="k", terms=Terms(share="b", conflict="replace"))
    store.enqueue([replacing, new(queue="other")][:number])
    found = database.sql("SELECT state, turn > 0 FROM jobs WHERE share = 'b'")
    assert [(state, bool(has_one)) for state, has_one in found] == [("pending", True)]
