"""A family whose application is imported once: its workers are copies of a template."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.system.harness import MARK, Build, House, alive
from tests.system.test_process_embedding import script
from tests.waiting import eventually

pytestmark = pytest.mark.system

PRELOAD = {"tasks": {"modules": ["app"], "preload": True}}

TASKS = f"""{MARK}
IMPORTED = os.getpid()
CODE = 1
mark("imports", IMPORTED)

@task
def who():
    return [IMPORTED, os.getpid(), os.getppid(), CODE]

@task
def gated():
    mark("began", os.getpid())
    gate("go")
"""

THREAD = """
import threading
threading.Thread(target=threading.Event().wait, name="sender", daemon=True).start()
"""


def ask(house: House) -> list[int]:
    """Who imported the application, who runs, whose child that is, and which code that is."""
    found: Any = house.client.wait(house.enqueue("who"), timeout=60).result
    return list(found)


def template(house: House) -> dict[str, Any]:
    found: dict[str, Any] | None = house.status().get("template")
    return found or {}


def is_served(house: House, but: int = 0) -> int:
    """The pid of a template that serves and is not that one; 0 for none."""
    told = template(house)
    return int(told["pid"]) if told.get("state") == "idle" and told["pid"] != but else 0


def test_workers_are_children_of_the_parent_that_share_one_import(build: Build) -> None:
    house = build(TASKS, config=PRELOAD, processes=3)
    process = house.start()
    assert len(house.children(process.pid)) == 5  # and a caretaker
    imported, worker, parent, _ = ask(house)
    assert (imported, parent) == (template(house)["pid"], process.pid)
    assert worker in house.workers()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(set(house.workers()) - {worker}) == 3, what="it is replaced")
    assert house.lines("imports") == [str(imported)]
    assert house.stop(process) == 0


def test_the_hooks_before_a_fork_run_once_and_those_of_the_start_in_each_worker(
    build: Build,
) -> None:
    hooks = """
@before_fork
def once():
    mark("once", os.getpid())

@on_start
async def each():
    mark("each", os.getpid())
"""
    house = build(TASKS + hooks, config=PRELOAD, processes=3)
    process = house.start()
    assert house.lines("once") == [str(template(house)["pid"])]
    assert sorted(map(int, house.lines("each"))) == sorted(house.workers())
    assert house.stop(process) == 0


HANGS = """
def hang():
    if os.path.exists("hang"):
        os.unlink("hang")
        mark("hung", os.getpid())
        time.sleep(600)  # in the middle process

os.register_at_fork(after_in_child=hang)
"""


def test_a_fork_that_hangs_is_ended_and_its_worker_imports_by_itself(build: Build) -> None:
    house = build(TASKS + HANGS, config=PRELOAD, processes=1)
    process = house.start()
    first, worker = template(house)["pid"], house.workers()[0]
    house.touch("hang")
    os.kill(worker, signal.SIGKILL)
    again = house.wait_lines("imports", 2)[1]
    assert int(again) != first
    assert house.heard("gave no worker (no answer in 5 s)")
    second = eventually(lambda: is_served(house, but=first), what="another template")
    assert not alive(first)
    eventually(lambda: not alive(int(house.lines("hung")[0])), what="what hung is gone")
    os.kill(house.workers()[0], signal.SIGKILL)
    eventually(lambda: ask(house)[0] == second, what="a worker is forked from it")
    assert house.stop(process) == 0


def test_the_death_of_a_template_is_seen_in_the_status_and_harms_no_worker(build: Build) -> None:
    # The second import waits, so that there is time to see it.
    house = build(
        f"{TASKS}\nif len(open('imports').read().split()) > 1:\n    gate('on')\n", config=PRELOAD
    )
    process = house.start()
    workers, first = house.workers(), template(house)["pid"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: "the template has died" in " ".join(house.status()["degraded"]))
    assert house.said("template keeps dying; next start in")
    house.touch("on")
    eventually(lambda: is_served(house, but=first), what="another template")
    eventually(lambda: house.status()["degraded"] == [], what="all is well again")
    assert house.workers() == workers
    assert house.stop(process) == 0


def test_an_application_that_cannot_be_copied_is_named_and_runs_without_preload(
    build: Build,
) -> None:
    house = build(TASKS + THREAD, config=PRELOAD, processes=2)
    process = house.start()
    told = "module app started the thread 'sender'"
    eventually(lambda: told in " ".join(house.status()["degraded"]), what="it is told")
    assert len(house.heard(told)) == 2  # by the template and by the status that is degraded
    imported, worker, *_ = ask(house)
    assert imported == worker
    # Mended and reloaded it is imported once.
    (house.folder / "app.py").write_text((house.folder / "app.py").read_text().replace(THREAD, ""))
    process.send_signal(signal.SIGHUP)
    eventually(lambda: house.status()["reload"]["state"] == "done", what="it is reloaded")
    assert ask(house)[0] == template(house)["pid"]
    assert house.status()["degraded"] == []
    assert house.stop(process) == 0


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("this is no Python", "SyntaxError"),
        ("time.sleep(600)", "took longer than 4s"),
        ("os._exit(3)", "ended its process: exit code 3"),
        ("@before_fork\ndef fails():\n    raise OSError('no such host')", "no such host"),
        ("@on_start\ndef fails():\n    raise OSError('no such host')", "no such host"),
    ],
    ids=["syntax", "hang", "exit", "hook before a fork", "hook of the start"],
)
def test_a_broken_deploy_leaves_the_old_template_and_its_workers_as_they_are(
    build: Build, broken: str, told: str
) -> None:
    supervisor = {"boot_timeout": "4s"} if "sleep" in broken else {}
    house = build(TASKS, config={**PRELOAD, "supervisor": supervisor})
    process = house.start()
    workers, first = house.workers(), template(house)["pid"]
    source = (house.folder / "app.py").read_text()
    (house.folder / "app.py").write_text(f"{source}\n{broken}\n")
    process.send_signal(signal.SIGHUP)
    eventually(lambda: house.status()["reload"]["state"] == "refused", what="it is refused")
    assert told in house.status()["reload"]["reason"]
    assert len(house.heard("reload refused")) == 1
    assert (house.workers(), is_served(house)) == (workers, first)
    # The old code is what new workers have, too.
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: workers[0] not in house.workers() and len(house.workers()) == 2)
    assert ask(house)[0] == first
    (house.folder / "app.py").write_text(source.replace("CODE = 1", "CODE = 22"))
    process.send_signal(signal.SIGHUP)
    eventually(lambda: house.status()["reload"]["state"] == "done", what="it is reloaded")
    imported, _, _, code = ask(house)
    assert code == 22
    assert imported == is_served(house, but=first)
    assert house.stop(process) == 0
    assert not alive(first)


def test_preload_is_turned_on_and_off_by_a_reload(build: Build) -> None:
    house = build(TASKS, processes=1)
    process = house.start()
    for preload in (True, False):
        house.configure({"tasks": {"modules": ["app"], "preload": preload}}, processes=1)
        number = house.status()["reload"]["number"]
        process.send_signal(signal.SIGHUP)
        eventually(
            lambda number=number: (
                house.status()["reload"]["number"] > number  # type: ignore[misc]
                and house.status()["reload"]["state"] == "done"
            ),
            what="it is reloaded",
        )
        imported, worker, *_ = ask(house)
        assert (imported != worker) is preload
    eventually(lambda: template(house) == {}, what="the template has left")
    assert house.stop(process) == 0


def test_a_rotated_log_is_what_later_workers_write_to(build: Build) -> None:
    house = build(
        TASKS, config={**PRELOAD, "log": {"level": "debug", "file": "family.log"}}, processes=1
    )
    process = house.start()
    log = house.folder / "family.log"
    log.rename(house.folder / "old.log")
    process.send_signal(signal.SIGUSR1)
    eventually(log.exists, what="the log is reopened")
    first = house.workers()[0]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: house.workers() not in ([], [first]), what="it is replaced")
    ask(house)
    eventually(lambda: "app:who succeeded" in log.read_text(), what="its worker writes there")
    assert house.stop(process) == 0


def test_workers_of_a_reload_log_as_the_new_configuration_says(build: Build) -> None:
    house = build(TASKS, config={**PRELOAD, "log": {"level": "info"}}, processes=1)
    process = house.start()
    house.configure({**PRELOAD, "log": {"level": "debug", "file": "new.log"}}, processes=1)
    process.send_signal(signal.SIGHUP)
    eventually(lambda: house.status()["reload"]["state"] == "done", what="it is reloaded")
    ask(house)
    log = house.folder / "new.log"
    eventually(lambda: "app:who succeeded" in log.read_text(), what="its worker writes there")
    assert house.stop(process) == 0


def test_a_stop_does_not_wait_for_an_import(build: Build) -> None:
    house = build("import os, time\nopen('begun', 'w')\ntime.sleep(600)\n", config=PRELOAD)
    process = house.start(ready=False)
    eventually((house.folder / "begun").exists, what="it imports")
    assert house.stop(process) == 0


def test_an_application_that_cannot_be_imported_ends_a_first_start(build: Build) -> None:
    house = build("import nothing_of_that_name\n", config=PRELOAD)
    assert house.start(ready=False).wait(60) == 78
    assert house.heard("'app' cannot be imported: ModuleNotFoundError")


def test_a_family_in_a_script_of_ones_own_goes_without_and_says_so(build: Build) -> None:
    house = build(TASKS, config=PRELOAD, processes=1)
    house.enqueue("who")
    text = (
        "from jobvisor import Config, Supervisor\n"
        "print(Supervisor(Config.load('config.toml')).run(drain=True))\n"
    )
    told, _ = script(house, text).communicate(timeout=60)
    assert told == "0\n"
    assert len(house.heard("preload is not done here")) == 1


def test_a_family_beside_a_script_has_its_template(build: Build) -> None:
    house = build(TASKS, config=PRELOAD, processes=1)
    job = house.enqueue("who")
    text = (
        "from jobvisor import Client, Config, Supervisor\n"
        "with Supervisor(Config.load('config.toml')).running():\n"
        f"    print(*Client().wait({job}, timeout=30).result)\n"
    )
    told, _ = script(house, text).communicate(timeout=60)
    imported, worker, *_ = told.split()
    assert imported != worker
