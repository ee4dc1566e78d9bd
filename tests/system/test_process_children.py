"""Children that die, hang or keep dying, and what the parent is and holds meanwhile."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.older import SCHEMA_0_2, SLOW, make_old
from tests.system.harness import MARK, Build, House, alive, open_files, traced
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def gated(n):
    mark("began", os.getpid())
    gate("go")
    mark("ended", n)

@task
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def zombies_of(pid: int, house: House) -> list[int]:
    return [child for child in house.children(pid) if not alive(child)]


# -- death and replacement


def test_a_killed_worker_is_replaced_at_once_under_the_same_parent(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    jobs = [house.enqueue("gated", n) for n in range(2)]
    victim = int(house.wait_lines("began", 2)[0])
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len({*house.workers()} - {victim}) == 2, what="two workers again")
    assert not house.said("next start in"), "it was made to wait"
    assert house.status()["pid"] == family.pid
    house.touch("go")
    house.wait_finished(jobs)
    assert house.stop(family) == 0


def test_a_killed_caretaker_is_replaced_and_settles_on(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    caretaker = house.caretaker()
    job = house.enqueue("gated", 1, retry="0s", retries=1)
    victim = int(house.wait_lines("began")[0])
    os.kill(caretaker, signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    house.wait_lines("began", 2)
    house.touch("go")
    house.wait_finished([job])
    assert house.history(job) == ["crash"]
    assert house.caretaker() != caretaker
    assert house.stop(family) == 0


def test_a_death_is_told_in_the_log_and_in_the_status(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    (worker,) = house.workers()
    job = house.enqueue("die", retries=0)
    house.wait_finished([job])
    eventually(lambda: house.status()["deaths"])
    (death,) = house.status()["deaths"]
    assert (death["pid"], death["job"], death["signal"]) == (worker, job, "SIGKILL")
    eventually(lambda: len(house.said(f"pid {worker} died: SIGKILL; running: {job}")) == 1)
    assert house.stop(family) == 0


def test_thirty_deaths_leave_neither_a_zombie_nor_a_descriptor_in_the_parent(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    before = sorted(open_files(family.pid))
    house.wait_finished([house.enqueue("die", retries=0) for _ in range(30)])
    house.wait_finished([house.enqueue("quick", 1)])
    eventually(lambda: len(house.children(family.pid)) == 3 and not zombies_of(family.pid, house))
    assert sorted(open_files(family.pid)) == before
    assert threads(family.pid) == 1
    assert house.query("SELECT count(*) FROM owners")[0][0] <= 2  # an idle life is in none
    assert house.stop(family) == 0


# -- what the parent is


def test_the_parent_has_one_thread_and_no_database(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    house.wait_finished([house.enqueue("quick", n) for n in range(10)])
    assert threads(family.pid) == 1
    assert not [path for path in open_files(family.pid) if "jobs.db" in path]
    assert not [path for path in open_files(family.pid) if "/ledger/" in path]
    maps = Path(f"/proc/{family.pid}/maps").read_text()
    assert "_sqlite3" not in maps or "jobs.db" not in maps
    assert str(house.folder / "app.py") not in maps
    assert house.stop(family) == 0


def test_no_child_holds_the_lock_or_the_write_end_of_the_lifeline(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    children = house.children(family.pid)
    assert any(path.endswith("/lock") for path in open_files(family.pid))
    assert not [path for pid in children for path in open_files(pid) if path.endswith("/lock")]
    written = [pipe for pipe, flags in pipes(family.pid) if flags & os.O_ACCMODE == os.O_WRONLY]
    read = [pipe for pipe, flags in pipes(children[1]) if flags & os.O_ACCMODE == os.O_RDONLY]
    (lifeline,) = set(written) & set(read)
    for pid in children:
        assert (lifeline, os.O_WRONLY) not in [(p, f & os.O_ACCMODE) for p, f in pipes(pid)]
    assert house.stop(family) == 0


def pipes(pid: int) -> list[tuple[str, int]]:
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = os.readlink(f"/proc/{pid}/fd/{number}")
        if path.startswith("pipe:"):
            told = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
            flags = int(told.split("flags:")[1].split()[0], 8)
            found.append((path, flags))
    return found


def test_with_the_parent_killed_the_lock_is_free_and_idle_children_leave(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    children = house.children(family.pid)
    family.kill()
    family.wait(10)
    with (house.state_dir / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    eventually(lambda: not any(alive(pid) for pid in children), what="all have left")


def test_a_task_subprocess_does_not_hold_the_family_up(build: Build) -> None:
    source = """
import subprocess
@task
def leave_one():
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    mark("left", process.pid)
"""
    house = build(TASKS + source, processes=1)
    family = house.start()
    house.wait_finished([house.enqueue("leave_one")])
    stray = int(house.lines("left")[0])
    try:
        assert house.stop(family) == 0
        with (house.state_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert alive(stray)  # in a session of its own it is nobody's to kill
        assert [path for path in open_files(stray) if "pipe:" in path] == []
    finally:
        os.kill(stray, signal.SIGKILL)


# -- boots that fail


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("sys.exit(2)", "SystemExit: 2"),
        ("os._exit(0)", "the configuration is wrong"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
    ids=["raises", "exits", "leaves", "lacks a module", "syntax", "interrupt", "kills itself"],
)
def test_a_module_that_cannot_be_imported_ends_the_start_with_78(
    build: Build, lines: str, words: str
) -> None:
    house = build(lines)
    family = house.start(ready=False)
    assert family.wait(30) == 78
    assert house.heard(words)
    assert len(house.log.read_text()) < 100_000
    assert house.query("SELECT count(*) FROM owners") == [(0,)]


def test_a_traceback_of_the_users_module_is_shown(build: Build) -> None:
    house = build("def deep():\n    raise ValueError('here')\ndeep()\n")
    assert house.start(ready=False).wait(30) == 78
    assert house.heard("in deep")


def test_a_boot_that_hangs_is_killed_at_boot_timeout(build: Build) -> None:
    house = build(
        f"{MARK}\nmark('importing')\ntime.sleep(600)  # task body\n",
        processes=1,
        config={"supervisor": {"boot_timeout": "300ms"}},
    )
    family = house.start(ready=False)
    assert family.wait(30) == 78
    assert len(house.lines("importing")) == 3
    assert len(house.heard("is killed: boot")) == 3


def test_a_boot_that_hangs_only_later_is_killed_and_replaced_while_others_work(
    build: Build,
) -> None:
    source = """
if os.path.exists("hang"):
    os.unlink("hang")
    mark("hung")
    time.sleep(600)  # task body
"""
    house = build(TASKS + source, processes=2, config={"supervisor": {"boot_timeout": "500ms"}})
    family = house.start()
    house.touch("hang")
    house.wait_finished([house.enqueue("die", retries=0)])
    house.wait_lines("hung")
    house.wait_finished([house.enqueue("quick", 1)])
    house.wait_ready(family)
    assert len(house.workers()) == 2
    assert len(house.heard("is killed: boot")) == 1
    assert house.stop(family) == 0


def test_a_worker_that_keeps_dying_backs_off_visibly_while_another_works(build: Build) -> None:
    source = """
if os.path.exists("broken"):
    mark("boots")
    raise RuntimeError("broken")
"""
    house = build(TASKS + source, processes=2)
    family = house.start()
    house.touch("broken")
    house.wait_finished([house.enqueue("die", retries=0)])
    eventually(lambda: house.status()["state"] == "degraded", what="degraded is said")
    eventually(lambda: "backoff" in [worker["state"] for worker in house.status()["workers"]])
    assert house.status()["degraded"]
    house.wait_finished([house.enqueue("quick", n) for n in range(10)])
    boots = len(house.wait_lines("boots", 3))
    assert boots < 20
    (house.folder / "broken").unlink()
    eventually(lambda: house.status()["state"] == "running", what="it is well again")
    assert len(house.workers()) == 2
    assert house.stop(family) == 0


def test_a_crash_loop_after_ready_never_ends_the_family(build: Build) -> None:
    # The second worker dies as soon as it is ready, again and again; the first one works.
    source = """
import threading
if os.path.exists("broken"):
    def later():
        time.sleep(0.05)  # task body
        os._exit(1)
    threading.Thread(target=later, daemon=True).start()
"""
    house = build(TASKS + source, processes=2)
    family = house.start()
    house.touch("broken")
    house.wait_finished([house.enqueue("die", retries=0)])
    eventually(lambda: len(house.said("keeps dying")) >= 3)
    house.wait_finished([house.enqueue("quick", 1)])
    (house.folder / "broken").unlink()
    house.wait_ready(family)
    assert house.stop(family) == 0


def test_a_config_that_refuses_the_database_ends_the_start_with_78(build: Build) -> None:
    house = build(TASKS)
    (house.folder / "jobs.db").write_bytes(b"this is no database" * 1000)
    family = house.start(ready=False)
    assert family.wait(30) == 78
    assert len(house.heard("it is not an SQLite database")) == 1
    assert not house.said(" error ")  # said once, not by each child of each boot


# -- no database


def test_a_database_locked_for_ever_ends_the_first_start_with_69(build: Build) -> None:
    house = build(
        TASKS,
        config={"database": {"connect_timeout": "1s"}, "supervisor": {"stop_timeout": "1s"}},
    )
    house.enqueue("quick", 1)
    locker = sqlite3.connect(house.folder / "jobs.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    try:
        assert house.start(ready=False).wait(20) == 69
    finally:
        locker.close()
    assert house.heard("no child could reach")


def test_a_migration_may_take_longer_than_a_database_has_to_answer(build: Build) -> None:
    house = build(TASKS, config={"database": {"connect_timeout": "1s"}})
    make_old(house.folder / "jobs.db", SLOW.format(steps=12_000_000))  # two seconds at the least
    house.query("INSERT INTO jobs (task, args) VALUES ('app:quick', '[1]')")
    family = house.start(ready=False)
    eventually(lambda: house.lines("quick"), limit=60, what="the job has run")
    assert house.heard("the tables are being brought up to this release")
    assert house.stop(family) == 0


def test_a_family_that_migrates_stops_when_it_is_asked_to(build: Build) -> None:
    house = build(TASKS)
    make_old(house.folder / "jobs.db", SLOW.format(steps=10_000_000_000))
    family = house.start(ready=False)
    eventually(lambda: house.said("the tables are being brought up"), what="it migrates")
    family.terminate()
    assert family.wait(20) == 0
    (number,) = house.query("PRAGMA user_version")[0]
    assert number == SCHEMA_0_2["sqlite"]


def test_a_database_that_cannot_be_opened_ends_the_first_start_with_69(build: Build) -> None:
    house = build(TASKS, config={"database": {"connect_timeout": "1s"}})
    (house.folder / "jobs.db").mkdir()
    assert house.start(ready=False).wait(20) == 69
    assert house.heard("the database cannot be used")
    assert len(house.log.read_text()) < 20_000


def test_a_folder_that_may_not_be_read_ends_the_first_start_with_69(build: Build) -> None:
    database = {"url": "sqlite:///closed/jobs.db", "connect_timeout": "1s"}
    house = build(TASKS, config={"database": database})
    closed = house.folder / "closed"
    closed.mkdir(mode=0o000)
    try:
        family = house.start(ready=False, prefix=without_override())
        assert family.wait(20) == 69
    finally:
        closed.chmod(0o700)
    assert house.heard("it cannot be opened")


def without_override() -> list[str]:
    """A `prefix` under which root, too, is held to the mode of a file."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to take that away")
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]


def test_a_database_that_comes_in_time_is_taken(build: Build) -> None:
    house = build(TASKS, config={"database": {"connect_timeout": "20s"}})
    obstacle = house.folder / "jobs.db"
    obstacle.mkdir()
    family = house.start(ready=False)
    eventually(lambda: house.said("the database cannot be used"))
    obstacle.rmdir()
    house.wait_ready(family)
    house.wait_finished([house.enqueue("quick", 1)])
    assert house.stop(family) == 0


# -- a system that gives nothing


def test_a_failed_fork_is_tried_again_with_growing_delay(build: Build) -> None:
    inject = traced("-e", "trace=clone", "-e", "inject=clone:error=EAGAIN:when=2..5")
    house = build(TASKS, processes=2)
    family = house.start(prefix=inject)
    assert house.heard("cannot fork a worker")
    house.wait_finished([house.enqueue("quick", 1)])
    assert len(house.workers()) == 2
    assert house.stop(family) == 0


def test_forks_that_fail_for_ever_neither_kill_the_parent_nor_spin(build: Build) -> None:
    # The first looks at the database, then come caretaker and workers.
    inject = traced("-e", "trace=clone", "-e", "inject=clone:error=EAGAIN:when=5+")
    house = build(TASKS, processes=2)
    family = house.start(prefix=inject)
    house.enqueue("die", retries=0)
    eventually(lambda: len(house.said("cannot fork a worker")) >= 3, what="three failed forks")
    house.wait_finished([house.enqueue("quick", 1)])
    assert len(house.said("cannot fork a worker")) < 10
    eventually(lambda: house.status()["state"] == "degraded")
    assert house.stop(family) == 0


# -- a log that cannot be written


def test_a_closed_log_pipe_hurts_nobody(build: Build) -> None:
    house = build(TASKS, processes=2)
    read, write = os.pipe()
    family = house.start(output=write)
    os.close(write)
    os.close(read)
    house.wait_finished([house.enqueue("die", retries=0)])
    house.wait_finished([house.enqueue("quick", n) for n in range(20)])
    eventually(lambda: len(house.workers()) == 2)
    assert house.stop(family) == 0


def test_a_full_log_pipe_blocks_nobody(build: Build) -> None:
    house = build(TASKS, processes=2)
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    try:
        family = house.start(output=write)
        house.wait_finished([house.enqueue("die", retries=0)])
        house.wait_finished([house.enqueue("quick", n) for n in range(20)])
        assert house.stop(family) == 0
    finally:
        os.close(read)
        os.close(write)


def test_closed_standard_streams_let_no_log_line_into_a_file_of_ours(build: Build) -> None:
    house = build(TASKS, processes=1)
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    family = house.start(prefix=shell)
    house.wait_finished([house.enqueue("die", retries=0)])
    house.wait_finished([house.enqueue("quick", 1)])
    assert (house.state_dir / "lock").read_text().split()[0] == str(family.pid)
    assert len((house.state_dir / "lock").read_text().splitlines()) == 1
    assert house.query("PRAGMA integrity_check") == [("ok",)]
    assert house.stop(family) == 0


# -- as the first process of a container


def test_as_pid_1_strangers_are_reaped_and_not_taken_for_workers(build: Build) -> None:
    source = """
@task
def orphan():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            mark("orphans", os.getpid())
            os._exit(0)
        os._exit(0)
    os.wait()
"""
    if os.geteuid() != 0:
        pytest.skip("a pid namespace of one's own needs root")
    house = build(TASKS + source, processes=2)
    unshare = ["unshare", "-fp", "--mount-proc", "--kill-child"]
    family = house.start(ready=False, prefix=unshare)
    house.wait_finished([house.enqueue("orphan") for _ in range(10)])
    (first,) = house.children(family.pid)
    eventually(lambda: len(house.lines("orphans")) == 10, what="the orphans have run")
    eventually(lambda: not zombies_of(first, house), what="no zombie is left")
    eventually(lambda: len(house.children(first)) == 3, what="the family's own are left")
    assert house.status()["pid"] == 1
    assert house.status()["restarts"] == 0
    os.kill(first, signal.SIGTERM)
    assert family.wait(20) == 0


# -- small and quiet


def switches(pid: int) -> int:
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def test_an_idle_family_wakes_about_once_a_second_per_process(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    house.wait_finished([house.enqueue("quick", n) for n in range(20)])
    settled = SYSTEM.monotonic_ns() + 1_000_000_000
    eventually(lambda: SYSTEM.monotonic_ns() > settled)
    pids = [family.pid, *house.children(family.pid)]
    before = [switches(pid) for pid in pids]
    until = SYSTEM.monotonic_ns() + 5_000_000_000
    eventually(lambda: SYSTEM.monotonic_ns() > until)
    woken = [switches(pid) - start for pid, start in zip(pids, before, strict=True)]
    assert max(woken) <= 10, woken
    assert house.stop(family) == 0


def test_a_family_of_two_workers_needs_less_than_60_mb(build: Build) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    house.wait_finished([house.enqueue("quick", n) for n in range(100)])
    total = 0
    for pid in (family.pid, *house.children(family.pid)):
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(told.split("\nPss:")[1].split()[0])
    assert total < 60 * 1024, f"{total} kB"
    assert house.stop(family) == 0


def test_four_workers_become_ready(build: Build) -> None:
    house = build(TASKS, processes=4)
    began = SYSTEM.monotonic_ns()
    family = house.start()
    print(f"4 workers ready after {(SYSTEM.monotonic_ns() - began) / 1e6:.0f} ms")
    assert len(house.workers()) == 4
    assert house.stop(family) == 0
