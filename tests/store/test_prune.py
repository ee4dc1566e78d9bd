"""Finished jobs go when their time has come, a bounded number at a time, and nothing else goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from jobvisor.jobs.errors import JobNotFound
from jobvisor.jobs.job import FINISHED, UNFINISHED, Claimed, State, Terms
from jobvisor.jobs.keep import encode_keep
from jobvisor.jobs.pruner import (
    PAGE_FIRST,
    PAGE_LEAST,
    PAGE_MOST,
    PAGES_TOLD,
    PAUSE_LEAST,
    PageSize,
    Pruner,
    Stepped,
)
from jobvisor.jobs.pruning import BEGINNING, Rule, rules_of
from jobvisor.jobs.store import Life, Store
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import CRASH, GONE, claim, enqueue, held, job_in, life, record, running
from tests.strangers import REFUSALS

HOUR = 3_600_000


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_finished_job_goes_when_its_time_has_come(
    store: Store, clock: MovableClock, state: State
) -> None:
    number = job_in(store, state)
    clock.move(HOUR - 1)
    assert store.prune({state: HOUR}, limit=10) == 0
    clock.move(1)
    assert store.prune({state: HOUR}, limit=10) == 1
    with pytest.raises(JobNotFound):
        store.get(number)


def test_each_state_has_a_time_of_its_own(store: Store, clock: MovableClock) -> None:
    kept = [job_in(store, State.FAILED), job_in(store, State.CANCELLED)]
    job_in(store, State.SUCCEEDED)
    clock.move(HOUR)
    assert store.prune({State.SUCCEEDED: HOUR, State.FAILED: 2 * HOUR}, limit=10) == 1
    assert sorted(job.id for job in store.find()) == kept


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_an_unfinished_job_never_goes(store: Store, clock: MovableClock, state: State) -> None:
    job_in(store, state)
    clock.move(1_000 * HOUR)
    assert store.prune({**dict.fromkeys(FINISHED, 0), state: 0}, limit=10) == 0
    assert store.prunable([Rule(state, 0)]) == {state: 0}
    assert len(store.find()) == 1


def test_a_requeued_job_does_not_go_for_its_earlier_end(store: Store, clock: MovableClock) -> None:
    store.requeue(job_in(store, State.FAILED))
    clock.move(HOUR)
    assert store.prune(dict.fromkeys(FINISHED, 0), limit=10) == 0


def test_a_prune_takes_at_most_its_limit_and_the_oldest_first(
    store: Store, clock: MovableClock
) -> None:
    ids = []
    for _ in range(3):
        ids.append(job_in(store, State.SUCCEEDED))
        clock.move(1_000)
    ids.append(job_in(store, State.FAILED))
    ages = {State.SUCCEEDED: 0, State.FAILED: 0}
    assert store.prune(ages, limit=2) == 2
    assert sorted(job.id for job in store.find()) == ids[2:]
    assert store.prune(ages, limit=2) == 2
    assert store.prune(ages, limit=2) == 0


def test_the_history_goes_with_its_job(
    database: Database, store: Store, clock: MovableClock
) -> None:
    number = job_in(store, State.FAILED)
    kept = job_in(store, State.CANCELLED)
    clock.move(HOUR)
    store.prune({State.FAILED: 0}, limit=10)
    assert store.attempts(number) == []
    assert database.sql("SELECT job FROM attempts") == [(kept,)]


def test_whoever_deletes_a_row_its_history_goes_too(database: Database, store: Store) -> None:
    """`give_way` is a plain DELETE, as of a stranger."""
    gone, deleted, kept = (job_in(store, State.FAILED) for _ in range(3))
    with store.transaction():
        store.delete([gone])
        store._change("give_way", {"job": deleted})  # type: ignore[attr-defined]
    assert database.sql("SELECT DISTINCT job FROM attempts") == [(kept,)]


def test_what_would_go_is_counted_without_a_change(store: Store, clock: MovableClock) -> None:
    for state in (State.FAILED, State.FAILED, State.SUCCEEDED):
        job_in(store, state)
    enqueue(store)
    clock.move(HOUR)
    ages = {State.FAILED: HOUR, State.SUCCEEDED: HOUR + 1, State.CANCELLED: 0}
    assert store.prunable(rules_of(ages)) == {
        State.FAILED: 2,
        State.SUCCEEDED: 0,
        State.CANCELLED: 0,
    }
    assert len(store.find()) == 4


# -- by queue


def walked(store: Store, clock: MovableClock, *rules: Rule) -> int:
    """How many have gone when a walk has come to its end."""
    pruner, gone, more = Pruner(rules, clock), 0, True
    while more:
        step = pruner.step(store)
        gone, more = gone + step.gone, step.more
    return gone


def left(store: Store) -> list[int]:
    return sorted(job.id for job in store.find())


def test_what_is_said_of_a_queue_counts_before_what_is_said_of_a_state(
    store: Store, clock: MovableClock
) -> None:
    ordinary, short, kept = (
        job_in(store, State.SUCCEEDED, queue=name) for name in ("default", "short", "kept")
    )
    rules = rules_of(
        {State.SUCCEEDED: HOUR}, {"short": {"succeeded": 1_000}, "kept": {"succeeded": None}}
    )
    clock.move(1_000)
    assert walked(store, clock, *rules) == 1
    assert left(store) == [ordinary, kept]
    assert store.prunable(rules) == {State.SUCCEEDED: 0}
    clock.move(HOUR)
    assert store.prunable(rules) == {State.SUCCEEDED: 1}
    assert walked(store, clock, *rules) == 1
    assert left(store) == [kept]
    del short


def test_a_page_that_is_kept_longer_is_passed_over_and_not_read_again(
    store: Store, clock: MovableClock
) -> None:
    kept = [job_in(store, State.SUCCEEDED, queue="kept") for _ in range(4)]
    job_in(store, State.SUCCEEDED)
    rule = Rule(State.SUCCEEDED, 0, ("kept",))
    first = store.prune_page(rule, limit=3)
    assert (first.gone, first.more, first.after.id) == (0, True, kept[2])
    second = store.prune_page(rule, first.after, limit=3)
    assert (second.gone, second.more) == (1, False)
    assert left(store) == kept
    assert store.prune_page(rule, second.after, limit=3) == (0, second.after, False, 0)


def test_a_walk_goes_on_through_jobs_that_ended_in_the_same_moment(
    store: Store, clock: MovableClock
) -> None:
    kept = [job_in(store, State.SUCCEEDED, queue="kept") for _ in range(5)]
    rule = Rule(State.SUCCEEDED, 0, ("kept",))
    place, met = BEGINNING, []
    for _ in range(5):
        page = store.prune_page(rule, place, limit=1)
        place = page.after
        met.append(place.id)
    assert met == kept


def test_what_ended_behind_the_walk_goes_with_a_later_one(
    store: Store, clock: MovableClock
) -> None:
    pruner = Pruner([Rule(State.SUCCEEDED, 0, ("kept",))], clock)
    clock.move(5_000)
    job_in(store, State.SUCCEEDED, queue="kept")
    assert pruner.step(store) == Stepped(0, more=False, held_ns=0)
    who, job = running(store)
    store.apply([record(who, 1, job, age_ms=4_000)], who)
    assert pruner.step(store).gone == 1, (
        "settled late, and the walk begins where it was a while ago"
    )
    clock.move(120_000)
    pruner.step(store)
    clock.move(120_000)
    who, job = running(store)
    store.apply([record(who, 1, job, age_ms=244_000)], who)
    pruner.step(store)
    assert len(store.find()) == 2, "settled very late"
    clock.move(2 * HOUR)
    assert pruner.step(store).gone == 1
    assert len(store.find()) == 1


def learnt(*pages: tuple[int, float]) -> int:
    """The rows of the next page behind those of so many rows and milliseconds."""
    size = PageSize()
    for gone, ms in pages:
        size.learn(gone, int(ms * 1e6))
    return size.rows


def test_a_page_is_as_large_as_may_hold_the_database() -> None:
    assert learnt() == PAGE_FIRST
    assert learnt((500, 2)) == 1_000
    assert learnt((500, 0.1)) == 2 * PAGE_FIRST, "no jumps"
    assert learnt(*[(500, 2.5)] * 3) == 800
    assert learnt(*[(1_000, 8)] * 3) == 500
    assert learnt((500, 90)) == PAGE_LEAST
    assert learnt(*[(5_000, 0.1)] * 9) == PAGE_MOST
    assert learnt((3, 0.1)) == PAGE_FIRST, "too few to tell"


def test_a_page_that_something_else_held_up_makes_none_smaller_but_many_do() -> None:
    quick, slow = (500, 2.0), (500, 9.0)
    assert learnt(quick, *[slow] * (PAGES_TOLD - 1)) == 1_000
    assert learnt(quick, *[slow] * PAGES_TOLD) == PAGE_LEAST


def test_between_two_pages_others_have_the_database_as_long_as_a_page_had_it() -> None:
    assert Stepped(500, more=True, held_ns=30_000_000).pause == 0.03
    assert Stepped(500, more=True, held_ns=1).pause == PAUSE_LEAST
    assert Stepped(500, more=True, held_ns=30_000_000, alone=False).pause == PAUSE_LEAST
    assert Stepped(500, more=False, held_ns=1).pause is None


# -- by the job itself


def keeping(keep: Any) -> Terms:
    return Terms(keep=encode_keep("keep", keep))


def test_a_job_that_says_how_long_it_is_kept_goes_then_and_not_before(
    store: Store, clock: MovableClock
) -> None:
    ever, longer, shorter = (
        job_in(store, State.SUCCEEDED, terms=keeping(keep)) for keep in ("forever", "2h", "1s")
    )
    rule = Rule(State.SUCCEEDED, HOUR)
    clock.move(999)
    assert (walked(store, clock, rule), store.prunable_kept()) == (0, 0)
    clock.move(1)
    assert (store.prunable_kept(), walked(store, clock, rule)) == (1, 1)
    clock.move(HOUR)
    assert walked(store, clock, rule) == 0
    assert left(store) == [ever, longer]
    clock.move(HOUR)
    assert walked(store, clock, rule) == 1
    clock.move(50 * 365 * 24 * HOUR)
    assert walked(store, clock, rule) == 0
    assert left(store) == [ever]
    del shorter


def test_what_a_job_does_not_say_of_its_end_is_as_of_all_others(
    store: Store, clock: MovableClock
) -> None:
    terms = keeping({"succeeded": "1s"})
    done, bad = (job_in(store, state, terms=terms) for state in (State.SUCCEEDED, State.FAILED))
    rules = rules_of({State.SUCCEEDED: HOUR, State.FAILED: HOUR})
    clock.move(1_000)
    assert walked(store, clock, *rules) == 1
    assert left(store) == [bad]
    clock.move(HOUR)
    assert walked(store, clock, *rules) == 1
    del done


def by_record(verb: str) -> Callable[[Store, Life, Claimed], None]:
    def end(store: Store, who: Life, job: Claimed) -> None:
        assert store.apply([record(who, 1, job, verb)], who).changed == 1

    return end


def by_a_record_of_many(store: Store, who: Life, job: Claimed) -> None:
    others = [enqueue(store) for _ in range(120)]
    claimed = claim(store, who, 1, limit=200)
    assert [one.id for one in claimed] == others
    store.apply([record(who, 1, each) for each in (*claimed, job)], who)


def by_a_turn_that_forgets(store: Store, who: Life, job: Claimed) -> None:
    others = [enqueue(store) for _ in range(120)]
    claimed = claim(store, who, 1, limit=200)
    journal = [record(who, 1, each) for each in (job, *claimed)]
    turn = store.turn(who, 2, queues=["default"], limit=1, journal=journal, forget_succeeded=True)
    assert (turn.applied.changed, turn.applied.lost) == (121, [])
    assert [one for one in others if one in left(store)] == []


def by_forgetting(store: Store, who: Life, job: Claimed) -> None:
    again = store.apply([record(who, 1, job)], who, forget_succeeded=True)
    assert (again.changed, again.lost) == (1, [])
    again = store.apply([record(who, 1, job)], who, forget_succeeded=True)
    assert (again.changed, again.lost) == (0, []), "a second telling changes nothing"


def by_a_rescue(store: Store, who: Life, job: Claimed) -> None:
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, None)


def by_a_cancel(store: Store, who: Life, job: Claimed) -> None:
    store.release_rest(who.owner)
    assert store.cancel(job.id) == "cancelled"


def by_a_cancel_that_was_asked_for(store: Store, who: Life, job: Claimed) -> None:
    assert store.cancel(job.id) == "requested"
    store.release_rest(who.owner)


def by_losses(store: Store, who: Life, job: Claimed) -> None:
    for _ in range(3):
        store.vanish(who.owner, GONE)
        who = life()
        claim(store, who)
    store.vanish(who.owner, GONE)


WAYS_TO_END: list[Callable[[Store, Life, Claimed], None]] = [
    by_record("succeed"), by_record("fail"), by_record("cancel"), by_a_record_of_many,
    by_a_turn_that_forgets, by_forgetting, by_a_rescue, by_a_cancel, by_a_cancel_that_was_asked_for,
    by_losses,
]  # fmt: skip


@pytest.mark.parametrize("end", WAYS_TO_END)
def test_whoever_ends_a_job_it_is_kept_as_long_as_it_says(
    store: Store, clock: MovableClock, end: Callable[[Store, Life, Claimed], None]
) -> None:
    who, job = running(store, terms=keeping("2h"))
    end(store, who, job)
    assert store.get(job.id).state in FINISHED
    rules = rules_of(dict.fromkeys(FINISHED, 0))
    clock.move(2 * HOUR - 1_000)
    walked(store, clock, *rules)
    assert left(store) == [job.id]
    clock.move(1_000)
    walked(store, clock, *rules)
    assert left(store) == []


def test_what_a_kept_job_has_said_is_kept_where_others_are_forgotten(store: Store) -> None:
    who, job = running(store, terms=keeping("2h"))
    told = record(who, 1, job)._replace(progress='{"done": 1}', said="words")
    store.apply([told], who, forget_succeeded=True)
    assert store.get(job.id).progress == {"done": 1}
    assert [attempt.said for attempt in store.attempts(job.id)] == ["words"]


def test_a_requeued_job_is_kept_from_its_later_end_on(store: Store, clock: MovableClock) -> None:
    number = job_in(store, State.FAILED, terms=keeping("1h"))
    clock.move(HOUR)
    store.requeue(number)
    assert walked(store, clock) == 0
    who = life()
    (job,) = claim(store, who)
    store.apply([record(who, 1, job, "fail")], who)
    clock.move(HOUR - 1_000)
    assert walked(store, clock) == 0
    clock.move(1_000)
    assert walked(store, clock) == 1


def test_a_million_that_are_kept_do_not_stand_before_one_that_goes(
    store: Store, clock: MovableClock
) -> None:
    kept = [job_in(store, State.SUCCEEDED, terms=keeping("forever")) for _ in range(30)]
    job_in(store, State.SUCCEEDED)
    pruner = Pruner([Rule(State.SUCCEEDED, 0)], clock)
    assert pruner.step(store).gone == 1
    clock.move(6_000)
    pruner.step(store)
    clock.move(6_000)
    pruner.step(store)
    assert store.prune_page(Rule(State.SUCCEEDED, 0), pruner._places[Rule(State.SUCCEEDED, 0)], limit=5) == (
        0, pruner._places[Rule(State.SUCCEEDED, 0)], False, 0,
    )  # fmt: skip
    assert left(store) == kept


@pytest.mark.parametrize(
    "keep", ['{"succeeded": "x"}', '{"succeeded": {}}', '{"failed": -9e999}', "[]", "{", '{"a": 1}']
)
def test_what_a_stranger_writes_there_stops_nobody(
    database: Database, store: Store, clock: MovableClock, keep: str
) -> None:
    with suppress(*REFUSALS):
        database.sql("INSERT INTO jobs (task, keep) VALUES ('app:f', ?)", keep)
    who = life()
    for job in claim(store, who):
        store.apply([record(who, 1, job)], who)
    job_in(store, State.SUCCEEDED, terms=keeping("1s"))
    clock.move(HOUR)
    walked(store, clock, Rule(State.SUCCEEDED, 0))
    assert left(store) == []


def test_a_job_is_kept_as_long_as_its_key_is_held(
    database: Database, store: Store, clock: MovableClock
) -> None:
    for terms in (None, keeping("1s")):
        job_in(store, State.SUCCEEDED, terms=terms)
    until = (
        "'2033-05-18T05:33:20Z'" if "timestamp" in _type_of_moments(database) else "2000007200000"
    )
    database.sql(f"UPDATE jobs SET held_until = {until}")
    rule = Rule(State.SUCCEEDED, 1_000)
    clock.move(2 * HOUR - 1)
    assert (walked(store, clock, rule), store.prunable_kept()) == (0, 0)
    assert store.prunable([rule]) == {State.SUCCEEDED: 0}
    clock.move(1)
    assert walked(store, clock, rule) == 2


def _type_of_moments(database: Database) -> str:
    """As a stranger sees it."""
    ((found,),) = database.sql("SELECT CAST(max(run_at) AS TEXT) FROM jobs")
    return "timestamp" if "-" in found else "number"
