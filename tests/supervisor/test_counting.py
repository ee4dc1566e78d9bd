"""Counters in shared memory: written by one process each, read by any, and there when the writer is dead."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from jobvisor.jobs.events import Event
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import SUCCEEDED, VERB_CODES
from jobvisor.supervisor.board import (
    BOOTING,
    GOING,
    IDLE,
    LEAVE,
    LEAVING_CODES,
    LEAVINGS,
    ROLE,
    SLOTS,
    STATE,
    VERDICT,
    VERDICT_CODES,
    VERDICTS,
    Board,
)
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.counting.counters import Counters
from jobvisor.supervisor.counting.layout import (
    CAUSES,
    CLAIMED,
    CPU_NS,
    DEATH_CAUSES,
    DEATHS_AT,
    ENDS_AT,
    ERRORS,
    LOST,
    OUTCOMES,
    OUTCOMES_AT,
    PAIR_WORDS,
    PAIRS_MAX,
    RECALLED,
    RECALLS,
    RESCUE_BOUNDS_MS,
    RESCUE_MS,
    RESCUES_AT,
    ROLES_MAX,
    RUN_BOUNDS_NS,
    RUN_NS,
    RUNS_AT,
    TURN_BOUNDS,
    TURNS,
    TURNS_AT,
    USED,
    WAIT_BOUNDS_MS,
    WAIT_MS,
    WAITS_AT,
)
from jobvisor.supervisor.counting.restarts import Restarts, cause_of
from jobvisor.supervisor.counting.tally import Tally
from jobvisor.supervisor.counting.totals import OTHERS, Reader, Words
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.roster import CARETAKER, ROSTER, WORKER

MS = 1_000_000


def job(number: int = 1, task: str = "app:run", queue: str = "default", **told: Any) -> Claimed:
    row = Claimed(number, task, "[]", "{}", 1, 4, 1, None, 0, 0, None, queue, 0, waited_ms=0)
    return row._replace(**told)


def ended(verb: str = "succeed", took_ns: int = 0, cpu_ms: int = -1, claim: int = 1) -> Entry:
    return Entry(
        claim, 1, 1, VERB_CODES[verb], 0, took_ns // MS, 0, b"", cpu_ms=cpu_ms, took_ns=took_ns
    )


def tallied(counters: Counters, place: int = 1, owner: int = 17, **more: Any) -> Tally:
    return Tally(counters.block(place), owner, **more)


def buckets(words: Words, at: int, bounds: Sequence[int]) -> list[int]:
    return words[at : at + len(bounds) + 1]


@pytest.fixture
def counters() -> Counters:
    return Counters(SLOTS)


def test_a_row_has_room_for_all_that_is_counted_of_a_pair() -> None:
    assert max(RUN_NS, WAIT_MS, CPU_NS) < PAIR_WORDS
    assert RESCUES_AT + len(RESCUE_BOUNDS_MS) < ENDS_AT
    assert [VERB_CODES[v] for v in ("succeed", "retry", "snooze", "fail", "release", "cancel")] == [
        1 + OUTCOMES.index(each)
        for each in ("succeeded", "retried", "snoozed", "failed", "released", "cancelled")
    ]


def test_every_word_of_the_board_for_an_end_is_a_cause_that_is_counted() -> None:
    assert {*VERDICTS[1:], *LEAVINGS[1:]} <= set(CAUSES)
    assert max(ROSTER) < ROLES_MAX


def test_runs_are_counted_by_task_queue_and_outcome(counters: Counters) -> None:
    tally = tallied(counters)
    runs = [("a", "q", "succeed"), ("a", "q", "succeed"), ("a", "r", "fail"), ("b", "q", "retry")]
    note = tally.noting(lambda *_: None)
    for task, queue, verb in runs:
        note(job(task=task, queue=queue), ended(verb), SUCCEEDED)
    tally.count_noted(1)
    pairs = Reader(counters).read().pairs
    told = {
        (*pair, OUTCOMES[n]): words[OUTCOMES_AT + n]
        for pair, words in pairs.items()
        for n in range(len(OUTCOMES))
        if words[OUTCOMES_AT + n]
    }
    assert told == {
        ("a", "q", "succeeded"): 2, ("a", "r", "failed"): 1, ("b", "q", "retried"): 1,
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 40])
def test_each_run_is_in_the_bucket_of_its_time_and_the_sum_is_exact(
    counters: Counters, count: int
) -> None:
    tally = tallied(counters)
    times = [0, *RUN_BOUNDS_NS, *(bound + 1 for bound in RUN_BOUNDS_NS)][:count]
    tally.count_runs([(job(), ended(took_ns=took, cpu_ms=0)) for took in times])
    words = Reader(counters).read().pairs["app:run", "default"]
    expected = [0] * (len(RUN_BOUNDS_NS) + 1)
    for took in times:
        expected[sum(took > bound for bound in RUN_BOUNDS_NS)] += 1
    assert buckets(words, RUNS_AT, RUN_BOUNDS_NS) == expected
    assert words[RUN_NS] == sum(times)


def test_cpu_time_is_what_was_measured_and_of_short_runs_all_of_their_time(
    counters: Counters,
) -> None:
    entries = [
        ended(took_ns=300_000, cpu_ms=0),
        ended(took_ns=9 * MS, cpu_ms=4),
        ended(took_ns=8 * MS),
    ]
    tallied(counters).count_runs([(job(), entry) for entry in entries])
    assert Reader(counters).read().pairs["app:run", "default"][CPU_NS] == 4_300_000


def test_a_turn_tells_how_many_it_claimed_and_how_long_each_had_waited(counters: Counters) -> None:
    tally = tallied(counters)
    tally.turned([], 0)
    tally.turned([job(waited_ms=ms) for ms in (0, 60, 10**9)], 2)
    tally.turned([job(queue="mail", waited_ms=-5)], 0)  # a clock that was set back
    totals = Reader(counters).read()
    assert [totals.head[word] for word in (TURNS, CLAIMED, LOST)] == [3, 4, 2]
    assert buckets(totals.head, TURNS_AT, TURN_BOUNDS)[:3] == [1, 0, 1]
    words = totals.pairs["app:run", "default"]
    waits = buckets(words, WAITS_AT, WAIT_BOUNDS_MS)
    assert (waits[0], waits[2], waits[-1], sum(waits), words[WAIT_MS]) == (1, 1, 1, 3, 10**9 + 60)
    assert totals.pairs["app:run", "mail"][WAITS_AT] == 1


def test_of_a_large_claim_the_waits_that_are_told_stand_for_the_others(counters: Counters) -> None:
    jobs = [job(number, waited_ms=None if number % 8 else 700) for number in range(100)]
    tallied(counters).turned(jobs, 0)
    words = Reader(counters).read().pairs["app:run", "default"]
    assert sum(buckets(words, WAITS_AT, WAIT_BOUNDS_MS)) == 100
    assert words[WAIT_MS] == 70_000


def test_a_store_that_tells_no_waits_is_counted_without_them(counters: Counters) -> None:
    tallied(counters).turned([job(waited_ms=None)], 0)
    totals = Reader(counters).read()
    assert (totals.head[CLAIMED], totals.pairs) == (1, {})


def test_what_ended_while_it_was_counted_is_counted_the_next_time(counters: Counters) -> None:
    tally = tallied(counters)
    note = tally.noting(lambda *_: None)
    for total in (1, 2, 3):
        note(job(), ended(), SUCCEEDED)
        tally.count_noted(1)
        tally.count_noted(1)
        assert Reader(counters).read().pairs["app:run", "default"][OUTCOMES_AT] == total


def claimed(tasks: str) -> list[Claimed]:
    return [job(number, task=task) for number, task in enumerate(tasks, 1)]


def outcomes(counters: Counters) -> dict[str, int]:
    pairs = Reader(counters).read().pairs
    return {task: words[OUTCOMES_AT] for (task, _), words in pairs.items() if words[OUTCOMES_AT]}


@pytest.mark.parametrize("tasks", ["aaaa", "abab", "a"])
def test_the_runs_of_a_claim_are_those_of_its_jobs_in_their_order(
    counters: Counters, tasks: str
) -> None:
    tally = tallied(counters)
    tally.turned(claimed(tasks), 0)
    entries = [ended()._replace(job=number) for number in range(1, len(tasks) + 1)]
    tally.count_claimed(entries[:1], 1)  # a full journal is settled in the middle of a claim
    tally.count_claimed(entries[1:], 1)
    assert outcomes(counters) == {task: tasks.count(task) for task in tasks}


def test_a_run_that_no_ledger_has_is_counted_by_itself_and_no_other_for_it(
    counters: Counters,
) -> None:
    jobs = claimed("abca")
    tally = tallied(counters)
    tally.turned(jobs, 0)
    tally.count_runs([(jobs[1], ended())])
    tally.count_claimed([ended()._replace(job=number) for number in (1, 3, 4)], 1)
    assert outcomes(counters) == {"a": 2, "b": 1, "c": 1}


def test_what_was_withdrawn_of_a_claim_is_not_counted(counters: Counters) -> None:
    tally = tallied(counters)
    tally.turned(claimed("abc"), 0)
    tally.count_claimed([ended()._replace(job=1)], 1)
    tally.turned(claimed("ab"), 0)
    tally.count_claimed([ended()._replace(job=number) for number in (1, 2)], 2)
    assert outcomes(counters) == {"a": 2, "b": 1}


def test_of_more_pairs_than_there_is_room_for_the_later_ones_are_one(counters: Counters) -> None:
    for place in (1, 2):
        tally = tallied(counters, place)
        for number in range(10_000):
            tally.count_runs([(job(task=f"app:{number * place}"), ended())])
    totals = Reader(counters).read()
    assert len(totals.pairs) == PAIRS_MAX + 1
    assert sum(words[OUTCOMES_AT] for words in totals.pairs.values()) == 20_000
    assert totals.pairs[OTHERS][OUTCOMES_AT] > 18_000


def test_a_pair_keeps_its_name_when_others_come(counters: Counters) -> None:
    reader = Reader(counters)
    first = tallied(counters, 5)
    for number in range(PAIRS_MAX):
        first.count_runs([(job(task=f"first:{number}"), ended())])
    before = set(reader.read().pairs)
    tally = tallied(counters, 1)
    for number in range(PAIRS_MAX):
        tally.count_runs([(job(task=f"second:{number}"), ended())])
    after = reader.read().pairs
    assert set(after) == before | {OTHERS}
    assert after[OTHERS][OUTCOMES_AT] == PAIRS_MAX


def test_a_task_that_no_module_has_is_not_counted_by_its_name(counters: Counters) -> None:
    tally = tallied(counters, knows={"app:run": 1}.get)
    tally.count_runs([(job(task="app:run"), ended()), (job(task="mistyped"), ended("snooze"))])
    assert set(Reader(counters).read().pairs) == {("app:run", "default"), OTHERS}


@pytest.mark.parametrize("name", ["x" * 400, "ä" * 400, "\0", "a\nb", '"', "\ud800"])
def test_any_name_that_a_row_may_hold_is_counted(counters: Counters, name: str) -> None:
    tally = tallied(counters)
    tally.count_runs([(job(task=name), ended()), (job(task="after"), ended())])
    totals = Reader(counters).read()
    shown = name.encode(errors="replace").decode()
    assert totals.pairs[shown, "default"][OUTCOMES_AT] == 1
    assert totals.pairs["after", "default"][OUTCOMES_AT] == 1


def test_a_new_life_in_the_same_place_goes_on_from_what_the_dead_one_had_counted(
    counters: Counters,
) -> None:
    tallied(counters, owner=17).count_runs([(job(task="a"), ended()), (job(task="b"), ended())])
    tallied(counters, owner=18).count_runs([(job(task="b"), ended()), (job(task="c"), ended())])
    pairs = Reader(counters).read().pairs
    assert {task: words[OUTCOMES_AT] for (task, _), words in pairs.items()} == {
        "a": 1,
        "b": 2,
        "c": 1,
    }


def test_whoever_settles_a_life_knows_up_to_which_claim_it_had_counted(counters: Counters) -> None:
    assert counters.counted(1, 17) == 0
    tallied(counters, owner=17).count_claimed([], 4)
    assert counters.counted(1, 17) == 4
    tallied(counters, owner=18).count_claimed([], 2)
    assert (counters.counted(1, 17), counters.counted(1, 18)) == (4, 2)
    assert (
        counters.counted(1, 99) > 10**18
    )  # of a life that is long gone nothing is counted any more


def test_numbers_never_go_down_while_their_writer_is_killed_again_and_again(
    counters: Counters,
) -> None:
    """A writer in a process of its own, killed at any moment; each next one goes on in its place."""
    reader, seen, timed = Reader(counters), 0, 0
    for life in range(8):
        pid = os.fork()
        if not pid:
            tally = tallied(counters, owner=life + 1)
            for number in range(10**9):
                some = [(job(task=f"app:{(number + each) % 7}"), ended()) for each in range(20)]
                tally.count_runs(some)
                tally.turned([each for each, _ in some], 0)
        goal = seen + 200
        while seen < goal:
            totals = reader.read()
            told = sum(words[OUTCOMES_AT] for words in totals.pairs.values())
            runs = sum(sum(buckets(w, RUNS_AT, RUN_BOUNDS_NS)) for w in totals.pairs.values())
            # Each for itself: what is read while it is written may be older in one word than in the next.
            assert told >= seen
            assert runs >= timed
            seen, timed = told, runs
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(reader.read().pairs) == 7


def test_a_death_is_counted_with_what_it_meant_for_the_job(counters: Counters) -> None:
    tally = tallied(counters)
    for verb, kind in (
        ("rescue", "crash"),
        ("fail", "oom"),
        ("release", "stopped"),
        ("fail", "error"),
    ):
        tally.hear(Event(verb, 1, "app:run", "default", 1, 4, kind=kind))
    words = Reader(counters).read().pairs["app:run", "default"]
    deaths = dict(zip(DEATH_CAUSES, words[DEATHS_AT:], strict=False))
    assert {cause: n for cause, n in deaths.items() if n} == {"crash": 1, "oom": 1, "stopped": 1}
    assert words[OUTCOMES_AT : OUTCOMES_AT + 6] == [0, 1, 0, 1, 1, 0]  # retried, failed, released


def test_errors_recalls_and_rescues_are_counted(counters: Counters) -> None:
    tally = tallied(counters)
    tally.failed()
    tally.recalled(3)
    tally.rescued(20)
    head = Reader(counters).read().head
    assert [head[word] for word in (ERRORS, RECALLS, RECALLED, RESCUE_MS)] == [1, 1, 3, 20]
    assert buckets(head, RESCUES_AT, RESCUE_BOUNDS_MS)[1] == 1


@pytest.mark.parametrize(
    ("words", "status", "cause"),
    [
        ({VERDICT: VERDICT_CODES["memory"] | 64, STATE: IDLE}, -9, "memory"),
        ({STATE: IDLE}, -11, "signal"),
        ({STATE: IDLE}, 70, "error"),
        ({STATE: BOOTING}, 78, "boot"),
        ({STATE: IDLE, LEAVE: LEAVING_CODES["reload"]}, 0, "reload"),
        ({STATE: IDLE, GOING: LEAVING_CODES["dirty"]}, 0, "dirty"),
        ({STATE: IDLE}, 0, "finished"),
    ],
)
def test_a_restart_has_a_cause(
    counters: Counters, words: dict[Any, int], status: int, cause: str
) -> None:
    slot = Board().slots[3]
    for word, value in {**words, ROLE: WORKER.number}.items():
        slot[word] = value
    assert cause_of(slot, Exit(1, status)) == cause
    Restarts(counters.parents()).note(slot, Exit(1, status))
    head = Reader(counters).read().head
    assert head[ENDS_AT + WORKER.number * len(CAUSES) + CAUSES.index(cause)] == 1
    assert head[ENDS_AT + CARETAKER.number * len(CAUSES) + CAUSES.index(cause)] == 0


def test_a_name_that_a_killed_life_had_not_counted_moves_no_other(counters: Counters) -> None:
    block = counters.block(1)
    block.enter(("a:first", "q"))
    block.enter(("a:dead", "q"))
    block.words[USED] -= 1  # as if it had been killed before it said so
    assert block.enter(("b:other", "r")) == 2
    assert block.pairs() == [("a:first", "q"), ("b:other", "r")]
