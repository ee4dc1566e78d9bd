"""One loop for the async jobs of a process, one after the other: each ends with all that it has left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.held_loop import HeldLoop
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.registry import Registry
from tests.store.processes import in_a_copy

Async = Callable[[], Coroutine[Any, Any, Any]]
JOB = Claimed(1, "app:f", "[]", "{}", 1, 1, 1, None, 0, 0, None, "default", 0)


class House:
    """One process that runs async functions as jobs."""

    def __init__(self) -> None:
        self._registry = Registry()
        self.execution = Execution(self._registry, clock=SYSTEM, port=Nobody(), worker="worker 1")

    def run(self, function: Callable[[], Any]) -> Outcome:
        name = f"app:{len(self._registry.names())}"
        self._registry.task(function, name=name)
        return self.execution.run(JOB._replace(task=name))

    def value(self, function: Callable[[], Any]) -> str | None:
        outcome = self.run(function)
        assert outcome.verb == "succeed", outcome.failure
        return outcome.result


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.execution.close()


def test_two_jobs_run_on_one_loop_and_what_was_begun_before_them_goes_on(house: House) -> None:
    asked: asyncio.Queue[asyncio.Future[int]]
    loops = []

    async def client() -> None:
        """As of a library that serves its calls by a task of its own."""
        nonlocal asked
        asked = asyncio.Queue()

        async def serve() -> None:
            while True:
                (await asked.get()).set_result(7)

        served.append(asyncio.create_task(serve()))

    async def job() -> int:
        loop = asyncio.get_running_loop()
        loops.append(loop)
        answer = loop.create_future()
        await asked.put(answer)
        return int(await answer)

    served: list[asyncio.Task[None]] = []
    _, failed = house.execution.loop.attend(client(), house.execution.context)
    assert failed is None
    assert [house.value(job), house.value(job)] == ["7", "7"]
    assert loops[0] is loops[1]
    house.execution.close()
    assert served[0].cancelled()


def test_what_a_job_has_left_ends_before_it_does(house: House) -> None:
    seen: list[str] = []

    async def task() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            seen.append("task")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append("generator")

    def work() -> None:
        begun.set()
        go_on.wait()
        seen.append("thread")

    async def job() -> None:
        kept.append(asyncio.create_task(task()))
        kept.append(numbers())
        await anext(kept[1])
        kept.append(asyncio.create_task(asyncio.to_thread(work)))
        await asyncio.to_thread(begun.wait)
        asyncio.get_running_loop().call_later(0.01, go_on.set)

    begun, go_on = threading.Event(), threading.Event()
    kept: list[Any] = []
    house.value(job)
    assert sorted(seen) == ["generator", "task", "thread"]


def test_a_generator_of_another_job_or_of_the_start_stays_open(house: House) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    async def begin() -> None:
        kept.append(numbers())
        await anext(kept[0])

    async def job() -> int:
        return int(await anext(kept[0]))

    kept: list[Any] = []
    house.execution.loop.attend(begin(), house.execution.context)
    assert [house.value(job), house.value(job)] == ["1", "2"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_whatever_is_raised_is_the_outcome_and_the_loop_goes_on(
    house: House, error: BaseException
) -> None:
    async def raises() -> None:
        await asyncio.sleep(0)
        raise error

    async def raises_below() -> None:
        await asyncio.gather(raises(), asyncio.sleep(60))

    async def job() -> int:
        return id(asyncio.get_running_loop())

    before = house.value(job)
    for function in (raises, raises_below):
        outcome = house.run(function)
        assert outcome.failure is not None
        assert outcome.failure.error_type.endswith(type(error).__name__)
        assert "jobs/held_loop.py" not in outcome.failure.traceback.replace("tests/jobs", "")
    assert house.value(job) == before


def test_a_loop_that_a_job_has_closed_or_stopped_is_replaced(house: House) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def job() -> None:
        loops.append(asyncio.get_running_loop())

    async def stops() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(60)

    house.value(job)
    house.value(loops[0].close)
    house.value(job)
    outcome = house.run(stops)
    assert outcome.failure is not None
    assert "stopped before" in outcome.failure.message
    house.value(job)
    assert len({id(loop) for loop in loops}) == 3
    assert all(loop.is_closed() for loop in loops[:2])


def test_a_loop_that_was_robbed_of_its_descriptors_is_replaced(house: House) -> None:
    async def robs() -> None:
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        os.close(selector.fileno())
        await asyncio.sleep(0)

    async def job() -> int:
        return 7

    assert house.run(robs).verb == "fail"
    assert house.value(job) == "7"


def test_a_copy_that_a_job_has_forked_goes_no_further(house: House) -> None:
    reading, writing = os.pipe()

    async def forks(*, waits: bool) -> int:
        pid = os.fork()
        if waits:
            await asyncio.sleep(0)
        if not pid:
            os.write(writing, b"copy" if waits else b"c")
        return pid

    async def waits() -> int:
        return await forks(waits=True)

    async def returns() -> int:
        return await forks(waits=False)

    for function in (waits, returns):
        pid = house.value(function)
        assert pid is not None
        assert os.waitpid(int(pid), 0)[1] == 0
    os.close(writing)
    assert os.read(reading, 100) == b"c"
    os.close(reading)


def test_a_copy_of_the_process_makes_a_loop_of_its_own() -> None:
    async def job() -> int:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    held = HeldLoop()
    first = held.run(job())
    assert in_a_copy(lambda: held.run(job()) != first and held.run(job())[1]) == "None"
    assert held.run(job()) == first
    held.close()


def test_an_async_task_in_a_thread_whose_loop_runs_is_refused_with_a_word(house: House) -> None:
    async def job() -> None: ...

    async def outside() -> Outcome:
        return house.run(job)

    outcome = asyncio.run(outside())
    assert outcome.failure is not None
    assert "run it in another one" in outcome.failure.message


def test_who_runs_no_coroutine_does_not_import_asyncio() -> None:
    code = """
import sys
from jobvisor import testing, task
@task(name="app:f")
def f(): return 7
with testing.in_memory() as jobs:
    f.enqueue()
    assert jobs.run_all()[0].result == 7
print("asyncio" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
