"""A family in a script of one's own: in its process, or beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import MARK, ROOT, Build, House, alive
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
"""


def script(house: House, text: str, stdin: int | None = None) -> subprocess.Popen[str]:
    (house.folder / "script.py").write_text(text)
    with house.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=house.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def test_a_script_can_be_the_parent_itself_and_goes_on_after_it(build: Build) -> None:
    house = build(TASKS)
    ids = [house.enqueue("quick", n) for n in range(50)]
    process = script(
        house,
        """
import signal
from jobvisor import Config, Supervisor
def mine(number, frame):
    print("mine", flush=True)
signal.signal(signal.SIGTERM, mine)
code = Supervisor(Config.load("config.toml")).run(drain=True)
print("code", code, signal.getsignal(signal.SIGTERM) is mine, flush=True)
signal.raise_signal(signal.SIGTERM)
""",
    )
    told, _ = process.communicate(timeout=30)
    assert told.split("\n") == ["code 0 True", "mine", ""]
    assert process.returncode == 0
    assert {house.client.get(job).state.value for job in ids} == {"succeeded"}


def test_run_twice_in_one_script_runs_two_families(build: Build) -> None:
    house = build(TASKS)
    house.enqueue("quick", 1)
    process = script(
        house,
        """
from jobvisor import Config, Supervisor
from jobvisor import Client
config = Config.load("config.toml")
first = Supervisor(config).run(drain=True)
with Client(config.database.url) as client:
    client.enqueue("app:quick", 2)
print(first, Supervisor(config).run(drain=True))
""",
    )
    told, _ = process.communicate(timeout=30)
    assert told == "0 0\n"
    assert house.lines("quick") == ["1", "2"]


def test_a_family_and_its_tasks_work_in_the_database_of_an_application(build: Build) -> None:
    house = build(TASKS)
    process = script(
        house,
        """
import sqlite3
from jobvisor import Client, Config, Supervisor
app = sqlite3.connect("app.db", isolation_level=None)
app.executescript("CREATE TABLE jobs (title); CREATE TABLE meta (x); PRAGMA user_version = 7")
with open("more.py", "w") as file:
    print("from jobvisor import Client, task", file=file)
    print("@task", "def again(n):", "    Client().enqueue('app:quick', n)", sep="\\n", file=file)
config = Config.of({
    "database": {"url": "sqlite:///app.db", "prefix": "our_"},
    "tasks": {"modules": ["app", "more"]},
    "workers": [{"processes": 1}],
})
with Client(settings=config.settings) as client:
    client.enqueue("more:again", 3)
code = Supervisor(config).run(drain=True)
(done,) = app.execute("SELECT count(*) FROM our_jobs WHERE state = 'succeeded'").fetchone()
print(code, done, *app.execute("PRAGMA user_version").fetchone())
""",
    )
    told, _ = process.communicate(timeout=30)
    assert told == "0 2 7\n"
    assert house.lines("quick") == ["3"]


def test_a_script_with_threads_is_refused_with_the_way_out(build: Build) -> None:
    house = build(TASKS)
    process = script(
        house,
        """
import threading
from jobvisor import JobsError
from jobvisor import Config, Supervisor
done = threading.Event()
threading.Thread(target=done.wait, name="web").start()
try:
    Supervisor(Config.load("config.toml")).run()
except JobsError as error:
    print(error)
done.set()
""",
    )
    told, _ = process.communicate(timeout=30)
    assert "web" in told
    assert "running()" in told


def test_running_beside_a_script_leaves_its_threads_and_signals_alone(build: Build) -> None:
    house = build(TASKS)
    process = script(
        house,
        """
import os, signal, threading, time
from jobvisor import Client
from jobvisor import Config, Supervisor
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("TERM"))
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
config = Config.load("config.toml")
with Client(config.database.url) as client, Supervisor(config).running() as family:
    ids = [client.enqueue("app:quick", n).id for n in range(20)]
    os.kill(os.getpid(), signal.SIGTERM)
    for job in ids:
        client.wait(job, timeout=20)
    pid = family.pid
done.set()
thread.join()
print(heard, pid is not None, family.pid, family.join())
""",
    )
    told, _ = process.communicate(timeout=40)
    assert told == "['TERM'] True None 0\n"
    assert len(house.lines("quick")) == 20


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a process of its own"])
def test_a_family_drains_and_leaves_when_its_script_is_killed(build: Build, forks: bool) -> None:
    house = build(TASKS, processes=2)
    job = house.enqueue("gated", 1, retries=0)
    process = script(
        house,
        f"""
import os, time
from jobvisor import Config, Supervisor
with Supervisor(Config.load("config.toml")).running() as family:
    copy = os.fork() if {forks} else 0  # as multiprocessing does; it holds all that the script had open
    while {forks} and copy == 0:
        if os.path.exists("over"):
            os._exit(0)
        time.sleep(0.01)  # task body
    print(family.pid, copy, flush=True)
    time.sleep(600)  # task body
""",
    )
    assert process.stdout is not None
    parent, copy = map(int, process.stdout.readline().split())
    house.wait_lines("began")
    pids = [parent, *house.children(parent)]
    process.kill()
    process.wait(10)
    process.stdout.close()
    eventually(lambda: house.said("stopping: running jobs have"))
    house.touch("go")
    eventually(lambda: not any(alive(pid) for pid in pids), what="the family has left")
    found = house.client.get(job)
    assert (found.state, found.attempt) == ("succeeded", 1)
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    house.touch("over")
    eventually(lambda: not copy or not alive(copy), what="the copy has left")


def test_a_script_that_raises_stops_its_family(build: Build) -> None:
    house = build(TASKS)
    process = script(
        house,
        """
from jobvisor import Config, Supervisor
with Supervisor(Config.load("config.toml")).running() as family:
    print(family.pid, flush=True)
    raise ValueError("the script's own")
""",
    )
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert not Path(f"/proc/{told.strip()}").exists()
    assert house.heard("exit code 0")


def test_start_stop_and_join_say_how_it_ended(build: Build) -> None:
    house = build(TASKS, processes=1)
    house.enqueue("gated", 1)
    process = script(
        house,
        """
import os, time
from jobvisor import JobsError
from jobvisor import Config, Supervisor
family = Supervisor(Config.load("config.toml"))
family.start()
family.wait_ready()
while not os.path.exists("began"):
    time.sleep(0.01)  # task body
try:
    family.start()
except JobsError as error:
    print(error)
try:
    family.join(timeout=0.1)
except JobsError as error:
    print(error)
print(family.stop(timeout=0.2))
""",
    )
    told, _ = process.communicate(timeout=30)
    first, second, third, _end = told.split("\n")
    assert "already" in first
    assert "still runs after 0.1 s" in second
    assert third == "75"
    assert house.client.get(1).attempt == 0


def test_a_family_beside_a_script_has_neither_its_folder_nor_our_path_to_look_in(
    build: Build,
) -> None:
    house = build(
        f"""{MARK}
@task
def look():
    mark("path", os.environ.get("PYTHONPATH") + " " + sys.path[0])
""",
        processes=1,
    )
    (house.folder / "pickle.py").write_text("raise SystemExit('shadowed')")
    house.enqueue("look")
    process = script(
        house,
        """
import sys
sys.path.remove(sys.path[0])
from jobvisor import Config, Supervisor
with Supervisor(Config.load("config.toml")).running():
    sys.stdin.readline()
""",
        stdin=subprocess.PIPE,
    )
    (told,) = house.wait_lines("path")
    process.communicate("")
    variable, first = told.split(" ")
    assert variable == str(ROOT)
    assert first not in ("", str(house.folder))
    assert process.returncode == 0


def test_a_broken_configuration_is_told_to_the_script(build: Build) -> None:
    house = build("raise ValueError('broken module')")
    process = script(
        house,
        """
from jobvisor import JobsError
from jobvisor import Config, Supervisor
try:
    with Supervisor(Config.load("config.toml")).running():
        print("ran")
except JobsError as error:
    print(error)
""",
    )
    told, _ = process.communicate(timeout=30)
    assert "exit code 78 before it was ready" in told
    assert house.heard("broken module")


def test_ctrl_c_reaches_the_parent_alone_and_drains(build: Build) -> None:
    house = build(TASKS, processes=2)
    job = house.enqueue("gated", 1, retries=0)
    family = house.start()
    house.wait_lines("began")
    # A terminal signals its foreground process group; children have groups of their own.
    os.killpg(family.pid, signal.SIGINT)
    eventually(lambda: house.said("stopping: running jobs have"))
    house.touch("go")
    assert family.wait(20) == 0
    assert house.client.get(job).state == "succeeded"
