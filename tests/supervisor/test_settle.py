"""Settling a dead life: what each kind of death means for each of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.store import Life, Record, Store, open_store
from jobvisor.jobs.store.base import Death
from jobvisor.supervisor.board import VERDICT_CODES, Grave
from jobvisor.supervisor.evidence import Progress, Read, Strange
from jobvisor.supervisor.ledger import Header
from jobvisor.supervisor.settle import (
    death_of,
    overdue,
    recall,
    settle,
    settle_rebooted,
    settle_vanished,
    tell_strange,
)
from tests.clock import MovableClock
from tests.store import making


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    from jobvisor.jobs.events import Events  # noqa: PLC0415

    made = open_store(
        f"sqlite:///{tmp_path}/jobs.db", durable=False, clock=MovableClock(), events=Events()
    )
    yield made
    made.close()


def claimed(store: Store, count: int, **values: object) -> tuple[Life, list[Claimed]]:
    """A life that holds this many jobs."""
    for _ in range(count):
        making.enqueue(store, **values)
    who = making.life()
    turn = store.turn(who, 1, queues=["default"], limit=100, register=True)
    return who, turn.jobs


def grave(status: int, verdict: str = "", named: tuple[int, int] = (0, 0)) -> Grave:
    return Grave(1, 4242, 3, status, *named, VERDICT_CODES[verdict], 0, 0, 0, 1)


def death(status: int, verdict: str = "", named: tuple[int, int] = (5, 1)) -> Death:
    return death_of(grave(status, verdict, named), None, 5, 1, oom=False)


def header(who: Life, current: int = 0) -> Header:
    return Header(who.owner, 1, current, 0, who.pid, 1, 1, 1, "boot", "database", "here")


def end(store: Store, who: Life, current: int, how: Death, *records: Record) -> None:
    settle(store, who, list(records), (current, 1), how, forget=False)


@pytest.mark.parametrize(
    ("found", "outcome", "number", "code"),
    [
        (death(-9), "crash", "SIGKILL", None),
        (death(-11), "crash", "SIGSEGV", None),
        (death(3), "crash", None, 3),
        (death(0), "crash", None, 0),
        (death(-9, "timeout"), "timeout", "SIGKILL", None),
        (death(-9, "memory"), "memory", "SIGKILL", None),
        (death(-9, "cancel"), "cancelled", "SIGKILL", None),
        (death(-9, "timeout", (6, 1)), "stopped", "SIGKILL", None),
        (death(-9, "timeout", (5, 2)), "stopped", "SIGKILL", None),
        (death(-9, "cancel", (6, 1)), "stopped", "SIGKILL", None),
        (death(-9, "stop"), "stopped", "SIGKILL", None),
        (death(-9, "reload"), "stopped", "SIGKILL", None),
        (death(-9, "scale"), "stopped", "SIGKILL", None),
        (death(-9, "force"), "stopped", "SIGKILL", None),
    ],
)
def test_a_death_is_called_by_its_cause_and_its_verdict_only_hits_the_job_it_names(
    found: Death, outcome: str, number: str | None, code: int | None
) -> None:
    assert (found.outcome, found.signal, found.exit_code) == (outcome, number, code)


def test_only_a_kill_is_taken_for_the_work_of_the_oom_killer() -> None:
    assert death_of(grave(-9), None, 5, 1, oom=True).outcome == "oom"
    assert death_of(grave(-11), None, 5, 1, oom=True).outcome == "crash"
    assert death_of(grave(-9, "timeout", (5, 1)), None, 5, 1, oom=True).outcome == "timeout"


def test_the_current_job_is_charged_the_finished_kept_and_the_rest_given_back(
    store: Store,
) -> None:
    who, jobs = claimed(store, 4)
    done = making.record(who, 1, jobs[0])
    end(store, who, jobs[1].id, death(-9), done)
    found = [store.get(job.id) for job in jobs]
    assert [job.state for job in found] == [
        State.SUCCEEDED, State.SCHEDULED, State.PENDING, State.PENDING,
    ]  # fmt: skip
    assert [job.attempt for job in found] == [1, 1, 0, 0]
    assert [a.outcome for a in store.attempts(jobs[1].id)] == ["crash"]
    assert not any(store.attempts(job.id) for job in (jobs[0], jobs[2], jobs[3]))
    assert store.owners(who.family) == []


def test_the_last_attempt_of_the_current_job_fails_it(store: Store) -> None:
    who, (job,) = claimed(store, 1, attempts_max=1)
    end(store, who, job.id, death(-9))
    assert store.get(job.id).state is State.FAILED
    assert "SIGKILL" in (store.get(job.id).error or "")


def test_a_current_job_that_the_journal_has_is_not_charged(store: Store) -> None:
    who, (job,) = claimed(store, 1)
    end(store, who, job.id, death(-9), making.record(who, 1, job))
    assert store.get(job.id).state is State.SUCCEEDED
    assert store.attempts(job.id) == []


def test_a_kill_of_ours_gives_the_current_job_back_with_its_history(store: Store) -> None:
    who, (job,) = claimed(store, 1, attempts_max=1)
    end(store, who, job.id, death(-9, "stop"))
    found = store.get(job.id)
    assert (found.state, found.attempt, found.losses) == (State.PENDING, 0, 0)
    assert [(a.outcome, a.verdict) for a in store.attempts(job.id)] == [("stopped", "stop")]


def test_a_job_that_was_to_be_cancelled_is_cancelled_whatever_killed_it(store: Store) -> None:
    who, jobs = claimed(store, 3)
    for job in jobs:
        assert store.cancel(job.id) == "requested"
    end(store, who, jobs[0].id, death(-9))
    assert {store.get(job.id).state for job in jobs} == {State.CANCELLED}


def test_settling_a_life_twice_changes_nothing_the_second_time(store: Store) -> None:
    who, jobs = claimed(store, 3)
    done = making.record(who, 1, jobs[0])
    end(store, who, jobs[1].id, death(-9), done)
    before = [store.get(job.id) for job in jobs]
    end(store, who, jobs[1].id, death(-9), done)
    assert [store.get(job.id) for job in jobs] == before
    assert len(store.attempts(jobs[1].id)) == 1


def test_settling_late_leaves_alone_what_another_has_claimed_since(store: Store) -> None:
    who, jobs = claimed(store, 2)
    end(store, who, 0, death(-9))
    other = making.life()
    assert len(making.claim(store, other)) == 2
    end(store, who, jobs[0].id, death(-9), making.record(who, 1, jobs[1]))
    assert {store.get(job.id).state for job in jobs} == {State.RUNNING}
    assert {store.get(job.id).owner for job in jobs} == {other.owner}


def test_a_life_without_evidence_gives_all_back_and_the_fourth_loss_fails(store: Store) -> None:
    who, (job,) = claimed(store, 1)
    for losses in (1, 2, 3):
        settle_vanished(store, who)
        found = store.get(job.id)
        assert (found.state, found.attempt, found.losses) == (State.PENDING, 0, losses)
        who = making.life()
        making.claim(store, who)
    settle_vanished(store, who)
    assert store.get(job.id).state is State.FAILED
    assert [a.outcome for a in store.attempts(job.id)] == ["vanished"] * 4


def test_after_a_reboot_records_count_and_the_current_job_is_not_charged(store: Store) -> None:
    who, jobs = claimed(store, 2)
    done = making.record(who, 1, jobs[0])
    settle_rebooted(store, who, Read(header(who, jobs[1].id), [done]), forget=False)
    found = [store.get(job.id) for job in jobs]
    assert [job.state for job in found] == [State.SUCCEEDED, State.PENDING]
    assert [job.losses for job in found] == [0, 1]


def test_a_recall_settles_the_finished_keeps_the_current_and_gives_back_the_rest(
    store: Store,
) -> None:
    who, jobs = claimed(store, 3)
    done = making.record(who, 1, jobs[0])
    applied, released = recall(store, who, Read(header(who, jobs[1].id), [done]), 1, forget=False)
    assert (applied.changed, released) == (1, 1)
    found = [store.get(job.id).state for job in jobs]
    assert found == [State.SUCCEEDED, State.RUNNING, State.PENDING]
    # The long job ends later, under the same claim.
    assert store.apply([making.record(who, 1, jobs[1])], who).changed == 1


def test_a_job_that_began_after_the_look_at_an_overdue_one_is_innocent() -> None:
    who = making.life()
    assert overdue(header(who, 5), 5, None).outcome == "timeout"
    assert overdue(header(who, 6), 5, None).outcome == "stopped"


def test_a_succeeded_row_is_forgotten_where_none_is_kept(store: Store) -> None:
    who, jobs = claimed(store, 2)
    settle(store, who, [making.record(who, 1, jobs[0])], (0, 1), death(-9), forget=True)
    assert [job.id for job in store.find()] == [jobs[1].id]


def test_the_last_progress_of_a_job_is_kept_whatever_ended_its_run(store: Store) -> None:
    who, jobs = claimed(store, 4)
    told = [
        making.record(who, 1, job, verb)._replace(progress=f'{{"done": {job.id}}}')
        for job, verb in zip(jobs, ("succeed", "fail", "retry"), strict=False)
    ]
    last = Progress(jobs[3].id, '{"done": 9}')
    settle(store, who, told, (jobs[3].id, 1), death(-9), forget=False, progress=last)
    found = [store.get(job.id).progress for job in jobs]
    assert found == [*({"done": job.id} for job in jobs[:3]), {"done": 9}]


def test_records_of_an_unknown_kind_are_kept_beside_the_refused(tmp_path: Path) -> None:
    who = making.life()
    found = Read(header(who), [], None, (Strange(1, 7, 2, b"a step"),))
    tell_strange(found, str(tmp_path))
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == [
        {"claim": 1, "job": 7, "kind": 2, "body": "YSBzdGVw", "owner": who.owner}
    ]
    tell_strange(Read(header(who), []), str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
