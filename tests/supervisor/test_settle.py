"""Settling a dead life: what each kind of death means for each of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.store import Life, Record, Store, open_store
from jobvisor.jobs.store.base import Death, Held
from jobvisor.supervisor.board import (
    BLOCKS_LOOP,
    IN_THREAD,
    LOOP_STOOD_STILL,
    ON_LOOP,
    STOOD_STILL,
    VERDICT_CODES,
    Grave,
    Running,
)
from jobvisor.supervisor.deaths.guilt import (
    Cause,
    death_of,
    examined,
    given_back,
    judged,
    overdue,
    seen,
    unseen,
)
from jobvisor.supervisor.deaths.settle import (
    Settled,
    recall,
    settle,
    settle_rebooted,
    settle_vanished,
    tell_strange,
)
from jobvisor.supervisor.ledger.evidence import Read, Strange
from jobvisor.supervisor.ledger.ledger import Header
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


HELD = Held(1, 4, None, 1, 30_000, 64 << 20)


def jobs_of(store: Store, count: int, **values: object) -> tuple[Life, list[Claimed]]:
    """A life that holds this many jobs."""
    for _ in range(count):
        making.enqueue(store, **values)
    who = making.life()
    turn = store.turn(who, 1, queues=["default"], limit=100, register=True)
    return who, turn.jobs


def grave(status: int, verdict: str = "", named: tuple[int, int] = (0, 0)) -> Grave:
    return Grave(1, 4242, 3, status, *named, VERDICT_CODES[verdict], 0, 0, 0, 1)


def cause(status: int, verdict: str = "", named: tuple[int, int] = (0, 0)) -> Cause:
    return seen(grave(status, verdict, named), oom=False)


def death(
    status: int, verdict: str = "", named: tuple[int, int] = (5, 1), *, oom: bool = False
) -> Death:
    """What it means for job 5 of claim 1, which ran alone."""
    found = seen(grave(status, verdict, named), oom=oom)
    (told,) = judged([Running(5, 1)], found)
    return death_of(found, HELD) if told.pays else given_back(found, 1)


def header(who: Life) -> Header:
    return Header(who.owner, who.pid, 1, 1, 1, "boot", "database", "here")


def end(store: Store, who: Life, current: int, how: Cause, *records: Record) -> Settled:
    running = [Running(current, 1)] if current else []
    return settle(store, who, list(records), running, how, forget=False)


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
    assert death(-9, oom=True).outcome == "oom"
    assert death(-11, oom=True).outcome == "crash"
    assert death(-9, "timeout", oom=True).outcome == "timeout"


def test_the_current_job_is_charged_the_finished_kept_and_the_rest_given_back(
    store: Store,
) -> None:
    who, jobs = jobs_of(store, 4)
    done = making.record(who, 1, jobs[0])
    end(store, who, jobs[1].id, cause(-9), done)
    found = [store.get(job.id) for job in jobs]
    assert [job.state for job in found] == [
        State.SUCCEEDED, State.SCHEDULED, State.PENDING, State.PENDING,
    ]  # fmt: skip
    assert [job.attempt for job in found] == [1, 1, 0, 0]
    assert [a.outcome for a in store.attempts(jobs[1].id)] == ["crash"]
    assert not any(store.attempts(job.id) for job in (jobs[0], jobs[2], jobs[3]))
    assert store.owners(who.family) == []


def test_the_last_attempt_of_the_current_job_fails_it(store: Store) -> None:
    who, (job,) = jobs_of(store, 1, attempts_max=1)
    end(store, who, job.id, cause(-9))
    assert store.get(job.id).state is State.FAILED
    assert "SIGKILL" in (store.get(job.id).error or "")


def test_a_current_job_that_the_journal_has_is_not_charged(store: Store) -> None:
    who, (job,) = jobs_of(store, 1)
    end(store, who, job.id, cause(-9), making.record(who, 1, job))
    assert store.get(job.id).state is State.SUCCEEDED
    assert store.attempts(job.id) == []


def test_a_kill_of_ours_gives_the_current_job_back_with_its_history(store: Store) -> None:
    who, (job,) = jobs_of(store, 1, attempts_max=1)
    end(store, who, job.id, cause(-9, "stop"))
    found = store.get(job.id)
    assert (found.state, found.attempt, found.losses) == (State.PENDING, 0, 0)
    assert [(a.outcome, a.verdict) for a in store.attempts(job.id)] == [("stopped", "stop")]


def test_a_job_that_was_to_be_cancelled_is_cancelled_whatever_killed_it(store: Store) -> None:
    who, jobs = jobs_of(store, 3)
    for job in jobs:
        assert store.cancel(job.id) == "requested"
    end(store, who, jobs[0].id, cause(-9))
    assert {store.get(job.id).state for job in jobs} == {State.CANCELLED}


def test_settling_a_life_twice_changes_nothing_the_second_time(store: Store) -> None:
    who, jobs = jobs_of(store, 3)
    done = making.record(who, 1, jobs[0])
    end(store, who, jobs[1].id, cause(-9), done)
    before = [store.get(job.id) for job in jobs]
    end(store, who, jobs[1].id, cause(-9), done)
    assert [store.get(job.id) for job in jobs] == before
    assert len(store.attempts(jobs[1].id)) == 1


def test_settling_late_leaves_alone_what_another_has_claimed_since(store: Store) -> None:
    who, jobs = jobs_of(store, 2)
    end(store, who, 0, cause(-9))
    other = making.life()
    assert len(making.claim(store, other)) == 2
    end(store, who, jobs[0].id, cause(-9), making.record(who, 1, jobs[1]))
    assert {store.get(job.id).state for job in jobs} == {State.RUNNING}
    assert {store.get(job.id).owner for job in jobs} == {other.owner}


def test_a_life_without_evidence_gives_all_back_and_the_fourth_loss_fails(store: Store) -> None:
    who, (job,) = jobs_of(store, 1)
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
    who, jobs = jobs_of(store, 2)
    done = making.record(who, 1, jobs[0])
    settle_rebooted(store, who, Read(header(who), [done], (Running(jobs[1].id, 1),)), forget=False)
    found = [store.get(job.id) for job in jobs]
    assert [job.state for job in found] == [State.SUCCEEDED, State.PENDING]
    assert [job.losses for job in found] == [0, 1]


def test_a_recall_settles_the_finished_keeps_the_current_and_gives_back_the_rest(
    store: Store,
) -> None:
    who, jobs = jobs_of(store, 3)
    done = making.record(who, 1, jobs[0])
    applied, released = recall(
        store, who, Read(header(who), [done], (Running(jobs[1].id, 1),)), 1, forget=False
    )
    assert (applied.changed, released) == (1, 1)
    found = [store.get(job.id).state for job in jobs]
    assert found == [State.SUCCEEDED, State.RUNNING, State.PENDING]
    # The long job ends later, under the same claim.
    assert store.apply([making.record(who, 1, jobs[1])], who).changed == 1


def test_a_job_that_began_after_the_look_at_an_overdue_one_is_innocent() -> None:
    who = making.life()
    found = overdue(header(who), 5, 1)
    assert (found.verdict, found.signal) == ("timeout", "SIGKILL")
    assert judged([Running(5, 1)], found)[0].pays
    assert not judged([Running(6, 1)], found)[0].pays


def test_a_succeeded_row_is_forgotten_where_none_is_kept(store: Store) -> None:
    who, jobs = jobs_of(store, 2)
    settle(store, who, [making.record(who, 1, jobs[0])], [], cause(-9), forget=True)
    assert [job.id for job in store.find()] == [jobs[1].id]


def test_the_last_progress_of_a_job_is_kept_whatever_ended_its_run(store: Store) -> None:
    who, jobs = jobs_of(store, 4)
    told = [
        making.record(who, 1, job, verb)._replace(progress=f'{{"done": {job.id}}}')
        for job, verb in zip(jobs, ("succeed", "fail", "retry"), strict=False)
    ]
    last = Running(jobs[3].id, 1, progress='{"done": 9}')
    settle(store, who, told, [last], cause(-9), forget=False)
    found = [store.get(job.id).progress for job in jobs]
    assert found == [*({"done": job.id} for job in jobs[:3]), {"done": 9}]


def test_records_of_an_unknown_kind_are_kept_beside_the_refused(tmp_path: Path) -> None:
    who = making.life()
    found = Read(header(who), [], (), (Strange(1, 7, 2, b"a step"),))
    tell_strange(found, str(tmp_path))
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == [
        {"claim": 1, "job": 7, "kind": 2, "body": "YSBzdGVw", "owner": who.owner}
    ]
    tell_strange(Read(header(who), []), str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


# -- several lanes


def lanes(jobs: list[Claimed], claim: int = 1) -> list[Running]:
    return [Running(job.id, claim, lane) for lane, job in enumerate(jobs)]


@pytest.mark.parametrize(
    ("how", "pays"),
    [
        (cause(-9), [False, False, False]),
        (cause(3), [False, False, False]),
        (cause(-9, "timeout", (6, 2)), [False, True, False]),
        (cause(-9, "memory", (6, 2)), [False, True, False]),
        (cause(-9, "cancel", (6, 2)), [False, True, False]),
        (cause(-9, "timeout", (6, 1)), [False, False, False]),
        (cause(-9, "stop", (6, 2)), [False, False, False]),
        (cause(-9, "stuck"), [False, False, False]),
    ],
)
def test_in_company_only_whom_a_verdict_names_is_charged(how: Cause, pays: list[bool]) -> None:
    found = judged([Running(5, 2), Running(6, 2), Running(6, 3)], how)
    assert [each.pays for each in found] == pays


def companies(count: int, how: Cause) -> list[int | None]:
    """Of so many jobs that ran, numbered from 1, what the death makes of the company of each."""
    return [
        each.company for each in judged([Running(n, 1, n - 1) for n in range(1, count + 1)], how)
    ]


@pytest.mark.parametrize(
    "how", [cause(-9), cause(3), cause(-11), cause(0), unseen(header(making.life()))]
)
@pytest.mark.parametrize(("count", "company"), [(1, 1), (2, 1), (3, 1), (50, 25), (1000, 500)])
def test_a_death_that_may_be_anybodys_halves_the_company_of_all(
    how: Cause, count: int, company: int
) -> None:
    assert companies(count, how) == [company] * count


def test_whose_thread_a_fatal_signal_struck_is_the_only_suspect_and_not_charged() -> None:
    how = cause(-11)._replace(lane=2)
    assert companies(5, how) == [None, None, 1, None, None]
    assert not any(each.pays for each in judged([Running(n, 1, n) for n in range(5)], how))
    assert companies(2, how) == [1, 1], "in a thread that is no lane's"


def test_whom_a_verdict_charged_in_company_is_a_suspect_and_nobody_else_is() -> None:
    assert companies(4, cause(-9, "timeout", (3, 1))) == [None, None, 1, None]
    assert companies(1, cause(-9, "timeout", (1, 1))) == [None]
    for verdict in ("stop", "reload", "scale", "stuck", "force"):
        assert companies(4, cause(-9, verdict)) == [None] * 4


def test_a_verdict_on_a_process_that_stood_still_charges_nobody_in_company() -> None:
    code = VERDICT_CODES["timeout"] | STOOD_STILL
    how = seen(Grave(1, 4242, 3, -9, 3, 1, code, 0, 0, 0, 1), oom=False)
    assert companies(4, how) == [2] * 4
    assert not any(each.pays for each in judged([Running(n, 1) for n in range(1, 5)], how))
    text = given_back(how, 4).text
    assert text.startswith(
        "its worker stood still and was killed (timeout of job 3) while it ran 4"
    )
    assert death_of(how, HELD).outcome == "timeout", "alone it is charged as ever"
    assert [each.pays for each in judged([Running(3, 1)], how)] == [True]
    forced = how._replace(verdict="force", job=0, claim=0)
    assert companies(4, forced) == [None] * 4


def beside_a_loop_that_stood_still(*places: int, named: int, deadline: int = 0) -> Cause:
    """The cause that four jobs in such places make of the timeout of one of them; all have this deadline."""
    code = VERDICT_CODES["timeout"] | LOOP_STOOD_STILL
    how = seen(Grave(1, 4242, 3, -9, named, 1, code, 0, 0, 0, 1), oom=False)
    ran = [Running(n, 1, n - 1, deadline, place=place) for n, place in enumerate(places, 1)]
    return examined(how, ran, at=1_000)


W, T, B = ON_LOOP, IN_THREAD, BLOCKS_LOOP


@pytest.mark.parametrize(
    ("places", "named", "deadline", "pays", "company"),
    [
        pytest.param((W, W, W, W), 3, 0, 0, [2] * 4, id="nobody knows who kept it"),
        pytest.param((W, T, W, W), 2, 0, 2, [None, 1, None, None], id="one in a thread is late"),
        pytest.param((W, B, W, T), 2, 0, 2, [None, 1, None, None], id="who keeps it is late"),
        pytest.param(
            (W, B, W, T), 3, 0, 0, [None, 1, None, None], id="who keeps it has no timeout"
        ),
        pytest.param((W, B, W, T), 3, 1_001, 0, [None, 1, None, None], id="and one in its time"),
        pytest.param((W, B, W, T), 3, 1_000, 2, [None, 1, None, None], id="and is late as well"),
        pytest.param((0, 0, 0, 0), 3, 0, 0, [2] * 4, id="it did not answer"),
    ],
)
def test_beside_a_loop_that_stood_still_whoever_had_its_turn_is_charged(
    places: tuple[int, ...], named: int, deadline: int, pays: int, company: list[int | None]
) -> None:
    how = beside_a_loop_that_stood_still(*places, named=named, deadline=deadline)
    found = judged([Running(n, 1, n - 1) for n in range(1, 5)], how)
    assert [n for n, each in enumerate(found, 1) if each.pays] == ([pays] if pays else [])
    assert [each.company for each in found] == company


def test_a_job_that_kept_the_loop_waiting_is_named_on_the_attempts_of_all() -> None:
    how = beside_a_loop_that_stood_still(W, B, W, T, named=3)
    assert given_back(how, 4).text == (
        "job 2 kept the event loop of its worker waiting, which was killed (timeout of job 3)"
    )


def test_suspects_of_a_death_are_given_back_marked_and_an_outcome_clears_them(store: Store) -> None:
    who, jobs = jobs_of(store, 5)
    settle(store, who, [], lanes(jobs[:4]), cause(-9), forget=False)
    assert [store.get(job.id).company for job in jobs] == [2, 2, 2, 2, None]
    again = making.life()
    claimed = store.turn(again, 1, queues=["default"], limit=9, register=True).jobs
    done = making.record(again, 1, claimed[0])
    failed = making.record(again, 1, claimed[1], "retry")
    settle(store, again, [done, failed], lanes(claimed[:3]), cause(-9), forget=False)
    assert [store.get(job.id).company for job in jobs] == [None, None, 1, 2, None]
    assert store.get(jobs[2].id).attempt == 1, "it ran alone, and pays"


def test_one_timeout_among_several_jobs_costs_no_neighbour_an_attempt(store: Store) -> None:
    who, jobs = jobs_of(store, 5, timeout_ms=30_000)
    done = making.record(who, 1, jobs[0])
    how = cause(-9, "timeout", (jobs[2].id, 1))
    settled = settle(store, who, [done], lanes(jobs[:4]), how, forget=False)
    found = [store.get(job.id) for job in jobs]
    waits = State.PENDING
    assert [job.state for job in found] == [State.SUCCEEDED, waits, State.SCHEDULED, waits, waits]
    assert [job.attempt for job in found] == [1, 0, 1, 0, 0]
    told = [[(a.outcome, a.verdict) for a in store.attempts(job.id)] for job in jobs]
    stopped = [("stopped", "timeout")]
    assert told == [[], stopped, [("timeout", "timeout")], stopped, []]
    assert settled.foremost is not None
    assert (settled.foremost[0], len(settled.ended)) == (jobs[2].id, 3)


def test_a_death_in_company_that_is_nobodys_fault_says_so(store: Store) -> None:
    who, jobs = jobs_of(store, 3)
    settled = settle(store, who, [], lanes(jobs), cause(-11), forget=False)
    assert settled.foremost is None
    assert {store.get(job.id).attempt for job in jobs} == {0}
    (attempt,) = store.attempts(jobs[1].id)
    assert (attempt.outcome, attempt.signal, attempt.verdict) == ("stopped", "SIGSEGV", None)
    assert "while it ran 3 jobs" in (attempt.message or "")


def test_who_has_recorded_its_end_is_no_company_of_who_has_not(store: Store) -> None:
    who, jobs = jobs_of(store, 2)
    done = making.record(who, 1, jobs[0])
    settled = settle(store, who, [done], lanes(jobs), cause(-11), forget=False)
    assert [store.get(job.id).attempt for job in jobs] == [1, 1]
    assert [a.outcome for a in store.attempts(jobs[1].id)] == ["crash"]
    assert [run.job for run, _ in settled.ended] == [jobs[1].id]


def test_each_job_that_ran_keeps_what_it_said_last(store: Store) -> None:
    who, jobs = jobs_of(store, 2)
    told = [run._replace(progress=f'{{"done": {run.lane}}}') for run in lanes(jobs)]
    settle(store, who, [], told, cause(-9), forget=False)
    assert [store.get(job.id).progress for job in jobs] == [{"done": 0}, {"done": 1}]


def test_a_recall_gives_back_what_has_not_begun_of_all_claims_up_to_the_one_it_names(
    store: Store,
) -> None:
    who = making.life()
    for _ in range(6):
        making.enqueue(store)
    jobs = [job for claim in (1, 2, 3) for job in making.claim(store, who, claim, limit=2)]
    running = (Running(jobs[0].id, 1), Running(jobs[2].id, 2, 1))
    _, released = recall(store, who, Read(header(who), [], running), 2, forget=False)
    assert released == 2
    runs, waits = State.RUNNING, State.PENDING
    assert [store.get(job.id).state for job in jobs] == [runs, waits, runs, waits, runs, runs]
