"""Around a job: hooks of a worker, one loop for what they make, context managers, headers, log lines."""

from __future__ import annotations

import json
import signal

import pytest

from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
import asyncio, contextvars, logging

region = contextvars.ContextVar("region", default="none")
log = logging.getLogger("app.mail")

@before_fork
def prepare():
    mark("hooks", "before_fork")

@on_start
def begin():
    region.set("north")
    signal.signal(signal.SIGALRM, lambda *_: None)  # as its tasks find it, so no stain
    mark("hooks", "start")

@on_start
async def connect():
    global asked
    asked = asyncio.Queue()
    async def serve():
        while True:
            answer, value = await asked.get()
            answer.set_result(2 * value)
    asyncio.create_task(serve())
    mark("hooks", f"connect {{region.get()}}")

@on_stop
async def disconnect():
    mark("hooks", f"disconnect {{len(asyncio.all_tasks())}}")

@on_stop
def broken():
    raise OSError("no way out")

@around
def noted(ctx):
    mark("around", f"{{ctx.task}} {{ctx.headers.get('trace')}}")
    yield

@task
async def double(n):
    answer = asyncio.get_running_loop().create_future()
    await asked.put((answer, n))
    return [await answer, region.get()]

@task
def parent():
    log.warning("on its way")
    return child.enqueue().id

@task
def child():
    return current().job
"""


def test_hooks_arounds_headers_and_log_lines_of_one_worker(build: Build) -> None:
    house = build(TASKS, processes=1)
    first = house.enqueue("parent", headers={"trace": "4bf9"})
    ids = [house.enqueue("double", n) for n in range(3)]
    family = house.start()
    house.wait_finished([first, *ids])
    assert [house.client.get(number).result for number in ids] == [
        [0, "north"], [2, "north"], [4, "north"],
    ]  # fmt: skip
    child = house.client.get(first).result
    house.wait_finished([child])
    found = house.client.get(child)
    assert (found.parent, found.headers, found.result) == (first, {"trace": "4bf9"}, child)
    assert sorted(house.lines("around")) == [
        *["app:child 4bf9"], *["app:double None"] * 3, "app:parent 4bf9",
    ]  # fmt: skip
    (line,) = house.heard("on its way")
    assert f"app.mail: on its way (job={first} task=app:parent queue=default" in line
    assert "trace=4bf9)" in line
    assert not house.said("signal handlers were changed")
    assert house.stop(family) == 0
    assert house.lines("hooks") == ["before_fork", "start", "connect north", "disconnect 2"]
    (told,) = house.heard("@on_stop hook broken (")
    assert "failed: OSError: 'no way out'" in told


FAILING = f"""{MARK}
@on_start
def begin():
    raise ConnectionError("no route")

@task
def never(): mark("never")
"""


def test_a_start_hook_that_fails_is_a_failed_boot_with_one_clear_sentence(build: Build) -> None:
    house = build(FAILING, processes=1)
    house.enqueue("never")
    family = house.start(ready=False)
    assert family.wait(60) == 78
    assert house.said("cannot start: the @on_start hook begin (")[0].endswith(
        "failed: ConnectionError: 'no route'"
    )
    assert house.lines("never") == []
    assert house.query("SELECT state, attempt FROM jobs") == [("pending", 0)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("on_start(5)", "@on_start takes a function, not 5"),
        ("around(None)", "@around takes a function, not None"),
        ("@before_fork\nasync def f(): ...", "no event loop goes across a fork"),
    ],
)
def test_what_is_no_hook_is_refused_by_check_and_start(
    build: Build, source: str, words: str
) -> None:
    house = build(source, processes=1)
    checked = house.command("check")
    assert checked.returncode == 78
    assert words in checked.stderr
    assert house.start(ready=False).wait(60) == 78
    assert house.heard(words)


HANGING = f"""{MARK}
@on_stop
def end():
    mark("ending")
    while True:
        time.sleep(0.01)  # task body

@task
def quick(): mark("quick")
"""


def test_a_stop_hook_that_hangs_keeps_no_stop_waiting_for_ever(build: Build) -> None:
    house = build(HANGING, processes=1, config={"supervisor": {"stop_timeout": "500ms"}})
    job = house.enqueue("quick")
    family = house.start()
    house.wait_finished([job])
    family.send_signal(signal.SIGTERM)
    assert family.wait(30) in (0, 75)
    assert house.lines("ending") == [""]
    assert house.client.get(job).state == "succeeded"


def test_a_worker_that_is_recycled_leaves_a_stop_hook_that_hangs(build: Build) -> None:
    house = build(
        HANGING, processes=1, max_jobs=1, config={"supervisor": {"stop_timeout": "200ms"}}
    )
    ids = [house.enqueue("quick") for _ in range(2)]
    family = house.start()
    house.wait_finished(ids)
    eventually(lambda: house.said("@on_stop hooks have not ended in 200ms"), what="it is left")
    house.stop(family)


def test_a_json_log_tells_the_job_of_a_line(build: Build) -> None:
    house = build(TASKS, processes=1, config={"log": {"format": "json"}})
    first = house.enqueue("parent")
    assert house.drain() == 0
    (line,) = house.heard("on its way")
    told = json.loads(line)
    assert told["fields"]["job"] == first
    assert told["fields"]["worker"] == "worker 1"


SHARED = f"""{MARK}
@before_fork
def prepare():
    global table
    table = list(range(1000))
    mark("before_fork", os.getpid())

@on_start
def begin(): mark("start", os.getpid())

@task
def use():
    return [os.getpid(), len(table)]
"""


def test_before_a_fork_is_once_in_the_template_and_a_start_is_in_each_worker(build: Build) -> None:
    house = build(SHARED, processes=2, config={"tasks": {"preload": True}})
    family = house.start()
    job = house.enqueue("use")
    house.wait_finished([job])
    pid, length = house.client.get(job).result
    assert length == 1000
    house.wait_lines("start", 2)
    [template] = house.lines("before_fork")
    started = house.lines("start")
    assert str(pid) in started
    assert template not in started
    assert house.stop(family) == 0
