"""A job that waits is due at another time: at once, later, at a moment; no other is moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from jobvisor.jobs.change import Moves
from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.due import NOW, Due
from jobvisor.jobs.errors import IllegalMove, InvalidOption, JobNotFound
from jobvisor.jobs.events import Event
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State, Terms
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.database import Database, SqliteDatabase
from tests.store.making import claim, enqueue, job_in, life, new, record, running
from tests.store.staged import client_of
from tests.waiting import eventually


@pytest.fixture
def client(store: Store, clock: MovableClock) -> Iterator[Client]:
    with client_of(store, clock) as made:
        yield made


def test_a_scheduled_job_that_is_due_now_is_claimed_now(store: Store, told: list[Event]) -> None:
    number = job_in(store, State.SCHEDULED)
    assert store.reschedule(number, NOW) == "pending"
    assert store.get(number).run_at == to_datetime(START_MS)
    assert [(event.verb, event.kind) for event in told][-1] == ("reschedule", "pending")
    assert [job.id for job in claim(store, life())] == [number]


def test_a_pending_job_that_is_put_off_is_claimed_then(store: Store, clock: MovableClock) -> None:
    number = enqueue(store)
    assert store.reschedule(number, Due(in_ms=5_000)) == "scheduled"
    assert claim(store, life()) == []
    clock.move(4_999)
    assert claim(store, life()) == []
    clock.move(1)
    assert [job.id for job in claim(store, life())] == [number]


def test_a_pending_job_that_is_to_run_at_once_has_waited_as_long_as_it_has(
    store: Store, clock: MovableClock
) -> None:
    number = enqueue(store)
    clock.move(60_000)
    assert store.reschedule(number, NOW) == "pending"
    assert store.get(number).run_at == to_datetime(START_MS)


@pytest.mark.parametrize("at_ms", [START_MS - 5_000, START_MS + 5_000])
def test_a_moment_may_lie_in_the_past_or_ahead(store: Store, at_ms: int) -> None:
    number = job_in(store, State.SCHEDULED)
    expected = "scheduled" if at_ms > START_MS else "pending"
    assert store.reschedule(number, Due(at_ms=at_ms)) == expected
    assert store.get(number).run_at == to_datetime(at_ms)


@pytest.mark.parametrize("due", [NOW, Due(in_ms=5_000)])
def test_a_blocked_job_stays_so_and_is_due_then(
    store: Store, clock: MovableClock, due: Due
) -> None:
    number = job_in(store, State.BLOCKED)
    assert store.reschedule(number, due) == "blocked"
    assert store.unblock(number)
    assert store.get(number).state == ("scheduled" if due.in_ms else "pending")


@pytest.mark.parametrize(
    ("parked", "later"),
    [("limit:a", "scheduled"), ("task:app:f", "scheduled"), ("after", "blocked")],
)
def test_a_parked_job_that_is_put_off_is_taken_up_by_nobody_before_its_time(
    database: Database, store: Store, parked: str, later: str
) -> None:
    number = job_in(store, State.BLOCKED)
    database.sql("UPDATE jobs SET parked = ?, turn = 7", parked)
    assert store.reschedule(number, NOW) == "blocked"
    assert store.get(number).parked == parked
    assert store.reschedule(number, Due(in_ms=5_000)) == later
    assert store.get(number).parked == (None if later == "scheduled" else parked)
    assert database.sql("SELECT turn FROM jobs") == [(0 if later == "scheduled" else 7,)]


def test_a_job_is_not_moved_behind_its_deadline(store: Store) -> None:
    number = enqueue(store, terms=Terms(deadline_in_ms=5_000))
    with pytest.raises(IllegalMove, match=rf"job {number} has its deadline at "):
        store.reschedule(number, Due(in_ms=5_000))
    assert store.reschedule(number, Due(in_ms=4_999)) == "scheduled"


def test_a_retry_that_a_person_puts_off_is_nothing_that_a_drain_waits_for(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "retry")], who)
    assert store.has_work(["default"], 1)
    store.reschedule(job.id, Due(in_ms=86_400_000))
    row = store.get(job.id)
    assert (row.state, row.deferred, row.attempt) == (State.SCHEDULED, None, 1)
    assert not store.has_work(["default"], 1)


@pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_a_job_that_does_not_wait_is_left_as_it_is(store: Store, state: State) -> None:
    number = job_in(store, state)
    before = store.get(number)
    with pytest.raises(IllegalMove, match=f"job {number} is {state}; only one that waits"):
        store.reschedule(number, NOW)
    assert store.get(number) == before


@pytest.mark.parametrize("due", [Due(in_ms=5_000), Due(at_ms=START_MS + 5_000)])
def test_a_job_is_not_moved_behind_the_moment_at_which_it_expires(store: Store, due: Due) -> None:
    number = enqueue(store, expires_in_ms=5_000)
    before = store.get(number)
    with pytest.raises(IllegalMove, match=rf"job {number} expires at .* it would not run any more"):
        store.reschedule(number, due)
    assert store.get(number) == before
    assert store.reschedule(number, Due(in_ms=4_999)) == "scheduled"


@pytest.mark.parametrize("number", [0, -1, 7, 2**63])
def test_a_job_that_there_is_not_is_told_so(store: Store, number: int) -> None:
    with pytest.raises(JobNotFound):
        store.reschedule(number, NOW)


def test_a_sleeper_wakes_for_a_job_that_is_due_sooner(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path)
    store = database.open()
    number = job_in(store, State.SCHEDULED)
    with closing(database.open().waker()) as sleeper:
        sleeper.drain()
        store.reschedule(number, NOW)
        eventually(lambda: sleeper.drain() is not None, what="the sleeper is told")
    database.close()


def test_a_row_that_the_database_refuses_is_told_as_refused(
    database: Database, store: Store
) -> None:
    number, other = job_in(store, State.SCHEDULED), job_in(store, State.SCHEDULED)
    database.refuse(f"new.id = {number}", "no")
    with pytest.raises(IllegalMove, match=rf"job {number} cannot be rescheduled: .*no"):
        store.reschedule(number, NOW)
    assert store.reschedule(other, NOW) == "pending"


# -- by a client, one, some or all that match


def test_a_client_says_when_as_options_do(client: Client, store: Store) -> None:
    number = enqueue(store)
    assert client.reschedule(number, run_in="1h") == "scheduled"
    assert client.get(number).run_at == to_datetime(START_MS + 3_600_000)
    moment = to_datetime(START_MS) + timedelta(hours=2)
    assert client.reschedule(client.get(number), run_at=moment) == "scheduled"
    assert client.get(number).run_at == moment
    assert client.reschedule(number) == "pending"
    with pytest.raises(InvalidOption, match="run_in and run_at both say when"):
        client.reschedule(number, run_in=1, run_at=moment)
    with pytest.raises(InvalidOption, match=r"run_at: .* has no timezone"):
        client.reschedule(number, run_at=moment.replace(tzinfo=None))
    with pytest.raises(InvalidOption, match="run_in: 'soon' is not a duration"):
        client.reschedule(number, run_in="soon")


def test_some_are_rescheduled_in_one_transaction_and_the_refused_stop_no_other(
    client: Client, store: Store
) -> None:
    jobs = [job_in(store, state) for state in (State.SCHEDULED, State.FAILED, State.BLOCKED)]
    moved = client.reschedule_many(jobs)
    assert [move.outcome for move in moved] == ["pending", "refused", "blocked"]


def test_all_that_wait_and_match_are_rescheduled_and_noted(client: Client, store: Store) -> None:
    mail = [enqueue(store, queue="mail", run_in_ms=later) for later in (0, 9_000)]
    enqueue(store, queue="other")
    running(store, queue="mails")
    which = Filter(queue="mail")
    assert client.reschedule_where(which, run_in="1h", dry_run=True).jobs == 2
    swept = client.reschedule_where(which, run_in="1h", by="ada")
    assert (swept.jobs, swept.outcomes) == (2, {"scheduled": 2})
    assert {client.get(job).run_at for job in mail} == {to_datetime(START_MS + 3_600_000)}
    (noted,) = client.actions()
    assert (noted.verb, noted.what, noted.number) == (
        "reschedule", "queue=mail to be due in 1h", 2,
    )  # fmt: skip


def test_a_filter_that_means_everything_or_what_does_not_wait_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="an empty Filter means every job"):
        client.reschedule_where(Filter())
    with pytest.raises(InvalidOption, match="state=failed cannot be meant here"):
        client.reschedule_where(Filter(state="failed"))


def test_a_job_that_starts_meanwhile_is_left_out(client: Client, store: Store) -> None:
    store.enqueue([new()] * 1_001)

    def start(page: Moves) -> None:
        if len(page) == 1_000:
            claim(store, life(), limit=2_000)

    swept = client.reschedule_where(Filter(state="pending"), run_in=60, told=start)
    assert swept.outcomes == {"scheduled": 1_000}
    assert client.counts()["default"] == {"scheduled": 1_000, "running": 1}


def test_a_job_of_a_fair_queue_that_is_due_now_comes_behind_its_share(store: Store) -> None:
    store.set_fair("default", fair=True)
    many = [enqueue(store, terms=Terms(share="a")) for _ in range(3)]
    later = enqueue(store, run_in_ms=60_000, terms=Terms(share="a"))
    other = enqueue(store, terms=Terms(share="b"))
    assert store.reschedule(later, NOW) == "pending"
    taken = [claim(store, life(), limit=1)[0].id for _ in range(5)]
    assert taken.index(other) <= 1
    assert [job for job in taken if job != other] == [*many, later]
