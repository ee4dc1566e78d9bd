"""A paused queue accepts and is not claimed, by any store, until it is resumed or its time is over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.annals import QUEUE, TASK
from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.job import State, Terms
from jobvisor.jobs.limit import limit_of
from jobvisor.jobs.store import Life, Store, Turn
from jobvisor.jobs.store.base import Whom
from jobvisor.jobs.store.pausing import PAUSED_MOST
from tests.clock import START_MS, MovableClock
from tests.store.database import Database, SqliteDatabase
from tests.store.making import claim, enqueue, family, life, new, record, running, undone


def test_a_paused_queue_accepts_and_is_not_claimed_until_it_is_resumed(store: Store) -> None:
    first = enqueue(store, queue="mail")
    store.pause(QUEUE, "mail")
    second, other = enqueue(store, queue="mail"), enqueue(store)
    who = life()
    assert [job.id for job in claim(store, who, queues=["mail", "default"])] == [other]
    assert store.resume(QUEUE, "mail")
    assert [job.id for job in claim(store, who, 2, queues=["mail"])] == [first, second]


@pytest.mark.parametrize("whom", list(Whom))
def test_a_look_does_not_find_what_a_paused_queue_holds(store: Store, whom: Whom) -> None:
    enqueue(store, memory_bytes=0 if whom is Whom.UNSUSPECTED else 1 << 30)
    assert store.look(["default"], whom=whom).found
    store.pause(QUEUE, "default")
    assert not store.look(["default"], whom=whom).found


def test_whoever_has_the_database_open_obeys_a_pause_in_the_next_turn(database: Database) -> None:
    store, other = database.open(), database.open()
    who = life()
    assert claim(other, who) == []
    first = enqueue(store)
    store.pause(QUEUE, "default")
    assert claim(other, who, 2) == []
    assert not other.look(["default"]).found
    store.resume(QUEUE, "default")
    assert other.look(["default"]).found
    assert [job.id for job in claim(other, who, 3)] == [first]


def test_a_worker_that_is_woken_by_a_resume_claims_in_that_turn(database: Database) -> None:
    store, other = database.open(), database.open()
    store.pause(QUEUE, "default")
    first, who = enqueue(store), life()
    asked = {"queues": ["default"], "limit": 10}
    assert other.turn(who, 1, register=True, **asked).jobs == []  # type: ignore[arg-type]
    assert other.turn(who, 2, woken=True, **asked).jobs == []  # type: ignore[arg-type]
    store.resume(QUEUE, "default")
    turn = other.turn(who, 3, woken=True, **asked)  # type: ignore[arg-type]
    assert [job.id for job in turn.jobs] == [first]
    enqueue(store)
    store.pause(QUEUE, "default")
    assert other.turn(who, 4, woken=True, **asked).jobs == []  # type: ignore[arg-type]


def test_what_runs_when_its_queue_is_paused_goes_on_and_is_settled(store: Store) -> None:
    who, job = running(store)
    store.pause(QUEUE, "default")
    turn = store.turn(who, 2, queues=["default"], limit=5, journal=[record(who, 1, job)])
    assert (turn.jobs, turn.applied.changed) == ([], 1)
    assert store.get(job.id).state is State.SUCCEEDED


def test_a_pause_ends_by_itself_at_its_moment(store: Store, clock: MovableClock) -> None:
    number = enqueue(store)
    paused = store.pause(QUEUE, "default", for_ms=60_000)
    assert paused.until == paused.since + timedelta(minutes=1)
    assert claim(store, life()) == []
    due_ms = store.look(["default"]).due_ms
    assert due_ms is not None
    assert 0 < due_ms <= 60_000
    clock.move(60_000)
    assert store.paused() == []
    assert store.look(["default"]).found
    assert [job.id for job in claim(store, life())] == [number]


def test_a_pause_until_a_moment_is_told_and_replaced_by_a_later_one(
    store: Store, clock: MovableClock
) -> None:
    store.pause(QUEUE, "mail", until_ms=START_MS + 5_000)
    store.pause(TASK, "app:f")
    clock.move(1_000)
    store.pause(QUEUE, "mail")
    queue, task = store.paused()
    assert (queue.kind, queue.name, queue.until) == (QUEUE, "mail", None)
    assert queue.since == to_datetime(START_MS)
    assert (task.kind, task.name) == (TASK, "app:f")
    assert str(queue) == "paused since 2033-05-18T03:33:20.000Z"


@pytest.mark.parametrize("woken", [False, True])
def test_a_pause_goes_on_where_the_clock_of_the_database_is_set_back(
    store: Store, clock: MovableClock, *, woken: bool
) -> None:
    number, who = enqueue(store), life()
    store.pause(QUEUE, "default", for_ms=60_000)
    assert claimed(store, who, register=True).jobs == []
    clock.step(-3_600_000)
    clock.move(60_000)
    assert [each.name for each in store.paused()] == ["default"]
    assert not store.look(["default"]).found
    assert claimed(store, who, 2, woken=woken).jobs == []
    clock.move(3_600_000)
    assert [job.id for job in claimed(store, who, 3, woken=woken).jobs] == [number]


def test_a_pause_that_is_over_by_the_clock_of_the_database_ends_within_a_minute(
    store: Store, clock: MovableClock
) -> None:
    number, who = enqueue(store), life()
    store.pause(QUEUE, "default", for_ms=3_600_000)
    assert claimed(store, who, register=True).jobs == []
    clock.step(3_600_000)
    assert store.paused() == []
    clock.move(60_000)
    assert [job.id for job in claimed(store, who, 2).jobs] == [number]


def test_a_pause_that_is_undone_hides_none_that_comes_after_it(store: Store) -> None:
    number, other = enqueue(store), enqueue(store, queue="mail")
    who = life()
    with undone(store):
        store.pause(QUEUE, "default")
        assert store.latency(["default"]) == 0  # whoever looks has learnt it now
    store.pause(QUEUE, "mail")
    asked = {"queues": ["default", "mail"], "limit": 10}
    assert [job.id for job in store.turn(who, 1, register=True, **asked).jobs] == [number]  # type: ignore[arg-type]
    store.resume(QUEUE, "mail")
    assert [job.id for job in store.turn(who, 2, **asked).jobs] == [other]  # type: ignore[arg-type]


def test_pauses_that_ended_by_themselves_are_forgotten_a_day_later(
    store: Store, database: Database, clock: MovableClock
) -> None:
    store.note_tasks({"app:f": "{}"})
    store.set_fair("reports", fair=True)
    for queue in ("mail", "reports", "later"):
        store.pause(QUEUE, queue, for_ms=1_000 if queue != "later" else 2 * 86_400_000)
    for task in ("app:f", "app:gone"):
        store.pause(TASK, task, for_ms=1_000)
    store.pause(TASK, "app:held")
    clock.move(86_400_000)
    assert not store.forget_pauses()
    assert len(database.sql("SELECT name FROM queues")) == 3
    clock.move(1_001)
    assert not store.forget_pauses()
    queues = "SELECT name, paused_at IS NULL FROM queues ORDER BY name"
    assert [(name, bool(free)) for name, free in database.sql(queues)] == [
        ("later", False),
        ("reports", True),
    ]
    tasks = "SELECT name, paused_at IS NULL FROM tasks ORDER BY name"
    assert [(name, bool(free)) for name, free in database.sql(tasks)] == [
        ("app:f", True),
        ("app:held", False),
    ]


def test_a_pause_that_begins_after_one_had_ended_counts_from_its_own_begin(
    store: Store, clock: MovableClock
) -> None:
    store.pause(QUEUE, "mail", for_ms=1_000)
    clock.move(5_000)
    assert store.pause(QUEUE, "mail").since == to_datetime(START_MS + 5_000)


def test_a_moment_that_has_passed_pauses_nothing(store: Store) -> None:
    with pytest.raises(InvalidOption, match="has passed"):
        store.pause(QUEUE, "mail", until_ms=START_MS - 1)
    assert store.paused() == []


def test_only_what_is_paused_is_resumed(store: Store, clock: MovableClock) -> None:
    assert not store.resume(QUEUE, "mail")
    store.pause(QUEUE, "mail", for_ms=10)
    clock.move(10)
    assert not store.resume(QUEUE, "mail")


def test_a_thousand_and_first_pause_is_refused(database: Database) -> None:
    store = database.open()
    store.pause(QUEUE, "first")
    for number in range(999):
        database.sql(
            f"INSERT INTO queues (name, paused_at) SELECT 'q{number}', paused_at FROM queues"
            " WHERE name = 'first'"
        )
    with pytest.raises(InvalidOption, match="1000 queues and tasks are paused"):
        store.pause(QUEUE, "one more")
    assert store.resume(QUEUE, "first")
    store.pause(QUEUE, "one more")


def test_a_drain_does_not_wait_for_a_paused_queue(store: Store) -> None:
    store.add_family(family())
    enqueue(store)
    assert store.has_work(["default"], 1)
    store.pause(QUEUE, "default")
    assert not store.has_work(["default"], 1)
    enqueue(store, queue="other")
    assert store.has_work(["default", "other"], 1)


def test_nobody_is_hired_for_what_a_paused_queue_holds(store: Store, clock: MovableClock) -> None:
    suspect = enqueue(store, memory_bytes=1 << 30)
    clock.move(5_000)
    assert store.latency(["default"]) == 5_000
    assert store.suspects(["default"]) == [suspect]
    store.pause(QUEUE, "default")
    assert store.latency(["default"]) == 0
    assert store.suspects(["default"]) == []


# -- tasks


def claimed(store: Store, who: Life, number: int = 1, **asked: Any) -> Turn:
    return store.turn(who, number, **{"queues": ["default"], "limit": 10, **asked})


def test_the_jobs_of_a_paused_task_wait_and_those_behind_them_run(store: Store) -> None:
    first, other, third = (enqueue(store, task=task) for task in ("app:f", "app:g", "app:f"))
    store.pause(TASK, "app:f")
    who = life()
    turn = claimed(store, who)
    assert ([job.id for job in turn.jobs], turn.parked) == ([other], 2)
    for number in (first, third):
        job = store.get(number)
        assert (job.state, job.parked, job.attempt) == (State.BLOCKED, "task:app:f", 0)
    assert not store.look(["default"]).found
    assert store.resume(TASK, "app:f")
    assert not store.free_tasks()
    assert [job.id for job in claimed(store, who, 2).jobs] == [first, third]
    assert [job.attempt for job in store.get_many([first, third]).values()] == [1, 1]


def test_a_job_enqueued_to_a_paused_task_waits_until_the_pause_ends_by_itself(
    store: Store, clock: MovableClock
) -> None:
    store.pause(TASK, "app:f", for_ms=60_000)
    number, who = enqueue(store), life()
    assert claimed(store, who).jobs == []
    assert not store.free_tasks()
    assert store.get(number).state is State.BLOCKED
    clock.move(60_000)
    store.free_tasks()
    assert [job.id for job in claimed(store, who, 2).jobs] == [number]


def test_what_is_parked_is_freed_page_by_page(store: Store) -> None:
    store.pause(TASK, "app:f")
    store.enqueue([new()] * 1_001)
    who = life()
    for number in range(1, 4):
        claimed(store, who, number, limit=500)
    assert store.unfinished()["default"] == {"blocked": 1_001}
    store.resume(TASK, "app:f")
    assert store.free_tasks()
    assert store.unfinished()["default"] == {"pending": 1_000, "blocked": 1}
    assert not store.free_tasks()
    assert store.unfinished()["default"] == {"pending": 1_001}


def test_only_the_jobs_of_the_task_that_is_resumed_are_freed(store: Store) -> None:
    one, two = (enqueue(store, task=task) for task in ("app:f", "app:g"))
    for task in ("app:f", "app:g"):
        store.pause(TASK, task)
    claimed(store, life())
    store.resume(TASK, "app:g")
    store.free_tasks()
    assert (store.get(one).state, store.get(two).state) == (State.BLOCKED, State.PENDING)


def test_a_parked_job_is_cancelled_and_expires_like_any_that_waits(
    store: Store, clock: MovableClock
) -> None:
    store.pause(TASK, "app:f")
    one, two = enqueue(store), enqueue(store, expires_in_ms=1_000)
    claimed(store, life())
    assert store.cancel(one) == "cancelled"
    assert store.get(one).parked is None
    clock.move(1_000)
    store.end_overdue()
    job = store.get(two)
    assert (job.state, job.parked) == (State.CANCELLED, None)


def test_a_task_that_is_only_paused_is_none_that_workers_have_told_of(
    store: Store, clock: MovableClock
) -> None:
    store.pause(TASK, "app:nobody")
    assert store.tasks() == []
    assert store.known_task("app:nobody") is None
    clock.move(40 * 86_400_000)
    store.note_tasks({"app:f": "{}"})
    assert [each.name for each in store.paused()] == ["app:nobody"]
    assert [each.name for each in store.tasks()] == ["app:f"]


def test_a_drain_does_not_wait_for_a_paused_task_but_for_what_has_a_limit(store: Store) -> None:
    store.add_family(family())
    enqueue(store)
    store.pause(TASK, "app:f")
    claimed(store, life())
    assert not store.has_work(["default"], 1)
    for name, concurrency in (("closed", 0), ("open", 1)):
        store.set_limit(limit_of(name, concurrency=concurrency))
    closed = enqueue(store, task="app:g", terms=Terms(limit_key="closed:x"))
    claimed(store, life())
    assert store.get(closed).parked == "limit:closed:x"
    assert not store.has_work(["default"], 1)
    for _ in range(2):
        enqueue(store, task="app:g", queue="other", terms=Terms(limit_key="open:a:b"))
    assert claimed(store, life(), queues=["other"]).parked == 1
    assert not store.has_work(["default"], 1)
    assert store.has_work(["other"], 1)


def test_what_was_parked_and_is_imported_where_its_task_is_not_paused_is_set_free(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    store, there = database.open(), SqliteDatabase(tmp_path / "there").open()
    number = enqueue(store)
    store.pause(TASK, "app:f")
    claimed(store, life())
    with store.snapshot():
        rows = store.export(0, 10, finished=False)
    there.import_(rows)
    assert there.get(number).parked == "task:app:f"
    assert not there.free_tasks()
    assert there.get(number).state is State.PENDING
    there.close()


def test_the_jobs_of_a_resumed_task_are_freed_however_many_others_are_paused(store: Store) -> None:
    last = f"app:t{PAUSED_MOST:04}"
    names = [f"app:t{number:04}" for number in range(PAUSED_MOST)]
    who, number = life(), enqueue(store, task=last)
    store.pause(TASK, last)
    claimed(store, who)
    store.resume(TASK, last)
    with store.transaction():
        for name in names:
            store.pause(TASK, name)
        store.enqueue([new(task=name) for name in names])
    for turn in (2, 3):
        assert claimed(store, who, turn, limit=PAUSED_MOST // 2).parked == PAUSED_MOST // 2
    assert not store.free_tasks()
    assert store.get(number).state is State.PENDING
    assert store.unfinished()["default"] == {"pending": 1, "blocked": PAUSED_MOST}
