"""A stack as text: of a thread, of what is awaited, and of what faulthandler wrote."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.registry import Registry
from jobvisor.supervisor.autopsy.frames import OUTERMOST, STACK_MAX, native_text, stack_text


def lines(text: str) -> list[str]:
    """The names in a stack, outermost first."""
    return [line.rsplit(" in ", 1)[-1].rsplit(".", 1)[-1] for line in text.splitlines()]


def deep(depth: int) -> str:
    return stack_text(sys._getframe()) if depth == 0 else deep(depth - 1)


def test_a_stack_names_file_line_and_function_outermost_first() -> None:
    text = deep(1)
    assert lines(text)[-3:] == [
        "test_a_stack_names_file_line_and_function_outermost_first", "deep", "deep",
    ]  # fmt: skip
    assert text.splitlines()[-1].startswith(f'  File "{__file__}", line ')


def test_a_stack_that_is_too_long_keeps_its_outermost_and_its_innermost_lines() -> None:
    text = deep(400)
    told = text.splitlines()
    assert STACK_MAX - 300 < len(text.encode()) <= STACK_MAX
    assert told[-1].endswith("in deep")
    assert told[OUTERMOST].startswith("  ... ")
    assert int(told[OUTERMOST].split()[1]) + len(told) - 1 > 400


def test_a_name_that_is_longer_than_a_whole_stack_is_cut() -> None:
    code = f"def {'n' * 3 * STACK_MAX}(): return stack_text(sys._getframe())\ntold = {'n' * 3 * STACK_MAX}()"
    names: dict[str, Any] = {"stack_text": stack_text, "sys": sys}
    exec(code, names)
    assert 0 < len(names["told"].encode()) <= STACK_MAX


async def leaf() -> None:
    await asyncio.sleep(60)


async def all_at_once() -> None:
    await asyncio.gather(leaf(), leaf())


async def chained() -> None:
    async with asyncio.timeout(60):
        await all_at_once()


def told_of(coroutine: Coroutine[Any, Any, None], *, as_task: bool) -> str:
    """What is told of a coroutine that waits in a loop."""

    async def look() -> str:
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0.01)
        text = stack_text(None, [task if as_task else coroutine])
        task.cancel()
        await asyncio.wait([task])
        return text

    return asyncio.run(look())


def test_a_coroutine_that_is_suspended_tells_its_chain_of_awaits() -> None:
    assert lines(told_of(chained(), as_task=False)) == ["chained", "all_at_once"]


def test_a_task_tells_also_what_the_tasks_do_that_it_waits_for() -> None:
    told = lines(told_of(chained(), as_task=True))
    assert told == [
        "chained", "all_at_once",
        "  of 2 at once, number 1:", "leaf", "sleep",
        "  of 2 at once, number 2:", "leaf", "sleep",
    ]  # fmt: skip


class Awkward:
    """An awaitable that answers every question with an error, as a user's may."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError

    def __await__(self) -> Any:
        return iter([None])


async def awkward() -> None:
    await Awkward()


def test_no_code_of_a_users_awaitable_runs() -> None:
    coroutine = awkward()
    coroutine.send(None)
    assert lines(stack_text(None, [coroutine])) == ["awkward"]
    coroutine.close()


class Asked(Execution):
    """One that is asked for its stack by the task that it runs."""

    def told(self, function: Any) -> str:
        registry = Registry()
        registry.task(function, name="asked")
        self._registry = registry
        job = Claimed._make([0] * len(Claimed._fields))._replace(
            id=1, task="asked", args="[]", kwargs="{}", expires_in_ms=None, headers=None
        )
        outcome = self.run(job)
        assert outcome.verb == "succeed"
        return str(json.loads(outcome.result or ""))


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked(Registry(), clock=SYSTEM, port=None, worker="worker 1")  # type: ignore[arg-type]
    yield made
    made.close()


def test_the_stack_of_a_task_begins_with_its_function(asked: Asked) -> None:
    def task() -> str:
        return stack_text(sys._getframe())

    assert lines(asked.told(task)) == ["task"]


def test_the_stack_of_a_task_that_is_a_coroutine_begins_with_its_function(asked: Asked) -> None:
    async def task() -> str:
        await asyncio.sleep(0)
        return stack_text(sys._getframe(), asked.tasks)

    assert lines(asked.told(task)) == ["task"]


def test_a_task_tells_what_it_awaits_while_its_loop_waits(asked: Asked) -> None:
    async def task() -> str:
        told: list[str] = []

        def look(frame: FrameType) -> None:
            told.append(stack_text(frame.f_back, asked.tasks))

        asyncio.get_running_loop().call_soon(lambda: look(sys._getframe()))
        await asyncio.sleep(0.001)
        return told[0]

    assert lines(asked.told(task)) == ["task", "sleep"]


def native(folder: Path, head: str = "") -> str:
    """What faulthandler writes of this place."""
    path = folder / "native"
    with path.open("a") as file:
        file.write(head)
        file.flush()
        faulthandler.dump_traceback(file, all_threads=False)
    return path.read_text()


def test_what_faulthandler_wrote_is_told_in_the_same_form(tmp_path: Path) -> None:
    told = native_text(native(tmp_path)).splitlines()
    assert told[-1].startswith(f'  File "{__file__}", line ')
    assert lines(told[-1]) == ["native"]


def test_what_faulthandler_wrote_last_is_told_with_the_error_it_names(tmp_path: Path) -> None:
    native(tmp_path, "Fatal Python error: Aborted\n\n")
    text = native(tmp_path, "Fatal Python error: Segmentation fault\n\n")
    assert native_text(text).splitlines()[0] == "Fatal Python error: Segmentation fault"
    assert "Aborted" not in native_text(text)


LANES = """Thread 0x0001 (most recent call first):
  File "app.py", line 5 in one
  File "lanes.py", line 9 in lane_1

Current thread 0x0002 (most recent call first):
  File "app.py", line 7 in eleven
  File "lanes.py", line 9 in lane_11
"""


@pytest.mark.parametrize(("lane", "name"), [(1, "one"), (11, "eleven")])
def test_of_several_lanes_the_thread_that_bears_its_number_is_told(lane: int, name: str) -> None:
    assert lines(native_text(LANES, lane)) == [f"lane_{lane}", name]


def test_of_a_lane_that_faulthandler_did_not_name_nothing_is_told() -> None:
    assert native_text(LANES, 2) == ""
    assert native_text("") == ""
