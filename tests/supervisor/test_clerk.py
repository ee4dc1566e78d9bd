"""A clerk: asked as a store is, deaf to what is sent to all, and gone with its worker."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.errors import ForkedStore, SchemaError, StoreRefused, StoreUnavailable
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.job import State
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.clerk.store import ClerkStore
from jobvisor.supervisor.signals import HANDLED
from tests.store.clerked import hired
from tests.store.making import enqueue, life, new, record
from tests.store.processes import held_by_another, in_a_copy
from tests.system.harness import alive, is_gone, open_files
from tests.waiting import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def store_at(path: Path) -> SqliteStore:
    store = open_store(f"sqlite:///{path}", durable=False, events=Events())
    assert isinstance(store, SqliteStore)
    return store


@pytest.fixture
def clerk(path: Path) -> Iterator[ClerkStore]:
    made = hired(str(path))
    yield made
    made.clerk.end()


@pytest.fixture
def direct(path: Path, clerk: ClerkStore) -> Iterator[SqliteStore]:
    """A store of the test's own; no connection of it may be open where a clerk is forked."""
    store = store_at(path)
    store.open()
    yield store
    store.close()


def claimed(store: ClerkStore, **named: Any) -> int:
    """How many jobs a turn of a new life claims."""
    return len(store.turn(life(), 1, queues=["default"], limit=100, **named).jobs)


# -- whose files are open


def test_no_database_file_is_open_in_the_worker(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    enqueue(direct)
    direct.close()
    assert claimed(clerk) == 1
    assert str(path) not in open_files(os.getpid())
    assert str(path) in open_files(clerk.clerk.pid)
    clerk.close()
    assert str(path) not in open_files(clerk.clerk.pid)


def test_a_worker_is_woken_without_opening_the_database(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    waker = clerk.waker()
    assert waker.drain() is None
    enqueue(direct)
    direct.close()
    assert waker.drain() == 0
    assert str(path) not in open_files(os.getpid())
    waker.close()


# -- what is carried over


def test_more_than_a_socket_takes_at_once_goes_both_ways(
    direct: SqliteStore, clerk: ClerkStore
) -> None:
    text = '["' + "x" * 300_000 + '"]'
    direct.enqueue([new(args=text) for _ in range(10)])
    who = life()
    jobs = clerk.turn(who, 1, queues=["default"], limit=10).jobs
    assert [job.args for job in jobs] == [text] * 10
    ended = [record(who, 1, job, result=text) for job in jobs]
    assert clerk.turn(who, 2, queues=[], limit=0, journal=ended).applied.changed == 10
    assert direct.get(jobs[9].id).state is State.SUCCEEDED


def test_an_error_of_the_store_is_raised_in_the_worker_as_it_is(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    direct.close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
        other.execute("UPDATE meta SET value = '99' WHERE key = 'oldest_schema'")
    other.close()
    with pytest.raises(SchemaError, match="has schema 99"):
        clerk.open()
    assert not clerk.clerk.is_gone
    missing = hired(str(path.parent / "missing" / "jobs.db"))
    with pytest.raises(StoreRefused, match="does not exist"):
        missing.open()
    missing.clerk.end()


def test_an_error_that_is_none_of_ours_is_told_in_words(clerk: ClerkStore) -> None:
    with pytest.raises(RuntimeError, match=r"TypeError: .*not supported"):
        clerk.turn(life(), 1, queues=["default"], limit="many")  # type: ignore[arg-type]
    assert clerk.look(["default"]).found is False


def test_events_and_log_lines_of_the_clerk_are_the_workers(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []
    events = Events()
    events.subscribe(told.append)
    clerk = hired(str(path), events)
    direct = store_at(path)
    number = enqueue(direct)
    who = life()
    (job,) = clerk.turn(who, 1, queues=["default"], limit=1).jobs
    clerk.apply([record(who, 1, job, "fail")], who)
    assert [(event.verb, event.job, event.error) for event in told] == [
        ("fail", number, "ValueError: broken")
    ]
    enqueue(direct)
    direct.close()
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'never'); END"
        )
    other.close()
    with caplog.at_level(logging.ERROR, "jobvisor"):
        logging.getLogger("jobvisor").propagate = True
        clerk.turn(who, 2, queues=["default"], limit=1)
    assert "the database refuses every change of it: never" in caplog.text
    clerk.clerk.end()


def test_a_wait_for_the_lock_is_told_while_it_lasts(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    enqueue(direct)
    direct.close()
    clerk.open()
    waits = 0
    with held_by_another(path) as holder:

        def count() -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                holder.let_go()

        clerk.on_wait = count
        assert claimed(clerk) == 1
    assert waits >= 3


def test_a_worker_may_do_something_else_while_its_clerk_works(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    direct.close()
    clerk.open()
    done = 0
    with held_by_another(path) as holder:

        def count() -> None:
            nonlocal done
            done += 1
            if done == 3:
                holder.let_go()

        clerk.clerk.meanwhile = count
        assert claimed(clerk) == 0
    assert done >= 3


# -- its end


def test_a_clerk_hears_nothing_that_is_sent_to_all(clerk: ClerkStore) -> None:
    clerk.open()
    assert os.getpgid(clerk.clerk.pid) == os.getpgrp()
    for number in HANDLED:
        os.kill(clerk.clerk.pid, number)
    assert clerk.look(["default"]).found is False


def test_a_worker_whose_clerk_dies_is_told_once_and_every_verb_says_so(clerk: ClerkStore) -> None:
    causes: list[str] = []
    clerk.clerk.on_gone = causes.append
    clerk.open()
    os.kill(clerk.clerk.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="connection to the database is gone"):
            clerk.look(["default"])
    assert causes == ["SIGKILL"]
    assert clerk.clerk.is_gone
    clerk.close()
    # Closed, it would be taken for one that a task has closed.
    assert os.readlink(f"/proc/self/fd/{clerk.clerk.fileno()}").startswith("socket:")


def test_the_death_of_a_clerk_that_nobody_asks_is_seen(clerk: ClerkStore) -> None:
    causes: list[str] = []
    clerk.clerk.on_gone = causes.append
    clerk.open()
    clerk.clerk.look()
    assert causes == []
    os.kill(clerk.clerk.pid, signal.SIGKILL)
    os.waitid(os.P_PID, clerk.clerk.pid, os.WEXITED | os.WNOWAIT)
    clerk.clerk.look()
    clerk.clerk.look()
    assert causes == ["SIGKILL"]


def test_a_clerk_that_dies_while_it_is_asked_is_told_as_well(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    direct.close()
    clerk.open()
    with held_by_another(path):
        clerk.on_wait = lambda: os.kill(clerk.clerk.pid, signal.SIGKILL)
        with pytest.raises(StoreUnavailable, match="is gone"):
            claimed(clerk)


def test_a_worker_that_is_interrupted_while_it_waits_asks_no_more(
    path: Path, direct: SqliteStore, clerk: ClerkStore
) -> None:
    """The answer that it left behind would be taken for that of the next request."""
    direct.close()
    clerk.open()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with held_by_another(path):
        clerk.on_wait = interrupt
        with pytest.raises(KeyboardInterrupt):
            claimed(clerk)
    with pytest.raises(StoreUnavailable):
        clerk.look(["default"])


def test_a_copy_of_the_worker_is_refused_and_keeps_nothing_open(clerk: ClerkStore) -> None:
    clerk.open()

    def ask() -> int:
        assert clerk.clerk.fileno() == -1
        clerk.open()
        return 0

    assert in_a_copy(ask).startswith(ForkedStore.__name__)
    assert clerk.look(["default"]).found is False


_WORKER = """
import os, subprocess, sys
from jobvisor.jobs.events import Events
from tests.store.clerked import hired

store = hired(sys.argv[1])
store.open()
if sys.argv[2] == "keeps":
    # What native code forks runs no handler of Python's.
    subprocess.Popen(["sleep", "60"], pass_fds=[store.clerk.fileno()], stdout=subprocess.DEVNULL)
print(store.clerk.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("copy", ["none", "keeps"])
def test_an_idle_clerk_leaves_with_its_worker(path: Path, copy: str) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(path), copy],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert worker.stdout is not None
    clerk = int(worker.stdout.readline())
    assert alive(clerk)
    worker.kill()
    eventually(lambda: is_gone(clerk), what="the clerk has left")
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
