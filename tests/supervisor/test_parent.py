"""The parent's decisions that no run of a whole family meets for sure."""

from __future__ import annotations

import re
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.errors import EX_CONFIG
from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.supervisor.board import (
    DRAIN,
    DRAINED,
    GRAVES,
    NOW,
    PARENT_NOTE,
    REFUSED,
    RELOAD_STATE,
    SLOTS,
    STATE,
    STOP,
    VERDICT_CODES,
    WANTED,
    Grave,
)
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import read_ledger_of
from jobvisor.supervisor.ledger.ledger import Header, Ledger
from jobvisor.supervisor.parent.first_start import BOOTS_BEFORE_WRONG
from jobvisor.supervisor.parent.parent import Parent
from jobvisor.supervisor.roster import WORKER
from tests.clock import MovableClock

PID_MAX = 1 << 22  # of Linux
NOBODY = Grave(1, 1, 1, 0, 0, 0, 0, 0, 0, 0, WORKER.number)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.of({"tasks": {"modules": ["app"]}}, folder=str(tmp_path))


@pytest.fixture
def parent(config: Config) -> Iterator[Parent]:
    """With its posts and pipes and before its first fork."""
    made = Parent(config)
    made.prepare()
    yield made
    made._nursery.close()


def test_with_a_full_ring_of_graves_only_the_caretaker_is_forked(parent: Parent) -> None:
    caretaker, *workers = parent._crew
    for _ in range(GRAVES):
        parent._board.bury(NOBODY)
    assert parent.may_fork(caretaker)
    assert not any(map(parent.may_fork, workers))


def test_no_worker_is_forked_whose_death_would_have_no_grave(parent: Parent) -> None:
    caretaker, first, second, *_ = parent._crew
    for _ in range(GRAVES - 2):
        parent._board.bury(NOBODY)
    caretaker.pid = 1  # it lives, and may die like anybody
    assert parent.may_fork(first)
    first.pid = 1
    assert not parent.may_fork(second)


def test_a_family_with_a_full_ring_comes_to_its_end(parent: Parent) -> None:
    caretaker, *_workers = parent._crew
    for _ in range(GRAVES):
        parent._board.bury(NOBODY)
    parent._begin_stop()
    # Once more, to settle; and when that has failed twice, no more.
    assert not parent._is_over()
    assert parent.may_fork(caretaker)
    caretaker.failures = 2
    assert parent._is_over()
    assert not parent.may_fork(caretaker)


def test_a_stop_is_begun_once_whatever_asks_for_it_in_one_round(parent: Parent) -> None:
    next(iter(parent._crew)).bad_boots = BOOTS_BEFORE_WRONG
    parent._board[DRAINED] = 1
    parent._first_start.ever_ready = True
    parent.proceed()
    assert parent._board[STOP] == DRAIN
    assert parent.exit_code == EX_CONFIG


def test_graves_that_wait_are_not_written_over_by_a_caretaker_that_keeps_dying(
    parent: Parent,
) -> None:
    caretaker, *_workers = parent._crew
    for number in range(GRAVES - 1):
        parent._board.bury(NOBODY._replace(owner=number + 1))
    for _ in range(5):
        caretaker.pid = 77
        parent._bury(caretaker, Exit(77, 1))
    assert next(parent._board.unsettled()).owner == 1
    assert parent._board.has_room_for_graves(0)


def test_a_second_term_kills_only_where_it_is_not_the_first_one_passed_on(config: Config) -> None:
    clock = MovableClock()
    parent = Parent(config, clock=clock)
    parent.prepare()
    parent._obey([signal.SIGTERM, signal.SIGTERM])
    assert parent._board[STOP] == DRAIN
    parent._obey([signal.SIGINT])
    assert parent._board[STOP] == DRAIN
    clock.move(501)
    parent._obey([signal.SIGTERM])
    assert parent._board[STOP] == NOW
    parent._nursery.close()


def test_a_family_with_every_slot_taken_takes_no_further_worker_and_goes_on(parent: Parent) -> None:
    workers = len(parent._crew.staying("default"))
    for _ in range(SLOTS):
        parent._on_more()
    assert len(parent._crew.staying("default")) == PROCESSES_MAX // 2, "twice that in a reload"
    for _ in range(SLOTS):
        parent._on_fewer()
    assert parent._crew.room == SLOTS - 2
    assert len(parent._crew.staying("default")) == 1 < workers


@pytest.mark.parametrize(
    ("values", "wanted", "told"),
    [
        ({"overlap": True}, 121, r"at most 120 are possible, .* needs them twice; have fewer"),
        ({"overlap": False}, 241, r"at most 240 are possible, .*have fewer"),
        ({"overlap": True, "concurrency": 1000}, 9, r"at most 8 are possible, .* 16384 lanes"),
        ({"overlap": True}, 0, r"cannot have 0 workers: a pool has at least 1"),
    ],
)
def test_more_workers_than_there_are_places_are_refused_with_a_sentence(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    values: dict[str, Any],
    wanted: int,
    told: str,
) -> None:
    config = Config.of({}, folder=str(tmp_path))
    config = replace(config, workers=(replace(config.workers[0], **values),))
    parent = Parent(config)
    parent.prepare()
    refused = parent._scale.set(config, config.workers[0], wanted)
    assert re.search(rf"pool default .*{told}", refused), refused
    assert refused in caplog.text
    assert parent._scale.wanted("default") == 2
    parent._nursery.close()


def test_a_death_that_nobody_could_settle_is_left_in_its_ledger(
    parent: Parent, config: Config
) -> None:
    folder = StateDir(config.family.state_dir).ledgers
    Ledger(folder, Header(7, 4242, 1, 1, 1, "boot", "database", "here")).close()
    parent._board.bury(
        Grave(7, 4242, 1, -9, 3, 2, VERDICT_CODES["timeout"], 0, 3, 2, WORKER.number)
    )
    parent._board.bury(NOBODY)  # of whom there is no file
    parent.leave_graves()
    found = read_ledger_of(folder, 7)
    assert found is not None
    assert found.grave is not None
    assert (found.grave.status, found.grave.verdict_job, found.grave.verdict_claim) == (-9, 3, 2)


def test_workers_that_a_reload_wants_get_the_places_of_those_that_leave_for_it(
    tmp_path: Path,
) -> None:
    def pools(first: int, second: int) -> Config:
        both = [
            {"name": "first", "queues": ["a"], "processes": first, "overlap": False},
            {"name": "second", "queues": ["b"], "processes": second, "overlap": False},
        ]
        return Config.of({"workers": both}, folder=str(tmp_path))

    parent = Parent(pools(200, 1))
    parent.prepare()
    crew = parent._crew
    for post in crew:
        post.pid = PID_MAX + 1  # of nobody
    parent._take_up(pools(1, 200))
    assert [pool[WANTED] for pool in parent._board.pools[:2]] == [1, 200]
    assert len(crew.workers()) == PROCESSES_MAX
    for post in crew:
        if post.departs:
            parent._bury(post, Exit(post.pid, 0))
    parent.proceed()
    assert [len(crew.staying(pool)) for pool in ("first", "second")] == [1, 200]
    parent._nursery.close()


def test_a_child_that_writes_nonsense_on_the_board_keeps_no_signal_from_the_parent(
    parent: Parent,
) -> None:
    parent._board.slots[1][STATE] = 99
    parent._obey([signal.SIGUSR2, signal.SIGTERM])
    assert parent._board[STOP] == DRAIN


def test_a_reload_for_which_the_system_has_nothing_left_is_refused(parent: Parent) -> None:
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        parent._on_hangup()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    assert parent._board[RELOAD_STATE] == REFUSED
    assert "Too many open files" in parent._board.read_note(PARENT_NOTE)
