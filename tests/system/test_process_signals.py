"""HUP, TTIN, TTOU, USR1 and USR2: what each of them does to a running family."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.system.harness import MARK, Build, House, alive, open_files, traced
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def gated(n):
    mark("began", n)
    gate("go")
    mark("ended", n)
"""


def replaced(house: House, before: list[int]) -> bool:
    now = house.workers()
    ready = all(worker["reached_database"] for worker in house.status()["workers"])
    return ready and len(now) == len(before) and not set(now) & set(before)


def test_a_reload_replaces_every_child_and_keeps_the_parent(build: Build) -> None:
    house = build(TASKS, processes=3)
    family = house.start()
    workers, caretaker = house.workers(), house.caretaker()
    family.send_signal(signal.SIGHUP)
    eventually(lambda: replaced(house, workers), what="the workers are others")
    eventually(lambda: house.caretaker() != caretaker, what="the caretaker is another")
    assert house.status()["pid"] == family.pid
    assert not any(alive(pid) for pid in (*workers, caretaker))
    assert house.stop(family) == 0


def test_a_reload_never_says_that_the_family_has_stopped(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    caretaker = house.caretaker()
    states: set[str] = set()

    def is_another() -> bool:
        status = house.status()
        states.add(status["state"])
        return status["caretaker"] is not None and status["caretaker"]["pid"] != caretaker

    family.send_signal(signal.SIGHUP)
    eventually(is_another)
    assert "stopped" not in states


def test_a_reload_takes_up_changed_tasks_and_processes(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    before = set(house.workers())
    (house.folder / "app.py").write_text(
        (house.folder / "app.py").read_text().replace('mark("quick", n)', 'mark("changed", n)')
    )
    house.configure({}, processes=4)
    family.send_signal(signal.SIGHUP)
    eventually(lambda: len(house.workers()) == 4, what="four workers")
    eventually(lambda: house.status()["scale"] == 4)
    house.configure({}, processes=1)
    family.send_signal(signal.SIGHUP)
    eventually(lambda: len(house.workers()) == 1, what="one worker")
    eventually(lambda: not before & set(house.workers()), what="and that one is new")
    house.wait_finished([house.enqueue("quick", 7)])
    assert house.lines("changed") == ["7"]
    assert house.stop(family) == 0


@pytest.mark.parametrize(
    "text",
    [
        "[supervisor\n",
        "[workers]\nproceses = 2\n",
        '[database]\nurl = "sqlite:///another.db"\n',
        '[log]\nfile = "no/such/folder/log"\n',
        None,
    ],
    ids=["syntax", "unknown key", "another database", "log cannot be opened", "gone"],
)
def test_a_bad_file_keeps_the_old_configuration_and_costs_one_line(
    build: Build, text: str | None
) -> None:
    house = build(TASKS)
    family = house.start()
    workers = house.workers()
    config = house.folder / "config.toml"
    if text is None:
        config.unlink()
    else:
        config.write_text(text)
    family.send_signal(signal.SIGHUP)
    eventually(lambda: house.said("reload refused"), what="the refusal is said")
    house.wait_finished([house.enqueue("quick", 1)])
    assert house.workers() == workers
    assert len(house.heard(" error ")) == 1
    assert house.stop(family) == 0


def test_scale_and_reload_answer_when_the_family_has_done_it_and_say_why_not(
    build: Build,
) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    assert house.command("scale", "default", "+1").returncode == 0
    eventually(lambda: len(house.workers()) == 2, what="a second worker")
    beyond = house.command("scale", "default", "241")
    assert beyond.returncode == 2
    assert "pool default cannot have 241 workers: at most 120 are possible" in beyond.stderr
    app = house.folder / "app.py"
    good = app.read_text()
    app.write_text("import nothing_of_that_name\n")
    before = house.children(family.pid)
    refused = house.command("reload")
    assert refused.returncode == 1
    assert "'app' cannot be imported" in refused.stderr
    assert "nothing_of_that_name" in refused.stderr
    assert house.children(family.pid) == before  # who has the old code stays
    app.write_text(good)
    assert house.command("reload").returncode == 0
    assert not set(before) & set(house.children(family.pid)), "all were replaced by then"
    assert house.stop(family) == 0


def test_ttin_adds_a_worker_and_ttou_takes_one_away(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    (first,) = house.workers()
    family.send_signal(signal.SIGTTIN)
    eventually(lambda: len(house.workers()) == 2)
    assert house.status()["scale"] == 2
    family.send_signal(signal.SIGTTOU)
    eventually(lambda: len(house.workers()) == 1)
    assert house.workers() == [first]
    assert house.stop(family) == 0


def test_ttou_never_takes_the_last_worker(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    workers = house.workers()
    family.send_signal(signal.SIGTTOU)
    house.wait_finished([house.enqueue("quick", 1)])
    assert house.workers() == workers
    assert house.stop(family) == 0


def test_a_worker_taken_away_finishes_its_job_first(build: Build) -> None:
    house = build(TASKS, processes=2)
    jobs = [house.enqueue("gated", n, retries=0) for n in range(2)]
    family = house.start()
    house.wait_lines("began", 2)
    family.send_signal(signal.SIGTTOU)
    eventually(lambda: house.status()["scale"] == 1)
    house.touch("go")
    house.wait_finished(jobs)
    eventually(lambda: len(house.workers()) == 1)
    assert [house.client.get(job).state for job in jobs] == ["succeeded", "succeeded"]
    assert [house.history(job) for job in jobs] == [[], []]
    assert house.stop(family) == 0


def test_usr1_begins_a_new_log_file_in_every_process(build: Build) -> None:
    house = build(TASKS, config={"log": {"level": "debug", "file": "family.log"}})
    family = house.start()
    house.wait_finished([house.enqueue("quick", 1)])
    log = house.folder / "family.log"
    old = house.folder / "family.log.1"
    log.rename(old)
    family.send_signal(signal.SIGUSR1)
    eventually(log.exists, what="the new log file")
    pids = [family.pid, *house.children(family.pid)]
    eventually(lambda: not any(has_open(pid, old) for pid in pids), what="nobody holds the old")
    assert all(has_open(pid, log) for pid in pids)
    house.wait_finished([house.enqueue("quick", 2)])
    assert house.stop(family) == 0
    assert "stopped, exit code 0" in log.read_text()


def test_usr1_reaches_a_busy_worker_after_its_job(build: Build) -> None:
    house = build(TASKS, processes=1, config={"log": {"level": "debug", "file": "family.log"}})
    family = house.start()
    (worker,) = house.workers()
    job = house.enqueue("gated", 1)
    house.wait_lines("began")
    old = house.folder / "family.log.1"
    (house.folder / "family.log").rename(old)
    family.send_signal(signal.SIGUSR1)
    eventually((house.folder / "family.log").exists)
    house.touch("go")
    house.wait_finished([job])
    eventually(lambda: not has_open(worker, old))
    assert alive(worker)
    assert house.stop(family) == 0


def test_usr1_during_the_boot_of_a_child_does_not_kill_it(build: Build) -> None:
    house = build(f"{TASKS}\nmark('importing', os.getpid())\ngate('imported')\n", processes=2)
    family = house.start(ready=False)
    booting = [int(line) for line in house.wait_lines("importing", 2)]
    for _ in range(20):
        family.send_signal(signal.SIGUSR1)
    house.touch("imported")
    house.wait_ready(family)
    assert sorted(house.workers()) == sorted(booting)
    assert house.stop(family) == 0


def test_usr1_between_a_fork_and_its_first_line_does_not_kill_the_child(build: Build) -> None:
    # A child makes its signal pipe just before its handlers; here that takes it 200 ms.
    slow = traced("-f", "-e", "trace=pipe2", "-e", "inject=pipe2:delay_enter=200000")
    house = build(TASKS, processes=2)
    family = house.start(ready=False, prefix=slow)
    eventually(lambda: house.said("worker 2 started as pid"), what="all children are forked")
    family.send_signal(signal.SIGUSR1)
    house.wait_ready(family)
    assert house.said("SIGUSR1") == []
    assert house.stop(family) == 0


def test_usr1_during_the_boot_of_a_child_gives_it_the_new_file_too(build: Build) -> None:
    log_config = {"log": {"level": "debug", "file": "family.log"}}
    house = build(f"{TASKS}\nmark('importing', os.getpid())\ngate('imported')\n", config=log_config)
    family = house.start(ready=False)
    booting = [int(line) for line in house.wait_lines("importing", 2)]
    old = house.folder / "family.log.1"
    (house.folder / "family.log").rename(old)
    family.send_signal(signal.SIGUSR1)
    eventually((house.folder / "family.log").exists)
    house.touch("imported")
    eventually(lambda: not any(has_open(pid, old) for pid in booting), what="all let go of the old")
    house.wait_ready(family)
    assert sorted(house.workers()) == sorted(booting)
    assert house.stop(family) == 0


def test_usr2_shows_where_a_child_hangs_in_its_boot(build: Build) -> None:
    house = build(f"{TASKS}\nmark('importing')\ngate('imported')\n", processes=1)
    family = house.start(ready=False)
    house.wait_lines("importing")
    family.send_signal(signal.SIGUSR2)
    eventually(lambda: house.said(" in gate"), what="the stack of the import")
    house.touch("imported")
    house.wait_ready(family)
    assert house.stop(family) == 0


def test_usr2_writes_the_stacks_of_all_children_also_of_a_busy_one(build: Build) -> None:
    house = build(TASKS, processes=2, config={"log": {"format": "json"}})
    house.enqueue("gated", 1)
    family = house.start()
    house.wait_lines("began")
    pids = house.workers()
    family.send_signal(signal.SIGUSR2)
    eventually(lambda: len(house.said("the stack of")) == 3, what="three stacks")
    assert any(" in gate" in json.loads(line)["traceback"] for line in house.said("the stack of"))
    assert len(house.heard("is in state")) == 3
    (told,) = house.said(", in gate")
    assert told in house.said("the stack of worker"), "outside of JSON"
    assert all(alive(pid) for pid in pids)
    house.touch("go")
    assert house.stop(family) == 0


def test_a_storm_of_signals_hurts_nobody(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    ids = [house.enqueue("quick", n) for n in range(100)]
    for _ in range(300):
        for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            family.send_signal(number)
    house.wait_finished(ids)
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]


def test_ten_reloads_leave_no_descriptor_behind(build: Build) -> None:
    house = build(TASKS, processes=1, config={"log": {"level": "debug", "file": "family.log"}})
    family = house.start()
    before = len(os.listdir(f"/proc/{family.pid}/fd"))
    log = house.folder / "family.log"
    for number in range(10):
        family.send_signal(signal.SIGHUP)
        eventually(lambda n=number: log.read_text().count("reloading") > n)  # type: ignore[misc]
    # The last one may be in its trial.
    eventually(lambda: len(os.listdir(f"/proc/{family.pid}/fd")) == before, what="all are closed")
    assert house.stop(family) == 0


def has_open(pid: int, path: Path) -> bool:
    return str(path) in open_files(pid)
