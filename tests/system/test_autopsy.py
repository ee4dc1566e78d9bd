"""What stands on the attempt of a job that was killed: where it was, for each way to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from jobvisor.supervisor.autopsy.autopsy import ask as ask_life
from jobvisor.supervisor.autopsy.autopsy import living, read_answer
from tests.system.harness import MARK, ROOT, Build, House
from tests.system.stories import NATIVE, NATIVE_TASKS, attempts, command, functions, line_of
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}{NATIVE_TASKS}
import asyncio

@task
def asleep():
    mark("began")
    time.sleep(600)  # task body: the line

def hold(memory):
    time.sleep(600)  # task body

async def waits():
    await asyncio.sleep(600)

@task
async def suspended():
    await waits()  # the line

@task
def large():
    mark("began")
    hold(bytearray(300_000_000))  # the line

@task
def breaks():
    ctypes.string_at(0)  # the line

@task
def quick(n):
    mark("quick", n)

@task
def busy():
    mark("began")
    total = 0
    while not os.path.exists("go"):
        total += sum(n * n for n in range(200))
        time.sleep(0.0001)  # task body
    return total > 0
"""


def stacks(house: House, job: int) -> list[tuple[str, str | None]]:
    return [(attempt.outcome, attempt.stack) for attempt in attempts(house, job)]


def with_line(house: House, job: int, line: str) -> str:
    """The stack of a killed run of this job that names this line, else an empty text."""
    return next((stack for _, stack in stacks(house, job) if stack and line in stack), "")


def verdicts(house: House, jobs: list[int]) -> set[str | None]:
    return {attempt.verdict for attempt in attempts(house, *jobs)}


def test_a_job_that_is_killed_at_its_timeout_leaves_the_line_it_was_in(build: Build) -> None:
    house = build(TASKS, processes=6)
    names = ["asleep", "suspended", *NATIVE]
    # On a busy machine one may not be given the processor in time to answer.
    options = {"timeout": "300ms", "retries": 1_000, "retry": "10ms"}
    jobs = {name: house.enqueue(name, **options) for name in names}
    family = house.start()
    for name, job in jobs.items():
        line = line_of(house, name)
        told = eventually(partial(with_line, house, job, line), what=line)
        assert "execution.py" not in told
        if name == "suspended":
            assert functions(told) == ["suspended", "waits", "sleep"]
        house.client.cancel(job)
    house.wait_finished(jobs.values())
    assert {outcome for job in jobs.values() for outcome in house.history(job)} <= {
        "timeout", "cancelled",
    }  # fmt: skip
    assert house.stop(family) == 0
    assert not list((house.state_dir / "ledger").glob("*.stack"))


@pytest.mark.parametrize("store_kind", ["sqlite", "postgres"], indirect=True)
def test_every_kill_of_ours_leaves_the_stack_of_its_job(build: Build) -> None:
    limits = {"stop_timeout": "400ms", "reload_timeout": "400ms", "cancel_grace": "200ms"}
    house = build(TASKS, processes=2, config={"supervisor": limits})
    family = house.start()
    large = house.enqueue("large", memory="100MB", retries=0)
    cancelled = house.enqueue("asleep", retries=0)
    house.wait_lines("began", 2)
    house.client.cancel(cancelled)
    house.wait_finished([large, cancelled])
    both = [house.enqueue("asleep", retries=0) for _ in range(2)]
    house.wait_lines("began", 4)
    family.send_signal(signal.SIGHUP)
    house.wait_lines("began", 6)
    assert house.stop(family) == 75
    family = house.start()
    house.wait_lines("began", 8)
    assert house.stop(family, signal.SIGQUIT) == 75
    assert [outcome for outcome, _ in stacks(house, large)] == ["memory"]
    assert [outcome for outcome, _ in stacks(house, cancelled)] == ["cancelled"]
    assert verdicts(house, both) == {"reload", "stop", "force"}
    for name, job in [("large", large), ("asleep", cancelled), *(("asleep", job) for job in both)]:
        told = stacks(house, job)
        assert told
        for outcome, stack in told:
            assert line_of(house, name) in (stack or ""), outcome


@pytest.mark.parametrize("concurrency", [1, 4])
def test_who_was_forked_from_a_template_tells_its_stack_as_well(
    build: Build, concurrency: int
) -> None:
    preload = {"tasks": {"modules": ["app"], "preload": True}}
    house = build(TASKS, processes=1, concurrency=concurrency, config=preload)
    family = house.start()
    for name in ("asleep", "without_the_lock"):
        job = house.enqueue(name, retries=1_000, retry="10ms", timeout="300ms")
        eventually(partial(with_line, house, job, line_of(house, name)), what=name)
        house.client.cancel(job)
    broken = house.enqueue("breaks", retries=0)
    house.wait_finished([broken])
    ((_, stack),) = stacks(house, broken)[-1:]
    assert line_of(house, "breaks") in (stack or "")
    assert house.status()["template"]["pid"] in house.children(family.pid)
    house.stop(family)


def test_a_job_that_breaks_its_process_leaves_its_stack_too(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("breaks", retries=0)
    family = house.start()
    house.wait_finished([job])
    ((outcome, stack),) = stacks(house, job)
    assert outcome == "crash"
    assert stack is not None
    assert stack.startswith("Fatal Python error: Segmentation fault\n")
    assert line_of(house, "breaks") in stack
    assert house.stop(family) == 0


def test_the_next_family_finds_the_stack_of_a_job_that_broke_with_its_family(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("asleep", retries=0)
    house.wait_lines("began")
    (worker,) = house.workers()
    house.hang_caretaker()
    family.send_signal(signal.SIGSTOP)
    os.kill(worker, signal.SIGSEGV)
    eventually(lambda: b"Fatal" in stack_file(house), what="it has broken")
    house.kill_family(family)
    family = house.start()
    house.wait_finished([job])
    ((outcome, stack),) = stacks(house, job)
    assert outcome == "crash"
    assert line_of(house, "asleep") in (stack or "")
    assert house.stop(family) == 0


def stack_file(house: House) -> bytes:
    return b"".join(path.read_bytes() for path in (house.state_dir / "ledger").glob("*.stack"))


def test_an_orphan_that_is_killed_at_its_timeout_leaves_its_stack(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("asleep", retries=0, timeout="1s")
    house.wait_lines("began")
    family.kill()
    house.wait_finished([job])
    ((outcome, stack),) = stacks(house, job)
    assert outcome == "timeout"
    assert line_of(house, "asleep") in (stack or "")


def test_a_child_that_hangs_in_its_boot_tells_in_the_log_where_it_was(build: Build) -> None:
    config = {"supervisor": {"boot_timeout": "1s"}}
    house = build(f"{MARK}\nmark('importing')\ngate('imported')\n", processes=1, config=config)
    family = house.start(ready=False)
    eventually(lambda: house.said(", in gate"), what="the stack of the import")
    house.touch("imported")
    house.wait_ready(family)
    assert house.stop(family) == 0


# -- asked while it runs


def ask(house: House, *who: str) -> subprocess.CompletedProcess[str]:
    return command(house, "stack", *who)


def test_a_job_that_runs_can_be_asked_where_it_is_and_goes_on(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("busy")
    house.wait_lines("began")
    (worker,) = house.workers()
    told = ask(house, str(job))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"worker 1 pid {worker}, job {job}:\n")
    assert 'app.py"' in told.stdout
    assert ", in busy" in told.stdout
    caretaker = ask(house, "caretaker")
    assert caretaker.stdout.startswith(f"caretaker pid {house.caretaker()}, no job:\n")
    house.touch("go")
    house.wait_state(job, "succeeded")
    assert house.workers() == [worker]
    assert house.stop(family) == 0


def test_who_sits_in_native_code_or_is_stopped_is_told_of_as_such(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("in_c")
    house.wait_lines("native")
    assert "does not answer: it sits in native code" in ask(house, str(job)).stderr
    (worker,) = house.workers()
    os.kill(worker, signal.SIGSTOP)
    assert "it is stopped" in ask(house, "worker", "1").stderr
    assert "job 77 runs in no worker" in ask(house, "77").stderr
    assert "the processes there: caretaker, worker 1" in ask(house, "worker", "9").stderr
    assert house.stop(family, signal.SIGQUIT) == 75


def has_answered(folder: str, owner: int, before: int) -> bool:
    return read_answer(folder, owner).moment_ns > before


@pytest.mark.parametrize("count", [100, pytest.param(5_000, marks=pytest.mark.soak)])
def test_to_be_asked_again_and_again_harms_no_worker(build: Build, count: int) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    house.enqueue("busy")
    quick = [house.enqueue("quick", n) for n in range(count)]
    workers = sorted(house.workers())
    folder = str(house.state_dir / "ledger")
    lives = [life for life in living(folder) if life.identity.pid in workers]
    for _ in range(count):
        for life in lives:
            before = read_answer(folder, life.owner).moment_ns
            assert ask_life(life)
            eventually(partial(has_answered, folder, life.owner, before), what="an answer")
    house.wait_finished(quick)
    house.touch("go")
    eventually(lambda: len(house.query("SELECT id FROM jobs WHERE state = 'succeeded'")) > count)
    assert sorted(house.workers()) == workers
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert len(stack_file(house)) < 1 << 20
    assert house.stop(family) == 0


# -- what it cost

COSTLY = f"""{MARK}
def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

@task
def costly(fails):
    burn(0.2)
    if fails:
        raise ValueError

@task
def short():
    pass

@task
def large_and_long():
    held = bytearray(150_000_000)
    time.sleep(1.1)  # task body

@task
def small_and_long():
    time.sleep(1.1)  # task body

@task
def killed():
    burn(0.3)
    held = bytearray(150_000_000)
    mark("began")
    time.sleep(600)  # task body
"""


def test_what_a_run_cost_stands_on_its_row_and_on_its_attempt(build: Build) -> None:
    house = build(COSTLY, processes=1)
    family = house.start()
    good, bad = house.enqueue("costly", False), house.enqueue("costly", True, retries=0)
    large, small = house.enqueue("large_and_long"), house.enqueue("small_and_long")
    short, killed = house.enqueue("short"), house.enqueue("killed", retries=0)
    house.wait_lines("began")
    os.kill(house.workers()[0], signal.SIGKILL)
    house.wait_finished([killed])
    found = house.client.get_many([good, bad, large, small, short, killed])
    cpu = {job: each.cpu_ms or 0 for job, each in found.items()}
    rss = {job: each.rss_bytes or 0 for job, each in found.items()}
    assert 200 <= cpu[good] < 300
    assert 200 <= cpu[bad] < 300
    assert cpu[small] < 100
    assert 300 <= cpu[killed] < 600
    assert rss[short] == 0
    assert rss[small] + 100_000_000 < rss[large] < 1 << 30
    assert rss[small] + 100_000_000 < rss[killed] < 1 << 30
    for job in (bad, killed):
        (attempt,) = house.client.attempts(job)
        assert (attempt.cpu_ms, attempt.rss_bytes) == (found[job].cpu_ms, found[job].rss_bytes)
    assert house.stop(family) == 0


# -- what it said

TALK = f"""{MARK}
import logging
log = logging.getLogger("app")

@task
def talks(how):
    for number in range(3000):
        print("line", number)
    log.warning("a warning")
    if how == "copy":
        if os.fork() == 0:
            print("of the copy")
            os._exit(0)
        os.wait()
    mark("said")
    if how == "raise":
        raise ValueError("no")
    if how == "sleep":
        time.sleep(600)  # task body

@task
def quiet():
    raise ValueError("nothing said")

@task(retries=1, retry="10ms")
def step_by_step():
    print("erster", "Schritt ü")
    mark("began")
    gate("second")
    print("zweiter Schritt")
    if not os.path.exists("good"):
        open("good", "w").close()
        os.unlink("second")
        raise ValueError("once more")
"""


def last_said(text: str | None) -> list[str]:
    """The last lines of what a job said, of which 16 KiB are kept."""
    assert text is not None
    assert 15_000 < len(text.encode()) <= 16 << 10
    return text.splitlines()[-2:]


@pytest.mark.parametrize("store_kind", ["sqlite", "postgres"], indirect=True)
def test_the_last_16_kib_that_a_job_said_stand_on_its_attempt_also_after_kill_9(
    build: Build,
) -> None:
    house = build(TALK, processes=1)
    raised = house.enqueue("talks", "raise", retries=0)
    silent = house.enqueue("quiet", retries=0)
    good = house.enqueue("talks", "copy")
    killed = house.enqueue("talks", "sleep", retries=0)
    family = house.start()
    house.wait_lines("said", 3)
    os.kill(house.workers()[0], signal.SIGKILL)
    house.wait_finished([raised, silent, good, killed])
    for job in (raised, killed):
        (attempt,) = house.client.attempts(job)
        assert last_said(attempt.said) == ["line 2999", "WARNING app: a warning"]
    (attempt,) = house.client.attempts(silent)
    assert attempt.said is None
    assert house.client.attempts(good) == []
    assert house.stop(family) == 0


@pytest.mark.parametrize("store_kind", ["sqlite", "postgres"], indirect=True)
def test_with_keep_all_what_a_success_said_is_kept_and_with_none_nothing(build: Build) -> None:
    house = build(TALK, processes=1, config={"log": {"keep": "all"}})
    good, silent = house.enqueue("talks", "copy"), house.enqueue("quiet", retries=0)
    assert house.drain() == 0
    (attempt,) = house.client.attempts(good)
    assert (attempt.outcome, attempt.attempt) == ("succeeded", 1)
    assert last_said(attempt.said) == ["line 2999", "WARNING app: a warning"]
    assert house.client.attempts(silent)[0].said is None
    house.configure({"log": {"keep": "none"}}, processes=1)
    raised, good = house.enqueue("talks", "raise", retries=0), house.enqueue("talks", "copy")
    assert house.drain() == 0
    assert [attempt.said for attempt in house.client.attempts(raised)] == [None]
    assert house.client.attempts(good) == []


def test_logs_shows_the_past_runs_of_a_job_and_follows_the_one_that_goes_on(build: Build) -> None:
    house = build(TALK, processes=1)
    family = house.start()
    job = house.enqueue("step_by_step")
    house.wait_lines("began")
    now = command(house, "logs", str(job))
    assert now.stdout == "erster Schritt ü\n"
    assert "attempt 1: running in worker 1" in now.stderr
    house.touch("second")
    house.wait_lines("began", 2)
    past = json.loads(command(house, "logs", str(job), "--json").stdout)
    assert [(run["outcome"], run["said"]) for run in past] == [
        ("error", "erster Schritt ü\nzweiter Schritt\n"), ("running", "erster Schritt ü\n"),
    ]  # fmt: skip
    follower = subprocess.Popen(
        [sys.executable, "-m", "jobvisor", "logs", str(job), "-f"],
        cwd=house.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert [follower.stdout.readline() for _ in range(3)] == [
        "erster Schritt ü\n", "zweiter Schritt\n", "erster Schritt ü\n",
    ]  # fmt: skip
    house.touch("second")
    rest, told = follower.communicate(timeout=60)
    assert rest == "zweiter Schritt\n"
    assert told.endswith(f"job {job}: succeeded\n")
    assert house.stop(family) == 0
    silent = command(house, "logs", str(house.enqueue("quiet")))
    assert (silent.stdout, silent.returncode) == ("", 0)
    assert "nothing is kept that job" in silent.stderr
