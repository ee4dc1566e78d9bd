"""What stands on the attempts of jobs that were killed in one worker with others: of each what is its own."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from jobvisor.jobs.job import Attempt
from jobvisor.supervisor.autopsy.autopsy import ask as ask_life
from jobvisor.supervisor.autopsy.autopsy import living, read_answer
from tests.system.harness import MARK, Build, House
from tests.system.stories import NATIVE, NATIVE_TASKS, attempts, functions, line_of
from tests.waiting import eventually

pytestmark = pytest.mark.system
BOTH = pytest.mark.stores("sqlite", "postgres")

LANES = 50

TASKS = f"""{MARK}{NATIVE_TASKS}
import asyncio

@task
def asleep(n):
    mark("began", n)
    time.sleep(600)  # task body: the line

async def waits():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            mark("deaf")

@task
async def suspended(n):
    mark("began", n)
    await waits()  # the line

@task
async def gathers(n):
    mark("began", n)
    await asyncio.gather(waits(), waits())  # the line

@task
def gated(n):
    mark("began", n)
    gate("go")  # the line

@task
async def patient(n):
    mark("began", n)
    await asyncio.sleep(600)  # the line

@task
async def blocks(n):
    mark("began", n)
    gate("go")  # the line

def hold(memory):
    time.sleep(600)  # task body

@task
def large(n):
    hold(bytearray(300_000_000))  # the line

@task
def talks(n):
    for number in range(400):
        print(f"line {{number}} of {{n}}")
    mark("began", n)
    time.sleep(600)  # task body: the line

@task
async def atalks(n):
    for number in range(400):
        print(f"line {{number}} of {{n}}")
        await asyncio.sleep(0)
    mark("began", n)
    await asyncio.sleep(600)  # the line

@task
def quick(n):
    sum(each * each for each in range(2_000))

@task
async def aquick(n):
    await asyncio.sleep(0)

@task
def busy():
    mark("began", 0)
    total = 0
    while not os.path.exists("go"):
        total += sum(n * n for n in range(200))
        time.sleep(0.0001)  # task body

@task
async def abusy():
    mark("began", 0)
    while not os.path.exists("go"):
        await asyncio.sleep(0.0001)
"""

SHORT = {"supervisor": {"cancel_grace": "300ms"}}
LONGER = {
    "supervisor": {"cancel_grace": "1s"}
}  # a loop stands still for so long before it is told of


def of_both_kinds(house: House, count: int) -> dict[int, str]:
    """So many jobs that stay, and the task of each."""
    names = ["asleep", "patient"] * count
    return {house.enqueue(name, n): name for n, name in enumerate(names[:count])}


def check_lines(house: House, tasks: dict[int, str]) -> list[Attempt]:
    """Each attempt of these jobs has the stack of its own job, of no other."""
    found = []
    for job, task in tasks.items():
        for attempt in attempts(house, job):
            assert line_of(house, task) in (attempt.stack or ""), (task, attempt)
            others = {each for each in tasks.values() if each != task}
            assert not others & set(functions(attempt.stack or ""))
            found.append(attempt)
    return found


@pytest.mark.parametrize("task", ["asleep", "suspended", "gathers", "without_the_lock"])
def test_who_is_killed_at_its_timeout_and_its_neighbours_leave_each_its_own_stack(
    build: Build, task: str
) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=SHORT)
    others = of_both_kinds(house, 6)
    family = house.start()
    house.wait_lines("began", 6)
    arguments = [] if task in NATIVE else [9]
    late = house.enqueue(task, *arguments, timeout="300ms", retries=0)
    house.wait_state(late, "failed")
    (attempt,) = attempts(house, late)
    assert attempt.verdict == "timeout"
    names = functions(attempt.stack or "")
    expected = {
        "asleep": ["asleep"],
        "suspended": ["suspended", "waits", "sleep"],
        "gathers": ["gathers", "waits", "sleep", "waits", "sleep"],
        "without_the_lock": ["without_the_lock", "lock_twice"],
    }
    assert names[: len(expected[task])] == expected[task]
    eventually(lambda: len(attempts(house, *others)) == 6, what="the others went back")
    assert {each.outcome for each in check_lines(house, others)} == {"stopped"}
    assert house.stop(family, signal.SIGQUIT) == 75


@pytest.mark.parametrize("task", ["with_the_lock", "in_a_regex", "in_c"])
def test_who_holds_the_interpreter_is_killed_with_its_line_and_costs_nobody_an_attempt(
    build: Build, task: str
) -> None:
    house = build(TASKS, processes=1, concurrency=4, config=SHORT)
    others = [house.enqueue("gated", n) for n in range(3)]
    family = house.start()
    house.wait_lines("began", 3)
    holds = house.enqueue(task, timeout="1500ms", retries=0)
    eventually(lambda: attempts(house, holds), what="it is killed")
    house.touch("go")
    house.wait_finished([holds, *others])
    assert house.history(holds)[-1] == "timeout"
    assert house.query("SELECT DISTINCT attempt FROM jobs") == [(1,)]
    for attempt in attempts(house, holds):
        assert line_of(house, task) in (attempt.stack or "")
    for job in others:  # of them it is read from C as well
        first, *later = attempts(house, job)
        assert line_of(house, "gated") in (first.stack or "")
        # Beside the suspect once more, it may have been held up before it came to that line.
        assert {attempt.outcome for attempt in (first, *later)} == {"stopped"}
    assert house.stop(family) == 0


@BOTH
def test_every_kill_of_ours_leaves_each_of_many_jobs_its_stack(build: Build) -> None:
    limits = {"stop_timeout": "400ms", "reload_timeout": "400ms", "cancel_grace": "200ms"}
    house = build(TASKS, processes=1, concurrency=LANES, config={"supervisor": limits})
    family = house.start()
    large = house.enqueue("large", 1, memory="100MB", retries=0)
    house.wait_finished([large])
    cancelled = house.enqueue("suspended", 2, retries=0)
    tasks = of_both_kinds(house, 20)
    house.wait_lines("began", 21)
    house.client.cancel(cancelled)
    house.wait_finished([cancelled])
    house.wait_lines("began", 41)
    family.send_signal(signal.SIGHUP)
    house.wait_lines("began", 61)
    assert house.stop(family) == 75
    family = house.start()
    house.wait_lines("began", 81)
    assert house.stop(family, signal.SIGQUIT) == 75
    told = check_lines(house, {large: "large", cancelled: "suspended", **tasks})
    assert {each.verdict for each in told} == {"memory", "cancel", "reload", "stop", "force"}
    assert len(told) == 2 + 4 * 20


def test_a_worker_that_is_stopped_is_killed_all_the_same_and_nobody_pays(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=SHORT)
    others = [house.enqueue("gated", n) for n in range(3)]
    late = house.enqueue("asleep", 3, timeout="2s", retries=0)
    family = house.start()
    house.wait_lines("began", 4)
    os.kill(house.workers()[0], signal.SIGSTOP)
    eventually(lambda: len(attempts(house, late, *others)) == 4, what="all went back")
    assert {each.outcome for each in attempts(house, late, *others)} == {"stopped"}
    house.touch("go")
    house.wait_finished([late, *others])
    assert house.history(late)[-1] == "timeout"
    assert house.query("SELECT DISTINCT attempt FROM jobs") == [(1,)]
    assert house.stop(family) == 0


# -- a loop that stands still


def patients(house: House, count: int, **options: str) -> list[int]:
    """Jobs that wait on the loop, and have begun."""
    before = len(house.lines("began"))
    jobs = [house.enqueue("patient", n, retries=0, **options) for n in range(count)]
    house.wait_lines("began", before + count)
    return jobs


@BOTH
def test_who_blocks_the_loop_past_its_own_timeout_is_charged_and_nobody_else(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=LONGER)
    family = house.start()
    others = patients(house, 3, timeout="2s")
    blocks = house.enqueue("blocks", 9, timeout="600ms", retries=0)
    house.wait_finished([blocks, *others])
    (attempt,) = attempts(house, blocks)
    assert (attempt.outcome, attempt.verdict) == ("timeout", "timeout")
    assert line_of(house, "blocks") in (attempt.stack or "")
    assert [house.history(job) for job in others] == [["stopped", "timeout"]] * 3
    assert house.query("SELECT DISTINCT attempt FROM jobs") == [(1,)]
    assert house.stop(family) == 0


def test_who_blocks_the_loop_in_its_time_runs_alone_from_then_on_and_is_not_charged(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=LONGER)
    family = house.start()
    late, free = patients(house, 3, timeout="2s"), patients(house, 1)
    blocks = house.enqueue("blocks", 9)
    eventually(lambda: attempts(house, blocks), what="its process is killed")
    told = attempts(house, *late, *free, blocks)
    assert {each.outcome for each in told} == {"stopped"}
    said = (
        f"job {blocks} kept the event loop of its worker waiting, which was killed (timeout of job"
    )
    assert [each.message for each in told if said not in (each.message or "")] == []
    assert house.query("SELECT id FROM jobs WHERE company IS NOT NULL") == [(blocks,)]
    house.touch("go")
    house.wait_finished([blocks, *late])
    assert [house.history(job) for job in late] == [["stopped", "timeout"]] * 3
    assert house.query("SELECT DISTINCT attempt FROM jobs") == [(1,)]
    assert house.stop(family, signal.SIGQUIT) == 75


def test_a_thread_beside_a_blocked_loop_has_its_turn_and_pays_for_its_timeout(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=LONGER)
    blocks = house.enqueue("blocks", 9)
    family = house.start()
    house.wait_lines("began", 1)
    eventually(lambda: house.said("kept the event loop waiting"), what="it is logged")
    late = house.enqueue("asleep", 1, timeout="100ms", retries=0)
    house.wait_state(late, "failed")
    (attempt,) = attempts(house, late)
    assert (attempt.outcome, attempt.verdict) == ("timeout", "timeout")
    assert house.query(f"SELECT company FROM jobs WHERE id = {blocks}") == [(None,)]
    assert house.stop(family, signal.SIGQUIT) == 75


# -- what each said


@BOTH
def test_what_each_of_many_jobs_said_last_stands_on_its_own_attempt_after_kill_9(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    jobs = [house.enqueue("atalks" if n % 2 else "talks", n, retries=0) for n in range(20)]
    family = house.start()
    house.wait_lines("began", 20)
    os.kill(house.workers()[0], signal.SIGKILL)
    eventually(lambda: len(attempts(house, *jobs)) == 20, what="all went back")
    for n, job in enumerate(jobs):
        said = attempts(house, job)[0].said or ""
        assert 3_900 < len(said.encode()) <= 4 << 10
        _, *lines = said.splitlines()  # of the first one the end
        assert lines == [f"line {number} of {n}" for number in range(400 - len(lines), 400)]
    assert house.stop(family, signal.SIGQUIT) == 75


# -- asked while they run


def has_answered(folder: str, owner: int, before: int) -> bool:
    return read_answer(folder, owner).moment_ns > before


@pytest.mark.parametrize("count", [100, pytest.param(5_000, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
def test_to_be_asked_again_and_again_harms_no_worker_with_many_jobs(
    build: Build, count: int
) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    family = house.start()
    stay = [house.enqueue("abusy" if n % 2 else "busy") for n in range(10)]
    calls = [house.client.call(f"app:{'a' * (n % 2)}quick", n) for n in range(10 * count)]
    quick = house.client.enqueue_many(calls)
    house.wait_lines("began", 10)
    workers = house.workers()
    folder = str(house.state_dir / "ledger")
    (life,) = [life for life in living(folder) if life.identity.pid in workers]
    for _ in range(count):
        before = read_answer(folder, life.owner).moment_ns
        assert ask_life(life)
        eventually(partial(has_answered, folder, life.owner, before), what="an answer")
        told = {each.job for each in read_answer(folder, life.owner).stacks}
        assert set(stay) <= told
    house.wait_finished(quick, limit=600)
    house.touch("go")
    house.wait_finished(stay)
    assert house.workers() == workers
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert house.stop(family) == 0
