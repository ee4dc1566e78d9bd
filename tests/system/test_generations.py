"""One generation of workers follows another: jobs outlive a reload, and a broken deploy empties nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from tests.system.harness import MARK, Build, House, alive, is_gone
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]
on_both_stores = pytest.mark.stores("sqlite", "postgres")
several = pytest.mark.lanes(1, 4)

TASKS = f"""{MARK}
@task
def quick(n):
    mark("old", n)

@task
def long(ctx: Context, name):
    mark("began", name)
    while not os.path.exists(name):
        ctx.check()
        time.sleep(0.005)  # task body
    mark("ended", name)
"""

DEAF = TASKS.replace("ctx.check()", "pass")

HOOK = "@on_start\ndef hook():\n    "
"""The beginning of what each worker does before it is ready, and no trial."""


def deploy(house: House, tail: str = "") -> None:
    """Another version of the tasks: what `quick` did, `quick` does otherwise."""
    app = house.folder / "app.py"
    text = app.read_text().split("# deployed")[0]
    app.write_text(text.replace('mark("old"', 'mark("new"') + f"# deployed\n{tail}\n")


def reload(house: House, family: subprocess.Popen[bytes], tail: str = "") -> int:
    """Deploy, and ask for it; the number of the reload."""
    deploy(house, tail)
    before = int(house.status()["reload"]["number"])
    family.send_signal(signal.SIGHUP)
    eventually(lambda: house.status()["reload"]["number"] > before, what="it is asked for")
    return before + 1


def wait_reload(house: House, state: str, number: int = 1) -> dict[str, Any]:
    """Until the reload of this number has ended so."""
    told = eventually(
        lambda: found if (found := house.status()["reload"])["state"] == state else None,
        what=f"the reload is {state}",
    )
    assert told is not None
    assert told["number"] == number
    return dict(told)


def leaving(house: House) -> list[tuple[int, str]]:
    return [
        (worker["pid"], worker["leaving"])
        for worker in house.status()["workers"]
        if worker["leaving"]
    ]


def runs(house: House, name: str, n: int) -> None:
    """A job runs now, with the code of this name."""
    house.wait_finished([house.enqueue("quick", n)])
    assert house.lines(name)[-1] == str(n)


@pytest.fixture
def house(build: Build) -> House:
    return build(TASKS, processes=1)


def with_a_long_job(house: House, name: str = "go") -> tuple[subprocess.Popen[bytes], int, int]:
    """A family whose only worker runs a job; its parent, the job and the worker."""
    job = house.enqueue("long", name, retries=0)
    family = house.start()
    house.wait_lines("began")
    (worker,) = house.workers()
    return family, job, worker


@several
@on_both_stores
@pytest.mark.preload(False, True)
def test_a_job_that_runs_through_a_reload_finishes_while_the_new_code_serves(
    build: Build,
) -> None:
    house = build(TASKS, processes=1)
    family, job, worker = with_a_long_job(house)
    reload(house, family)
    wait_reload(house, "done")
    assert leaving(house) == [(worker, "reload")]
    runs(house, "new", 1)
    house.touch("go")
    house.wait_finished([job])
    found = house.client.get(job)
    assert (found.state, found.attempt, house.history(job)) == ("succeeded", 1, [])
    eventually(lambda: leaving(house) == [] and len(house.workers()) == 1)
    assert house.lines("began") == ["go"]
    assert house.stop(family) == 0


@several
@pytest.mark.parametrize(
    ("limits", "pool", "killed"),
    [
        ({"reload_timeout": "500ms"}, {}, True),
        ({"reload_timeout": "20s"}, {}, False),
        ({}, {"overlap": False}, False),
    ],
    ids=["killed", "asked before", "one after the other"],
)
def test_a_job_that_outlives_its_time_in_a_reload_is_given_back(
    build: Build, limits: dict[str, str], pool: dict[str, Any], killed: bool
) -> None:
    source = DEAF if killed else TASKS
    house = build(source, processes=1, config={"supervisor": limits}, **pool)
    family, job, worker = with_a_long_job(house)
    reload(house, family)
    house.wait_lines("began", 2)
    assert house.history(job) == (["stopped"] if killed else [])
    assert bool(house.said(f"pid {worker} is killed: reload")) == killed
    house.touch("go")
    house.wait_finished([job])
    found = house.client.get(job)
    assert (found.state, found.attempt) == ("succeeded", 1)
    wait_reload(house, "done")
    assert house.stop(family) == 0


def test_a_pool_without_overlap_is_replaced_one_child_at_a_time(build: Build) -> None:
    house = build(TASKS, processes=3, overlap=False)
    family = house.start()
    workers = house.workers()
    reload(house, family)
    wait_reload(house, "done")
    story = [
        line
        for line in house.log.read_text().split("reloading", 1)[1].splitlines()
        if ("started as pid" in line or " ended: " in line) and "template" not in line
    ]
    # One ends, one starts, and only then does the next one end.
    assert ["started" in line for line in story] == [False, True] * 4
    assert not set(workers) & set(house.workers())
    assert house.stop(family) == 0


BROKEN = {
    "syntax": ("def (", "cannot be imported: SyntaxError"),
    "hanging import": ("time.sleep(600)", "the import of app took longer than 3s"),
    "failing hook": (f"{HOOK}raise OSError('no such host')", "no such host"),
    "hanging hook": (f"{HOOK}time.sleep(600)", "it was not ready after 3s"),
    "crashing hook": (f"{HOOK}os._exit(3)", "it ended before it was ready"),
}


@several
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_deploy_empties_nothing_and_a_mended_one_goes_on(build: Build, how: str) -> None:
    tail, reason = BROKEN[how]
    house = build(TASKS, processes=2, config={"supervisor": {"boot_timeout": "3s"}})
    family = house.start()
    before = set(house.children(family.pid))
    reload(house, family, tail)
    assert reason in wait_reload(house, "refused")["reason"]
    runs(house, "old", 1)
    eventually(lambda: set(house.children(family.pid)) == before, what="nobody else is there")
    (line,) = house.heard("reload refused")
    assert reason in line
    assert leaving(house) == []
    reload(house, family)
    wait_reload(house, "done", 2)
    runs(house, "new", 2)
    assert not before & set(house.children(family.pid))
    assert house.stop(family) == 0


HELD = f"{HOOK}mark('importing', os.getpid()); gate('imported')"
"""The first new worker waits before it is ready."""


def test_a_new_worker_that_is_killed_before_it_is_ready_empties_nothing(house: House) -> None:
    family, job, worker = with_a_long_job(house)
    reload(house, family, HELD)
    os.kill(int(house.wait_lines("importing")[0]), signal.SIGKILL)
    assert "it ended before it was ready" in wait_reload(house, "refused")["reason"]
    house.touch("go")
    house.wait_finished([job])
    assert house.workers() == [worker]
    assert house.stop(family) == 0


@several
def test_an_old_worker_that_is_killed_before_a_new_one_is_ready_is_replaced(house: House) -> None:
    family, job, worker = with_a_long_job(house)
    reload(house, family, HELD)
    house.wait_lines("importing")
    os.kill(worker, signal.SIGKILL)
    house.touch("imported")
    wait_reload(house, "done")
    house.wait_state(job, "failed")
    assert house.history(job) == ["crash"]
    runs(house, "new", 1)
    eventually(lambda: len(house.workers()) == 1)
    assert house.stop(family) == 0


@several
@pytest.mark.parametrize("who", ["old", "new"])
def test_a_worker_that_is_killed_while_the_old_one_lingers_costs_its_own_job_alone(
    house: House, who: str
) -> None:
    family, job, old = with_a_long_job(house)
    reload(house, family)
    wait_reload(house, "done")
    other = house.enqueue("long", "other", retries=0)
    house.wait_lines("began", 2)
    (new,) = set(house.workers()) - {old}
    os.kill(old if who == "old" else new, signal.SIGKILL)
    killed, spared = (job, other) if who == "old" else (other, job)
    house.wait_state(killed, "failed")
    assert house.history(killed) == ["crash"]
    house.touch("go")
    house.touch("other")
    house.wait_finished([spared])
    assert (house.client.get(spared).state, house.history(spared)) == ("succeeded", [])
    runs(house, "new", 1)
    eventually(lambda: len(house.workers()) == 1 and leaving(house) == [])
    assert house.stop(family) == 0


@several
@on_both_stores
@pytest.mark.parametrize("held", [True, False], ids=["before", "after"])
def test_a_parent_that_is_killed_in_a_reload_leaves_jobs_that_finish_and_a_next_family(
    build: Build, held: bool
) -> None:
    house = build(DEAF, processes=1)
    family, job, old = with_a_long_job(house)
    reload(house, family, HELD if held else "")
    if held:
        house.wait_lines("importing")
    else:
        wait_reload(house, "done")
    children = house.children(family.pid)
    family.kill()
    family.wait()
    house.touch("imported")
    eventually(lambda: [pid for pid in children if alive(pid) and pid != old][1:] == [])
    assert alive(old), "with its caretaker"
    house.touch("go")
    for pid in children:
        eventually(lambda pid=pid: is_gone(pid), what=f"{pid} is gone")  # type: ignore[misc]
    deploy(house)
    family = house.start()
    runs(house, "new", 1)
    found = house.client.get(job)
    assert (found.state, found.attempt, house.history(job)) == ("succeeded", 1, [])
    assert house.stop(family) == 0


@several
def test_as_many_workers_linger_as_the_pool_has_and_a_further_reload_waits(house: House) -> None:
    family, job, old = with_a_long_job(house)
    reload(house, family)
    wait_reload(house, "done")
    other = house.enqueue("long", "other", retries=0)
    house.wait_lines("began", 2)
    reload(house, family)
    eventually(lambda: len(house.said("reloading")) == 2)
    house.wait_rounds(2)
    assert house.status()["reload"]["state"] == "going on"
    assert leaving(house) == [(old, "reload")]
    house.touch("go")
    wait_reload(house, "done", 2)
    house.touch("other")
    house.wait_finished([job, other])
    assert house.history(job) == house.history(other) == []
    eventually(lambda: len(house.workers()) == 1)
    assert house.stop(family) == 0


def test_a_reload_while_another_is_trying_its_first_worker_takes_its_place(house: House) -> None:
    family, job, old = with_a_long_job(house)
    reload(house, family, HELD)
    (tried,) = map(int, house.wait_lines("importing"))
    reload(house, family)
    wait_reload(house, "done", 2)
    assert is_gone(tried)
    assert leaving(house) == [(old, "reload")]
    runs(house, "new", 1)
    house.touch("go")
    house.wait_finished([job])
    assert house.stop(family) == 0


@pytest.mark.parametrize("ends", [True, False], ids=["drained", "killed"])
def test_a_stop_gives_those_that_linger_the_time_that_all_have(build: Build, ends: bool) -> None:
    limit = "30s" if ends else "300ms"
    house = build(DEAF, processes=1, config={"supervisor": {"stop_timeout": limit}})
    family, job, old = with_a_long_job(house)
    reload(house, family)
    wait_reload(house, "done")
    family.send_signal(signal.SIGTERM)
    eventually(lambda: house.said("stopping: running jobs have"))
    if ends:
        house.touch("go")
    assert family.wait(60) == (0 if ends else 75)
    assert house.client.get(job).state == ("succeeded" if ends else "pending")
    assert house.history(job) == ([] if ends else ["stopped"])
    assert is_gone(old)


def test_pools_that_are_renamed_and_made_smaller_leave_beside_the_new_ones(house: House) -> None:
    house.configure({}, processes=3)
    family = house.start()
    before = house.workers()
    house.configure({}, name="other", processes=1)
    reload(house, family)
    wait_reload(house, "done")
    (worker,) = house.status()["workers"]
    assert worker["pool"] == "other"
    assert worker["pid"] not in before
    runs(house, "new", 1)
    assert house.stop(family) == 0


def test_jobs_of_several_lanes_outlive_a_reload_together(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    jobs = [house.enqueue("long", name, retries=0) for name in ("a", "b", "c")]
    family = house.start()
    house.wait_lines("began", 3)
    (worker,) = house.workers()
    reload(house, family)
    wait_reload(house, "done")
    runs(house, "new", 1)
    for name in ("a", "b"):
        house.touch(name)
    house.wait_finished(jobs[:2])
    assert leaving(house) == [(worker, "reload")]
    house.touch("c")
    house.wait_finished(jobs)
    assert [house.history(job) for job in jobs] == [[], [], []]
    eventually(lambda: leaving(house) == [] and len(house.workers()) == 1)
    assert sorted(house.lines("began")) == ["a", "b", "c"]
    assert house.stop(family) == 0


def test_a_worker_that_has_run_its_jobs_is_succeeded_while_the_last_of_them_run(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, concurrency=3, max_jobs=3)
    jobs = [house.enqueue("long", "go", retries=0) for _ in range(2)]
    family = house.start()
    house.wait_lines("began", 2)
    (worker,) = house.workers()
    runs(house, "old", 1)  # the third
    eventually(lambda: leaving(house) == [(worker, "recycled")], what="it is to leave")
    runs(house, "old", 2)
    house.touch("go")
    house.wait_finished(jobs)
    assert [house.history(job) for job in jobs] == [[], []]
    eventually(lambda: leaving(house) == [] and len(house.workers()) == 1)
    assert house.stop(family) == 0
