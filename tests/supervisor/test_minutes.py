"""The sums of each minute: written by the caretaker from the counters, and nothing where nothing happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from jobvisor.jobs.annals import MINUTE_MS, Sums
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.board import SLOTS
from jobvisor.supervisor.caretaker.minutes import DEPTHS_EVERY_NS, MINUTES_MOST, QUEUES_MAX, Minutes
from jobvisor.supervisor.counting.counters import Counters
from jobvisor.supervisor.counting.tally import Tally
from jobvisor.supervisor.counting.totals import Reader
from jobvisor.supervisor.ledger.ledger import Entry
from tests.clock import MovableClock
from tests.store.making import enqueue

MS = 1_000_000


class Scene:
    """A store, counters, and who writes the sums."""

    def __init__(self, folder: Path) -> None:
        self.clock = MovableClock()
        self.path = folder / "jobs.db"
        self.store: Store = open_store(f"sqlite:///{self.path}", durable=False, clock=self.clock)
        self.store.open()
        self.counters = Counters(SLOTS)
        self.tally = Tally(self.counters.block(1), 17)
        self.minutes = self.made()

    def made(self) -> Minutes:
        return Minutes(self.store, Reader(self.counters), self.clock)

    def run(
        self, verb: str = "succeed", *, queue: str = "mail", task: str = "t", wait: int = 0
    ) -> None:
        """A job that was claimed and has run for 30 ms."""
        job = Claimed(1, task, "[]", "{}", 1, 4, 1, None, 0, 0, None, queue, 0, waited_ms=wait)
        self.tally.turned([job], 0)
        entry = Entry(1, 1, 1, VERB_CODES[verb], 0, 30, 0, b"", cpu_ms=20, took_ns=30 * MS)
        self.tally.count_runs([(job, entry)])

    def after(self, ms: int = MINUTE_MS) -> None:
        self.clock.move(ms)
        self.minutes.end_if_over()
        self.minutes.keep()

    def rows(self) -> list[Sums]:
        now = self.clock.now_ms()
        return self.store.stats(0, now + MINUTE_MS, step_ms=MINUTE_MS, limit=1_000)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.store.close()


def test_what_was_counted_in_a_minute_is_one_row_for_each_queue(scene: Scene) -> None:
    at = scene.clock.now_ms() // MINUTE_MS * MINUTE_MS
    scene.run(wait=40)
    scene.run("fail", task="other", wait=700)
    scene.run("retry", queue="reports")
    scene.after()
    mail, reports = scene.rows()
    assert mail == Sums(
        at, "mail", started=2, succeeded=1, failed=1, run_ms=60, cpu_ms=40, wait_ms=740,
        wait_max_ms=740,
    )  # fmt: skip
    assert (reports.queue, reports.retried, reports.succeeded) == ("reports", 1, 0)


def test_the_next_minute_holds_what_came_since(scene: Scene) -> None:
    scene.run()
    scene.after()
    scene.run()
    scene.run()
    scene.after()
    assert [row.succeeded for row in scene.rows()] == [1, 2]


def test_a_minute_in_which_nothing_happened_has_no_row(scene: Scene) -> None:
    scene.run()
    for _ in range(5):
        scene.after()
    assert len(scene.rows()) == 1


def test_the_deepest_that_a_queue_was_seen_is_kept_with_its_longest_wait(scene: Scene) -> None:
    for _ in range(3):
        enqueue(scene.store, queue="mail")
    scene.after(DEPTHS_EVERY_NS // MS)
    scene.after()
    row = scene.rows()[0]
    assert (row.queue, row.depth, row.started) == ("mail", 3, 0)
    assert row.oldest_ms is not None


def test_each_queue_has_its_own_wait_and_many_take_few_statements(scene: Scene) -> None:
    statements: list[str] = []
    for number in range(50):
        enqueue(scene.store, queue=f"queue {number:02}")
        scene.clock.move(10)
    cast("SqliteStore", scene.store)._connected().set_trace_callback(statements.append)
    scene.after(DEPTHS_EVERY_NS // MS)
    assert len(statements) < 30
    scene.after()
    waits = [row.oldest_ms for row in scene.rows()]
    assert len(waits) == 50
    assert waits == sorted(waits, key=lambda wait: -(wait or 0))
    assert waits[0] == waits[-1] + 490  # type: ignore[operator]


def test_two_families_add_up(scene: Scene) -> None:
    other = scene.made()
    scene.run()
    scene.after()
    other.end_if_over()  # of the same counters, as if it were another family that did the same
    other.keep()
    assert [row.succeeded for row in scene.rows()] == [2]


def test_who_leaves_writes_what_it_has_and_who_follows_goes_on_from_there(scene: Scene) -> None:
    scene.run()
    scene.minutes.write_all()
    scene.minutes = scene.made()
    scene.run()
    scene.after()
    assert [row.succeeded for row in scene.rows()] == [2]


def test_a_caretaker_that_was_killed_costs_the_current_minute_alone(scene: Scene) -> None:
    scene.run()
    scene.after()
    scene.run()
    scene.minutes = scene.made()
    scene.run()
    scene.after()
    assert [row.succeeded for row in scene.rows()] == [1, 1]


def test_minutes_wait_for_a_database_that_is_away(scene: Scene) -> None:
    scene.store.close()
    aside = scene.path.with_suffix(".aside")
    scene.path.rename(aside)
    scene.path.mkdir()
    for _ in range(2):
        scene.run()
        with pytest.raises(StoreUnavailable):
            scene.after()
    scene.path.rmdir()
    aside.rename(scene.path)
    scene.after(1)
    assert [row.succeeded for row in scene.rows()] == [1, 1]


def test_no_more_minutes_wait_than_two_hours_have(scene: Scene) -> None:
    assert MINUTES_MOST == 120
    for _ in range(3):
        scene.run()
        scene.after()
    assert [row.succeeded for row in scene.rows()] == [1, 1, 1]


def test_of_ten_thousand_queues_a_minute_has_a_bounded_number_of_rows(scene: Scene) -> None:
    for number in range(1_000):
        scene.run(queue=f"q{number}")
    scene.after()
    rows = scene.rows()
    assert len(rows) <= QUEUES_MAX + 1
    assert sum(row.succeeded for row in rows) == 1_000
