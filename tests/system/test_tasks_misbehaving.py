"""Tasks that do what no task should: each costs at most its own attempt."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest

from tests.system.harness import MARK, Build, alive
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
import asyncio, ctypes, faulthandler, gc, queue, resource, sqlite3, subprocess, threading

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

@task
def quick(n):
    mark("quick", n)
    return n

class Spiteful(Exception):
    def __str__(self):
        raise RuntimeError("no")
    __repr__ = __str__

def endless():
    endless()

RAISED = {{
    "exit": lambda: sys.exit(),
    "exit 0": lambda: sys.exit(0),
    "exit text": lambda: sys.exit("bye"),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "recursion": endless,
}}

@task
def raising(what):
    mark("runs", what)
    if what in RAISED:
        RAISED[what]()
    raise {{
        "generator": GeneratorExit(), "base": BaseException("base"), "memory": MemoryError(),
        "spiteful": Spiteful(), "cancelled": asyncio.CancelledError(), "nul": ValueError("a\\0b"),
        "surrogate": ValueError("\\ud800"), "huge": ValueError("x" * 5_000_000),
    }}[what]

@task
def dying(how):
    mark("runs", how)
    time.sleep(0.002)  # task body
    if how == "exit 0":
        os._exit(0)
    if how == "exit 3":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    if how == "segfault":
        faulthandler.disable()
        ctypes.string_at(0)
    if how == "bus error":
        signal.raise_signal(signal.SIGBUS)
    if how == "signal to its group":
        os.killpg(0, signal.SIGHUP)

@task
def forking(how):
    if os.fork() == 0:
        if how == "raises":
            raise ValueError("in the copy")
        if how == "exits":
            sys.exit(0)
        return "copy"
    os.wait()
    mark("runs", how)
    return "original"

@task
def dirty(how):
    mark("dirty", os.getpid())
    if how == "handler":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif how == "alarm handler":
        signal.signal(signal.SIGALRM, lambda *_: None)
    elif how == "folder":
        os.chdir("/")
    elif how == "umask":
        os.umask(0)
    elif how == "stdout":
        sys.stdout = open("/dev/null", "w")
    elif how == "recursion":
        sys.setrecursionlimit(5000)
    elif how == "timer":
        signal.setitimer(signal.ITIMER_REAL, 600)
    elif how == "descriptors":
        os.closerange(3, 256)
    elif how == "all descriptors":
        os.closerange(0, 256)
    elif how == "files in their place":
        os.closerange(3, 256)
        for _ in range(60):
            os.open("stolen", os.O_RDWR | os.O_CREAT, 0o600)
    return how

@task
def steal(really, leave):
    if leave:
        os.kill(os.getpid(), signal.SIGTERM)
    if really:
        os.closerange(3, 256)
        for _ in range(60):
            os.open("stolen", os.O_RDWR | os.O_CREAT, 0o600)

class Library:  # starts its thread when it is first used, and keeps it, as Sentry's SDK does
    def __init__(self):
        self.jobs = queue.Queue()
        self.thread = None

    def send(self, item):
        if self.thread is None:
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()
        self.jobs.put(item)

    def work(self):
        while True:
            self.jobs.get()

reports = Library()

@task
def reporting(n):
    reports.send(n)
    if n % 250 == 0:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()

@task
def sometimes(n):
    if n == 50:
        os.chdir("/")
    return [os.getpid(), os.getcwd()]

@task
def where():
    return [os.getpid(), os.getcwd(), os.umask(0o77), sys.getrecursionlimit()]

@task
def returning(what):
    return {{"object": object(), "nan": float("nan"), "lambda": endless, "nul": "a\\0b",
            "cycle": (lambda a: a.append(a) or a)([]),
            "70 KiB": "x" * 70_000, "900 KiB": "x" * 900_000, "2 MiB": "x" * 2_000_000}}[what]

@task
async def asynchronous(n):
    await asyncio.sleep(0.01)
    return n + 1

@task
async def asynchronously_wrong():
    await asyncio.sleep(0)
    raise ValueError("async")

@task
def daemonise():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            mark("daemons", os.getpid())
            time.sleep(600)  # task body
        os._exit(0)
    os.wait()
    return "left one"

@task
def leave_subprocess(die):
    process = subprocess.Popen(["sleep", "600"])
    mark("left", process.pid)
    if die:
        os._exit(1)

@task
def use_database():
    with sqlite3.connect("jobs.db") as connection:
        (count,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
    connection.close()
    for path in ("jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-wake"):
        if os.path.exists(path):
            os.close(os.open(path, os.O_RDWR))
    return count

KEPT = []

@task
def hold_the_lock():
    connection = sqlite3.connect("jobs.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE jobs SET priority = priority")
    KEPT.append(connection)
    mark("held", os.getpid())
    time.sleep(0.005)  # task body

@task
def damaging(how):
    hold_the_lock.function() if how == "lock" else os.closerange(3, 256)
    mark("damaging", how)
    return "x" * 70_000  # more than a ledger takes: it is to be committed at once

@task
def printing(n):
    print("on stdout", n)
    print("on stderr", n, file=sys.stderr)
    sys.stdout.write("no line end")
"""


RAISING = {
    "exit": "SystemExit", "exit 0": "SystemExit", "exit text": "SystemExit",
    "interrupt": "KeyboardInterrupt", "recursion": "RecursionError", "generator": "GeneratorExit",
    "base": "BaseException", "memory": "MemoryError", "spiteful": "app.Spiteful",
    "cancelled": "CancelledError", "nul": "ValueError", "surrogate": "ValueError",
    "huge": "ValueError",
}  # fmt: skip


@pytest.mark.lanes(1, 4)
def test_whatever_a_task_raises_is_a_failure_with_its_name_and_the_worker_lives(
    build: Build,
) -> None:
    house = build(TASKS, processes=1)
    ids = {what: house.enqueue("raising", what, retries=1, retry="0s") for what in RAISING}
    family = house.start()
    (worker,) = house.workers()
    house.wait_finished(ids.values())
    for what, name in RAISING.items():
        assert house.client.get(ids[what]).state == "failed", what
        attempts = house.client.attempts(ids[what])
        assert [attempt.outcome for attempt in attempts] == ["error", "error"], what
        assert all((attempt.error_type or "").endswith(name) for attempt in attempts), what
    assert sorted(house.lines("runs")) == sorted([*RAISING, *RAISING])
    assert house.workers() == [worker]
    assert house.stop(family) == 0


@pytest.mark.parametrize(
    ("how", "exit_code", "number"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("kill", None, "SIGKILL"),
        ("abort", None, "SIGABRT"),
        ("segfault", None, "SIGSEGV"),
        ("bus error", None, "SIGBUS"),
        ("signal to its group", None, "SIGHUP"),
    ],
)
def test_a_death_costs_the_job_its_attempt_and_says_how(
    build: Build, how: str, exit_code: int | None, number: str | None
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("dying", how, retries=1, retry="0s")
    others = [house.enqueue("quick", n, retries=0) for n in range(20)]
    family = house.start()
    house.wait_finished([job, *others])
    assert house.client.get(job).state == "failed"
    for attempt in house.client.attempts(job):
        told = (attempt.outcome, attempt.exit_code, attempt.signal)
        assert told == ("crash", exit_code, number)
    assert house.lines("runs") == [how, how]
    assert house.query("SELECT count(*) FROM attempts WHERE job <> ?", job) == [(0,)]
    assert sorted(house.lines("quick"), key=int) == [str(n) for n in range(20)]
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize("how", ["returns", "raises", "exits"])
def test_a_task_whose_copy_comes_back_has_one_outcome(build: Build, how: str) -> None:
    house = build(TASKS, processes=1)
    ids = [house.enqueue("forking", how, retries=0) for _ in range(5)]
    after = house.enqueue("quick", 1)
    family = house.start()
    house.wait_finished([*ids, after])
    assert [house.client.get(job).result for job in ids] == ["original"] * 5
    assert house.lines("runs") == [how] * 5
    assert house.lines("quick") == ["1"]
    assert house.stop(family) == 0


@pytest.mark.parametrize(
    "how",
    [
        "handler", "alarm handler", "folder", "umask", "stdout", "recursion",
        "timer", "descriptors", "all descriptors", "files in their place",
    ],
)  # fmt: skip
def test_a_task_that_changes_its_process_is_recorded_and_its_worker_replaced(
    build: Build, how: str
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("dirty", how, retries=0)
    after = house.enqueue("where", retries=0)
    family = house.start()
    house.wait_finished([job, after])
    assert house.client.get(job).result == how
    assert house.history(job) == []
    assert len(house.lines("dirty")) == 1
    pid, folder, umask, limit = house.client.get(after).result
    assert str(pid) != house.lines("dirty")[0]
    assert (folder, limit) == (str(house.folder), 1000)
    assert umask != 0
    stolen = house.folder / "stolen"
    assert not stolen.exists() or stolen.read_bytes() == b""
    house.check_whole()
    assert house.stop(family) == 0


@pytest.mark.parametrize("leave", [False, True])
def test_nothing_of_ours_goes_into_files_that_a_task_puts_in_their_place(
    build: Build, leave: bool
) -> None:
    house = build(TASKS, processes=1)
    house.configure({"log": {"file": "family.log"}}, processes=1)
    calm = [house.enqueue("steal", False, False, retries=0) for _ in range(5)]
    job = house.enqueue("steal", True, leave, retries=0)
    family = house.start()
    house.wait_finished([*calm, job, house.enqueue("quick", 1)])
    assert house.client.get(job).state == "succeeded"
    assert (house.folder / "stolen").read_bytes() == b""
    assert house.stop(family) == 0


def test_a_library_that_keeps_threads_keeps_its_worker(build: Build) -> None:
    house = build(TASKS, processes=1)
    ids = house.client.enqueue_many(
        [house.client.call("app:reporting", n, options={"retries": 0}) for n in range(1000)]
    )
    family = house.start()
    (worker,) = house.workers()
    house.wait_finished(ids)
    assert {house.client.get(job).result for job in ids[::50]} == {worker}
    assert house.query("SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == [(0,)]
    assert house.workers() == [worker]
    assert house.stop(family) == 0


@pytest.mark.stores("sqlite")
def test_a_change_found_after_many_jobs_blames_none_of_them_and_is_gone_after_a_rest(
    build: Build,
) -> None:
    house = build(TASKS, processes=1)
    ids = house.client.enqueue_many(
        [house.client.call("app:sometimes", n, options={"retries": 0}) for n in range(80)]
    )
    family = house.start()
    house.wait_finished(ids)
    first = house.client.get(ids[0]).result
    assert first == [house.client.get(ids[50]).result[0], str(house.folder)]
    eventually(lambda: house.said("left the process changed"), what="the look before a rest")
    (line,) = house.heard("left the process changed")
    # Fewer where the machine was slow: it is looked after each job of more than a millisecond too.
    assert re.search(r"one of the last \d+ jobs \(app:sometimes\)", line)
    job = house.enqueue("where", retries=0)
    house.wait_finished([job])
    pid, folder, *_ = house.client.get(job).result
    assert (pid != first[0], folder) == (True, str(house.folder))
    assert house.stop(family) == 0


@pytest.mark.parametrize("what", ["object", "nan", "lambda", "cycle", "nul", "2 MiB"])
def test_a_result_that_cannot_be_kept_fails_the_job_without_a_second_run(
    build: Build, what: str
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("returning", what, retries=3)
    family = house.start()
    house.wait_finished([job])
    found = house.client.get(job)
    assert (found.state, found.attempt) == ("failed", 1)
    assert house.history(job) == ["result"]
    assert "result" in (found.error or "")
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize(("what", "size"), [("70 KiB", 70_000), ("900 KiB", 900_000)])
def test_a_result_too_large_for_the_ledger_is_kept_all_the_same(
    build: Build, what: str, size: int
) -> None:
    house = build(TASKS, processes=1)
    ids = [house.enqueue("returning", what, retries=0) for _ in range(5)]
    family = house.start()
    house.wait_finished(ids)
    assert [len(house.client.get(job).result) for job in ids] == [size] * 5
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_async_tasks_run_and_fail_like_others(build: Build) -> None:
    house = build(TASKS, processes=1)
    ids = [house.enqueue("asynchronous", n) for n in range(5)]
    wrong = house.enqueue("asynchronously_wrong", retries=0)
    family = house.start()
    (worker,) = house.workers()
    house.wait_finished([*ids, wrong])
    assert [house.client.get(job).result for job in ids] == [1, 2, 3, 4, 5]
    assert house.client.get(wrong).error == "ValueError: async"
    assert house.workers() == [worker]
    assert house.stop(family) == 0


def test_a_task_that_daemonises_ends_while_its_daemon_lives_on(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("daemonise", retries=0)
    house.wait_finished([job])
    daemon = int(house.wait_lines("daemons")[0])
    try:
        assert house.client.get(job).result == "left one"
        assert house.stop(family) == 0
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("die", [False, True], ids=["at the stop", "at a crash"])
def test_what_a_task_leaves_in_its_group_is_killed_with_its_worker(build: Build, die: bool) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    house.wait_finished([house.enqueue("leave_subprocess", die, retries=0)])
    left = int(house.lines("left")[0])
    if not die:
        assert alive(left)
        assert house.stop(family) == 0
    eventually(lambda: not alive(left), what="the subprocess is gone")


@pytest.mark.lanes(1, 4)
@pytest.mark.stores("sqlite")
def test_tasks_that_open_and_close_the_database_file_damage_nothing(build: Build) -> None:
    house = build(TASKS, processes=2)
    ids: list[int] = []
    for n in range(40):
        ids += [house.enqueue("use_database", retries=0), house.enqueue("quick", n, retries=0)]
    family = house.start()
    house.wait_finished(ids)
    assert house.query("SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == [(0,)]
    assert sorted(house.lines("quick"), key=int) == [str(n) for n in range(40)]
    house.check_whole()
    assert house.stop(family) == 0


@pytest.mark.stores("sqlite")
def test_a_write_lock_a_task_leaves_behind_is_freed_with_its_worker(build: Build) -> None:
    house = build(TASKS, processes=2)
    job = house.enqueue("hold_the_lock", retries=0)
    family = house.start(ready=False)
    house.wait_lines("held")
    after = house.enqueue("quick", 1)  # waits for the lock as well
    house.wait_finished([job, after], limit=20)
    assert house.client.get(job).state == "succeeded"
    assert len(house.lines("held")) == 1
    assert house.heard("open and locked")
    assert house.stop(family) == 0


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(
    ("how", "words"), [("files", "closed files"), ("lock", "left the database locked")]
)
def test_a_task_whose_outcome_its_damage_keeps_out_of_the_database_is_charged(
    build: Build, how: str, words: str
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("damaging", how, retries=0)
    family = house.start(ready=False)
    house.wait_finished([job])
    assert house.client.get(job).state == "failed"
    assert house.history(job) == ["crash"]
    assert house.lines("damaging") == [how]
    assert words in (house.client.get(job).error or "")
    assert house.heard(f"a task had {words}")
    assert house.stop(family) == 0


def test_what_tasks_print_goes_where_the_family_writes(build: Build) -> None:
    house = build(TASKS, processes=1)
    ids = [house.enqueue("printing", n) for n in range(3)]
    family = house.start(PYTHONUNBUFFERED="")
    house.wait_finished(ids)
    assert house.stop(family) == 0
    for n in range(3):
        assert len(house.heard(f"on stdout {n}")) == 1
        assert len(house.heard(f"on stderr {n}")) == 1


def test_what_a_task_prints_is_not_lost_with_a_killed_worker(build: Build) -> None:
    source = f"{TASKS}\n@task\ndef last_words():\n    print('last words')\n    os._exit(1)\n"
    house = build(source, processes=1)
    family = house.start(PYTHONUNBUFFERED="")
    house.wait_finished([house.enqueue("last_words", retries=0)])
    assert house.heard("last words")
    assert house.stop(family) == 0


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_child_of_a_task_ends_when_the_task_terminates_it(build: Build, lanes: int) -> None:
    source = (
        TASKS
        + """
import multiprocessing

@task
def terminates():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode
"""
    )
    house = build(source, processes=1, concurrency=lanes)
    family = house.start()
    job = house.enqueue("terminates", retries=0)
    house.wait_finished([job])
    assert house.client.get(job).result == -signal.SIGTERM
    assert house.stop(family) == 0


def test_a_thousand_short_jobs_survive_neighbours_of_every_bad_kind(build: Build) -> None:
    house = build(TASKS, processes=2)
    calls: list[Any] = []
    for n in range(1000):
        calls.append(house.client.call("app:quick", n, options={"retries": 0}))
        if n % 100 == 50:
            how = ["exit 0", "kill", "segfault", "exit 3", "abort"][n // 100 % 5]
            calls.append(house.client.call("app:dying", how, options={"retries": 0}))
    ids = house.client.enqueue_many(calls)
    family = house.start()
    house.wait_finished(ids)
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'failed'") == [(10,)]
    assert sorted(house.lines("quick"), key=int) == [str(n) for n in range(1000)]
    assert house.stop(family) == 0
