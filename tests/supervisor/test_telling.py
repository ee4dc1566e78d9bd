"""When a worker tells of its tasks, and when what stands there already is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SECOND, from_datetime
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.store import open_store
from jobvisor.supervisor.running.telling import (
    AGAIN_NS,
    FIRST_NS,
    LATER_NS,
    OwnShelf,
    Telling,
)
from tests.clock import MovableClock
from tests.waiting import eventually

AGAIN_MS = AGAIN_NS // 1_000_000


def registry(retries: int = 1) -> Registry:
    made = Registry()

    @made.task(name="app:f", retries=retries, aliases=["app:old"])
    def function(a: int) -> None:
        """Do it."""

    return made


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def client(tmp_path: Path, clock: MovableClock) -> Iterator[Client]:
    made = Client(f"sqlite:///{tmp_path}/jobs.db", clock=clock)
    yield made
    made.close()


def tell(client: Client, clock: MovableClock, retries: int = 1) -> Telling:
    """What one more life tells."""
    telling = Telling(registry(retries), client, clock, lambda: True)
    clock.move(FIRST_NS // 1_000_000 + 1)
    telling.tell_if_due()
    return telling


def seen_at(client: Client) -> int:
    [task] = client.tasks()
    return from_datetime(task.seen_at)


def test_tasks_are_told_a_moment_after_a_worker_began(client: Client, clock: MovableClock) -> None:
    telling = Telling(registry(), client, clock, lambda: True)
    telling.tell_if_due()
    assert client.tasks() == []
    clock.move(FIRST_NS // 1_000_000 + 1)
    telling.tell_if_due()
    [task] = client.tasks()
    assert (task.name, task.told["aliases"], task.told["doc"]) == ("app:f", ["app:old"], "Do it.")


def test_what_stands_there_is_not_written_again_for_half_a_day(
    client: Client, clock: MovableClock
) -> None:
    tell(client, clock)
    first = seen_at(client)
    tell(client, clock)
    assert seen_at(client) == first
    clock.move(AGAIN_MS)
    tell(client, clock)
    assert seen_at(client) > first + AGAIN_MS


def test_a_task_that_has_changed_is_told_at_once(client: Client, clock: MovableClock) -> None:
    tell(client, clock)
    tell(client, clock, retries=2)
    [task] = client.tasks()
    assert task.told["options"] == {"retries": 2}


def test_a_life_tells_twice_a_day(client: Client, clock: MovableClock) -> None:
    telling = tell(client, clock)
    first = seen_at(client)
    telling.tell_if_due()
    assert seen_at(client) == first
    clock.move(AGAIN_MS + 1)
    telling.tell_if_due()
    assert seen_at(client) > first


def test_a_database_that_is_away_is_asked_again_later(tmp_path: Path, clock: MovableClock) -> None:
    (tmp_path / "jobs.db").mkdir()
    client = Client(f"sqlite:///{tmp_path}/jobs.db", clock=clock)
    telling = tell(client, clock)
    (tmp_path / "jobs.db").rmdir()
    telling.tell_if_due()
    assert client.tasks() == []
    clock.move(LATER_NS // 1_000_000 + SECOND)
    telling.tell_if_due()
    assert len(client.tasks()) == 1
    client.close()


def test_it_is_told_beside_what_runs_where_several_jobs_do(
    client: Client, clock: MovableClock
) -> None:
    telling = Telling(registry(), client, clock, lambda: True)
    clock.move(FIRST_NS // 1_000_000 + 1)
    telling.tell_beside_if_due()
    eventually(client.tasks, what="a thread has told it")


def test_the_first_worker_at_rest_tells_and_another_asks_again_later(
    client: Client, clock: MovableClock
) -> None:
    first: list[int] = []
    telling = Telling(registry(), client, clock, lambda: bool(first))
    clock.move(FIRST_NS // 1_000_000 + 1)
    telling.tell_if_due()
    first.append(1)
    telling.tell_if_due()
    assert client.tasks() == []
    clock.move(LATER_NS // 1_000_000 + 1)
    telling.tell_if_due()
    assert len(client.tasks()) == 1


def test_the_connection_of_a_worker_is_as_good(tmp_path: Path, clock: MovableClock) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", clock=clock)
    telling = Telling(registry(), OwnShelf(store), clock, lambda: True)
    clock.move(FIRST_NS // 1_000_000 + 1)
    telling.tell_if_due()
    assert [task.name for task in store.tasks()] == ["app:f"]
    store.close()
