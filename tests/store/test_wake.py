"""A sleeper on SQLite hears of a row that became claimable: after the commit, and of nothing else."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.store import Life, open_store
from jobvisor.jobs.store.base import Waker
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.store.wake import RUMOUR_SECONDS
from tests.store.database import MemoryDatabase, SqliteDatabase
from tests.store.making import (
    CRASH,
    GONE,
    STOPPED,
    claim,
    enqueue,
    family,
    held,
    job_in,
    life,
    record,
    running,
    undone,
)
from tests.store.processes import without_watches

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="inotify is Linux's; elsewhere the table is polled"
)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(file: SqliteDatabase) -> SqliteStore:
    return file.open()


@pytest.fixture
def waker(file: SqliteDatabase) -> Iterator[Waker]:
    """Of another store, as another process would have it."""
    made = file.open().waker()
    yield made
    made.close()


def readable(waker: Waker) -> bool:
    descriptor = waker.fileno()
    assert descriptor is not None
    return bool(select.select([descriptor], [], [], 0)[0])


def test_an_enqueue_wakes_a_sleeper_who_then_sees_the_row(
    file: SqliteDatabase, store: SqliteStore, waker: Waker
) -> None:
    assert waker.drain() is None
    enqueue(store)
    assert readable(waker)
    assert waker.drain() == 0.0
    assert file.open().look(["default"])[:2] == (True, 0)
    assert not readable(waker)
    assert waker.drain() is None


def test_nobody_is_woken_before_the_commit(store: SqliteStore, waker: Waker) -> None:
    with store.transaction():
        enqueue(store)
        assert waker.drain() is None
    assert waker.drain() == 0.0


def test_nobody_is_woken_by_what_was_undone(store: SqliteStore, waker: Waker) -> None:
    with undone(store):
        enqueue(store)
    assert waker.drain() is None
    # Nor by the next commit of the same store, which makes nothing claimable.
    store.add_family(family())
    assert waker.drain() in (None, RUMOUR_SECONDS)


Deed = Callable[[SqliteStore, Life, Claimed], object]


def rescue(store: SqliteStore, who: Life, job: Claimed) -> None:
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, 1_000)


def give_back(store: SqliteStore, who: Life, job: Claimed) -> None:
    store.give_back(job.id, who.owner, held(store, job.id, who), STOPPED)


def settled_as(verb: str) -> Deed:
    return lambda store, who, job: store.apply([record(who, 1, job, verb)], who)


WAKING: dict[str, Deed] = {
    **{verb: settled_as(verb) for verb in ("retry", "snooze", "release")},
    "rescue": rescue,
    "give back": give_back,
    "vanish": lambda store, who, _job: store.vanish(who.owner, GONE),
    "release the rest": lambda store, who, _job: store.release_rest(who.owner),
    # The caretaker sleeps on the same file, and carries the word.
    "cancel": lambda store, _who, job: store.cancel(job.id),
}


@pytest.mark.parametrize("deed", WAKING.values(), ids=WAKING.keys())
def test_whatever_makes_a_row_claimable_sooner_or_later_wakes_the_sleepers(
    store: SqliteStore, waker: Waker, deed: Deed
) -> None:
    who, job = running(store)
    waker.drain()
    deed(store, who, job)
    assert waker.drain() == 0.0


def test_a_requeue_an_unblock_and_a_promote_wake_the_sleepers(
    file: SqliteDatabase, store: SqliteStore, waker: Waker
) -> None:
    failed, blocked = job_in(store, State.FAILED), job_in(store, State.BLOCKED)
    job_in(store, State.SCHEDULED)
    file.clock.move(60_000)
    for act in (
        lambda: store.requeue(failed),
        lambda: store.unblock(blocked),
        store.promote,
    ):
        waker.drain()
        act()
        assert waker.drain() == 0.0


def test_a_claim_or_a_success_wakes_nobody_at_once(store: SqliteStore, waker: Waker) -> None:
    enqueue(store)
    who = life()
    waker.drain()
    (job,) = claim(store, who)
    assert waker.drain() in (None, RUMOUR_SECONDS)
    store.apply([record(who, 1, job)], who)
    assert waker.drain() in (None, RUMOUR_SECONDS)


def test_a_strangers_plain_insert_is_a_rumour(file: SqliteDatabase, waker: Waker) -> None:
    waker.drain()
    file.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    assert readable(waker)
    assert waker.drain() == RUMOUR_SECONDS


def test_an_enqueue_among_rumours_is_looked_at_at_once(
    file: SqliteDatabase, store: SqliteStore, waker: Waker
) -> None:
    waker.drain()
    file.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    enqueue(store)
    file.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    assert waker.drain() == 0.0


def test_a_wake_file_that_was_deleted_is_made_and_watched_again(
    file: SqliteDatabase, store: SqliteStore, waker: Waker
) -> None:
    os.unlink(f"{file.path}-wake")
    assert waker.drain() == 0.0
    enqueue(store)  # makes the file anew
    waker.drain()
    enqueue(store)
    assert waker.drain() == 0.0


def test_a_log_that_was_deleted_is_watched_again(file: SqliteDatabase, waker: Waker) -> None:
    file.close()  # the last connection takes the log with it
    waker.drain()
    file.open()
    waker.drain()
    file.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    assert waker.drain() == RUMOUR_SECONDS


def test_a_waker_of_a_database_that_is_not_there_yet_hears_its_first_enqueue(
    file: SqliteDatabase,
) -> None:
    waker = open_store(f"sqlite:///{file.path}").waker()
    enqueue(file.open())
    assert waker.drain() == 0.0
    waker.close()


def test_a_closed_waker_holds_no_descriptor(store: SqliteStore) -> None:
    waker = store.waker()
    descriptor = waker.fileno()
    assert descriptor is not None
    waker.close()
    waker.close()
    assert waker.fileno() is None
    assert waker.drain() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_in_memory_there_is_nothing_to_watch(tmp_path: Path) -> None:
    database = MemoryDatabase(tmp_path)
    waker = database.open().waker()
    assert (waker.fileno(), waker.drain()) == (None, None)
    waker.close()
    database.close()


def loop(path: str) -> None:
    os.symlink(path, path)


def folder_in_its_place(path: str) -> None:
    os.mkdir(path)


def name_of_nothing(path: str) -> None:
    os.symlink(f"{path}-no/such/folder", path)


@pytest.mark.parametrize("put", [loop, folder_in_its_place, name_of_nothing])
def test_a_wake_file_that_cannot_be_touched_costs_no_committed_enqueue(
    file: SqliteDatabase, store: SqliteStore, put: Callable[[str], None]
) -> None:
    store.open()
    os.unlink(f"{file.path}-wake")
    put(f"{file.path}-wake")
    number = enqueue(store)
    assert file.open().get(number).state is State.PENDING


_A_WAKER = """
from jobvisor.jobs.store import open_store
waker = open_store(f"sqlite:///{sys.argv[1]}").waker()
waker.drain()
print(waker.fileno())
"""


def test_a_system_without_a_watch_left_is_polled(file: SqliteDatabase, store: SqliteStore) -> None:
    store.open()
    assert without_watches(_A_WAKER, str(file.path)) == "None\n"
