"""Ledgers that a caretaker finds: settled, waited for, dropped, or kept for another release."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.events import Events
from jobvisor.jobs.identity import Identity, boot_id, pid_namespace
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store, open_store
from jobvisor.supervisor.board import VERDICT_CODES, Board, Grave
from jobvisor.supervisor.deaths.rescue import Rescue
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import read_ledger_of
from jobvisor.supervisor.ledger.ledger import Entry, Header, Ledger, leave_grave
from jobvisor.supervisor.ledger.spares import retire
from jobvisor.supervisor.roster import WORKER
from tests.clock import MovableClock
from tests.store import making

DEAD_AFTER_MS = 30_000


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def store(tmp_path: Path, clock: MovableClock) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path}/jobs.db", durable=False, clock=clock, events=Events())
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "ledger"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def rescue(store: Store, folder: Path, clock: MovableClock) -> Rescue:
    return Rescue(
        store,
        StateDir(str(folder.parent)),
        Board(),
        clock,
        family=99,
        dead_after_ms=DEAD_AFTER_MS,
        forget=False,
        alone=lambda: False,
        go_on=lambda: True,
    )


def test_the_ledger_of_a_dead_life_is_settled_and_becomes_a_spare(
    store: Store, folder: Path, rescue: Rescue, clock: MovableClock
) -> None:
    making.enqueue(store)
    who = making.life()
    (job,) = making.claim(store, who)
    header = Header(who.owner, 4242, 1, 1, 1, "earlier boot", store.database_id(), "here")
    ledger = Ledger(str(folder), header, clock)
    ledger.record(Entry(1, job.id, 1, 1, 0, 5, 0, b"", b'{"done": 3}'))
    ledger.close()
    rescue.scan_ledgers(str(folder))
    assert (store.get(job.id).state, store.get(job.id).progress) == (State.SUCCEEDED, {"done": 3})
    assert os.listdir(folder) == [f"spare-{who.owner}.3"]


@pytest.mark.parametrize("name", ["11.3", "11.2", "11", "11.7"])
def test_what_this_release_cannot_read_is_kept_and_said_once(
    folder: Path, rescue: Rescue, caplog: pytest.LogCaptureFixture, clock: MovableClock, name: str
) -> None:
    path = folder / name
    path.write_bytes(b"of a later release" * 100)
    with caplog.at_level(logging.WARNING, logger="jobvisor"):
        for _ in range(3):
            clock.move(DEAD_AFTER_MS * 2)
            rescue.scan_ledgers(str(folder))
    assert os.listdir(folder) == [name]
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("content", [b"", bytes(1024)])
def test_a_file_that_no_life_begins_is_dropped_in_time_and_never_a_spare(
    folder: Path, rescue: Rescue, clock: MovableClock, content: bytes
) -> None:
    path = folder / "11.3"
    path.write_bytes(content)
    written_ms = os.stat(path).st_ctime_ns // 1_000_000
    clock.move(written_ms - clock.now_ms() + DEAD_AFTER_MS - 1)
    rescue.scan_ledgers(str(folder))
    assert os.listdir(folder) == ["11.3"]
    clock.move(2)
    rescue.scan_ledgers(str(folder))
    assert os.listdir(folder) == []


ME = Identity.mine()


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (" ".join(map(str, ME)), [True, True]),
        (" ".join(map(str, ME._replace(start_ticks=1))), [False, False]),
        (" ".join(map(str, ME._replace(pid_namespace=1))), [True, False]),
        ("nobody", [True, False]),
    ],
    ids=["of the living", "of a dead process", "of a stranger", "of nobody"],
)
def test_a_stack_file_without_a_ledger_stays_as_long_as_somebody_may_be_asked(
    folder: Path, rescue: Rescue, clock: MovableClock, head: str, stays: list[bool]
) -> None:
    path = folder / "11.stack"
    path.write_text(f"@life {head} caretaker\n")
    clock.move(os.stat(path).st_ctime_ns // 1_000_000 - clock.now_ms())
    found = []
    for later in (0, DEAD_AFTER_MS + 1):
        clock.move(later)
        rescue.scan_ledgers(str(folder))
        found.append(path.exists())
    assert found == stays


def test_a_death_that_its_family_left_unsettled_is_told_as_its_parent_saw_it(
    store: Store, folder: Path, rescue: Rescue, clock: MovableClock
) -> None:
    making.enqueue(store, attempts_max=1)
    who = making.life()
    (job,) = making.claim(store, who)
    header = Header(who.owner, 4242, 1, pid_namespace(), 1, boot_id(), store.database_id(), "here")
    ledger = Ledger(str(folder), header, clock)
    ledger.sheets[0].claimed(1)
    ledger.sheets[0].publish(job.id, 0)
    ledger.close()
    stopped = Grave(
        who.owner, 4242, 1, -9, 0, 0, VERDICT_CODES["stop"], 0, job.id, 1, WORKER.number
    )
    leave_grave(str(folder), stopped)
    rescue.scan_ledgers(str(folder))
    found = store.get(job.id)
    assert (found.state, found.attempt) == (State.PENDING, 0)
    (attempt,) = store.attempts(job.id)
    assert (attempt.outcome, attempt.signal, attempt.verdict) == ("stopped", "SIGKILL", "stop")


def test_the_death_of_an_earlier_life_of_a_file_is_not_that_of_the_next_one(
    store: Store, folder: Path, clock: MovableClock
) -> None:
    def life(owner: int) -> Ledger:
        header = Header(owner, 4242, 1, 1, 1, "boot", store.database_id(), "here")
        return Ledger(str(folder), header, clock)

    first = life(11)
    first.close()
    leave_grave(str(folder), Grave(11, 4242, 1, -9, 0, 0, 4, 0, 0, 0, WORKER.number))
    found = read_ledger_of(str(folder), 11)
    assert found is not None
    assert found.grave is not None
    retire(str(folder), first.path)
    life(12).close()
    found = read_ledger_of(str(folder), 12)
    assert found is not None
    assert found.grave is None
