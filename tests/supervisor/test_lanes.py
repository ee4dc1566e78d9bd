"""Many jobs at once: threads, one loop, and a backlog that both take from, without a database."""

from __future__ import annotations

import asyncio
import contextvars
import os
import selectors
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.context import Context
from jobvisor.jobs.events import Event, Events, subscribe
from jobvisor.jobs.outcome import SUCCEEDED, Cancelled, Fail, Outcome, Release, Retry, Snooze
from jobvisor.supervisor.board import (
    CANCEL_CLAIM,
    CANCEL_JOB,
    CURRENT,
    DEADLINE,
    RECALL,
    RUN,
    STOP,
    VERDICT,
)
from jobvisor.supervisor.several.backlog import Backlog
from jobvisor.supervisor.several.rounds import Rounds
from tests.store.processes import in_a_copy
from tests.supervisor.yard import Yard, job, threads_named
from tests.waiting import eventually

THOUSANDS = 3_000


def add(a: int, b: int) -> int:
    return a + b


async def wait_and_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def gives_a_coroutine(a: int, b: int) -> Any:
    return wait_and_add(a, b)


def outcome_of(yard: Yard, task: str, args: str = "[]", **values: Any) -> Outcome:
    return yard.run([job(1, task, args, **values)])[1]


def test_thousands_of_jobs_of_every_kind_each_run_once(tmp_path: Path) -> None:
    def act() -> str:
        yard = Yard(20, add, wait_and_add, gives_a_coroutine, folder=tmp_path)
        kinds = ("add", "wait_and_add", "gives_a_coroutine")
        ended = yard.run(job(n, kinds[n % 3], f"[{n},1]") for n in range(1, THOUSANDS + 1))
        assert all(ended[n].result == str(n + 1) for n in range(1, THOUSANDS + 1))
        assert not yard.backlog.holds()
        assert sum(yard.slot.column(CURRENT)) == 0
        return f"{len(ended)} jobs, {yard.slot.started} starts"

    assert in_a_copy(act) == f"{THOUSANDS} jobs, {THOUSANDS} starts"


@pytest.mark.parametrize("task", ["hold", "hold_async"])
def test_as_many_jobs_run_at_once_as_there_are_lanes_and_no_more(task: str) -> None:
    def act() -> str:
        lock, now, most = threading.Lock(), 0, 0

        def change(by: int) -> None:
            nonlocal now, most
            with lock:
                now += by
                most = max(most, now)

        def hold() -> None:
            change(1)
            time.sleep(0.005)  # task body
            change(-1)

        async def hold_async() -> None:
            change(1)
            await asyncio.sleep(0.005)
            change(-1)

        yard = Yard(8, hold, hold_async)
        yard.run(job(n, task) for n in range(1, 81))
        return str(most)

    assert in_a_copy(act) == "8"


def test_threads_are_made_as_they_are_needed() -> None:
    def act() -> str:
        yard = Yard(50, add, wait_and_add)
        yard.run([job(1, "wait_and_add", "[1,2]")])
        alone = threads_named("lanes")
        yard.run([job(2, "add", "[1,2]")])
        return f"{alone} {threads_named('lanes')}"

    assert in_a_copy(act) == "0 1"


def test_where_no_further_thread_can_be_made_the_others_do_all_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act() -> str:
        yard = Yard(10, add)
        yard.run([job(1, "add", "[0,0]")])
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        yard.run(job(n, "add", f"[{n},0]") for n in range(2, 102))
        monkeypatch.setattr(threading.Thread, "start", start)
        return f"{len(yard.ended)} {threads_named('lanes')}"

    assert in_a_copy(act) == "101 1"


def test_what_waits_for_the_first_thread_is_begun_once_it_can_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act() -> str:
        yard = Yard(10, add)
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        yard.begin([job(1, "add", "[1,1]"), job(2, "add", "[1,1]")])
        short = yard.calls.threads.are_short
        given = yard.calls.threads.take_back()
        monkeypatch.setattr(threading.Thread, "start", start)
        for lane, waiting in given[:1]:
            yard.calls.threads.give((lane, waiting))
        eventually(lambda: yard.settle() and yard.ended, what="the first has run")
        return f"{short} {len(given)} {sorted(yard.ended)}"

    assert in_a_copy(act) == "True 2 [1]"


class Raced(deque[Any]):
    """A backlog whose first job another lane takes while one reaches for it; then a turn adds to it."""

    then: Callable[[], None] | None = None

    def popleft(self) -> Any:
        then, self.then = self.then, None
        if then is None:
            return super().popleft()
        self.clear()
        try:
            return super().popleft()
        finally:
            then()


def test_a_job_that_comes_while_a_lane_finds_the_backlog_empty_is_begun_all_the_same() -> None:
    def act() -> str:
        backlog = Backlog()
        backlog.waiting = raced = Raced()
        yard = Yard(1, add, backlog=backlog)

        def bring() -> None:
            yard.begin([job(2, "add", "[1,1]")])

        raced.then = bring
        yard.begin([job(1, "add", "[1,1]")])
        eventually(lambda: yard.settle() and yard.ended, what="the second has run", limit=10)
        return str(sorted(yard.ended))

    assert in_a_copy(act) == "[2]"


def test_subscribers_are_told_once_a_thread_can_be_made_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act() -> str:
        yard, told, events = Yard(1, add), list[str](), Events(waits=True)
        subscribe(lambda event: told.append(event.verb))
        pool = SimpleNamespace(max_jobs=0)
        seat = SimpleNamespace(config=SimpleNamespace(workers=[pool]), pool=0)
        rounds = Rounds(
            cast("Any", SimpleNamespace(slot=yard.slot, seat=seat)), yard.shared,
            calls=yard.calls, coroutines=yard.coroutines, events=events, client=None,
            fitness=cast("Any", None), telling=cast("Any", None),
        )  # fmt: skip
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        events.emit(Event("claim", 1, "app:add", "default"))
        rounds.tell()
        monkeypatch.setattr(threading.Thread, "start", start)
        rounds.tell()
        eventually(lambda: told, what="it is told")
        return str(told)

    assert in_a_copy(act) == "['claim']"


# -- what a function may do


RAISED: list[tuple[BaseException, tuple[str, str]]] = [
    (ValueError("broken"), ("retry", "error")),
    (Retry(after=5), ("retry", "error")),
    (Snooze(5), ("snooze", "error")),
    (Fail("no"), ("fail", "error")),
    (Release(), ("release", "error")),
    (Cancelled("no"), ("cancel", "cancelled")),
    (SystemExit(3), ("retry", "error")),
    (KeyboardInterrupt(), ("retry", "error")),
    (asyncio.CancelledError(), ("retry", "error")),
    (GeneratorExit(), ("retry", "error")),
    (RecursionError(), ("retry", "error")),
    (MemoryError(), ("retry", "error")),
    (StopIteration(), ("retry", "error")),
]


@pytest.mark.parametrize("kind", ["def", "async", "task of its own"])
def test_whatever_a_job_raises_is_its_outcome_and_its_neighbours_run_on(kind: str) -> None:
    def act() -> str:
        def call(n: int) -> None:
            raise RAISED[n][0]

        async def wait(n: int) -> None:
            await asyncio.sleep(0)
            raise RAISED[n][0]

        async def wait_for_its_own(n: int) -> None:
            await asyncio.create_task(wait(n))

        tasks = {"def": call, "async": wait, "task of its own": wait_for_its_own}
        tasks[kind].__name__ = "f"
        yard = Yard(4, tasks[kind], add)
        jobs = [job(n + 1, "f", f"[{n}]") for n in range(len(RAISED))]
        yard.run([*jobs, job(99, "add", "[1,1]")])
        told = [(yard.ended[n + 1].verb, yard.ended[n + 1].kind) for n in range(len(RAISED))]
        wrong = [(each, got) for each, got in zip(RAISED, told, strict=True) if each[1] != got]
        return f"{wrong} {yard.ended[99].result}"

    assert in_a_copy(act) == "[] 2"


def test_a_traceback_begins_with_the_function_of_the_task() -> None:
    def act() -> str:
        def call() -> None:
            raise ValueError("broken")

        async def wait() -> None:
            await asyncio.sleep(0)
            raise ValueError("broken")

        yard = Yard(4, call, wait)
        yard.run([job(1, "call"), job(2, "wait")])
        texts = [
            outcome.failure.traceback
            for _, outcome in sorted(yard.ended.items())
            if outcome.failure
        ]
        return " ".join(text.splitlines()[1].split()[-1] for text in texts)

    assert in_a_copy(act) == "call wait"


def test_context_variables_of_one_job_are_not_the_next_ones() -> None:
    def act() -> str:
        known: contextvars.ContextVar[str] = contextvars.ContextVar("known")
        known.set("of the worker")
        seen: list[str] = []

        def call() -> None:
            seen.append(known.get())
            known.set("of a job")

        async def wait() -> None:
            seen.append(known.get())
            known.set("of a job")
            await asyncio.sleep(0)
            seen.append(known.get())

        yard = Yard(1, call, wait)
        for n in range(1, 5):
            yard.run([job(n, "call" if n % 2 else "wait")])
        return str(seen == ["of the worker", "of the worker", "of a job"] * 2)

    assert in_a_copy(act) == "True"


def test_the_context_of_each_job_speaks_through_its_lane(tmp_path: Path) -> None:
    def act() -> str:
        yard: Yard

        def call(ctx: Context) -> int:
            ctx.progress(ctx.job, total=100)
            ctx.state.setdefault("jobs", []).append(ctx.job)
            return ctx.job

        yard = Yard(5, call, folder=tmp_path)
        yard.begin(job(n, "call") for n in range(1, 31))
        assert yard.ledger is not None
        ledger = yard.ledger
        eventually(lambda: len(yard.ended) == 30 and not yard.lanes.busy, what="all have ended")
        told = {(r.job, r.progress) for r in ledger.journal().records}
        return str(told == {(n, f'{{"done": {n}, "total": 100}}') for n in range(1, 31)})

    assert in_a_copy(act) == "True"


# -- the loop


def test_an_async_run_ends_as_asyncio_run_ends_one() -> None:
    def act() -> str:
        said: list[str] = []

        async def left() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                said.append("task")
                raise

        def work() -> None:
            time.sleep(0.02)  # task body
            said.append("thread")

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                said.append("generator")

        async def leaves() -> None:
            kept.append(numbers())
            await anext(kept[0])
            asyncio.create_task(left())  # noqa: RUF006 -- left on purpose
            never_begun = asyncio.create_task(left())
            never_begun.cancel()
            asyncio.get_running_loop().run_in_executor(None, work)
            await asyncio.sleep(0)

        kept: list[AsyncIterator[int]] = []
        yard = Yard(2, leaves)
        ended = outcome_of(yard, "leaves")
        return f"{ended is SUCCEEDED} {sorted(said)}"

    assert in_a_copy(act) == "True ['generator', 'task', 'thread']"


def test_async_jobs_share_one_loop_for_the_life_of_the_worker() -> None:
    def act() -> str:
        loops: set[int] = set()

        async def note() -> None:
            loops.add(id(asyncio.get_running_loop()))

        yard = Yard(3, note)
        for n in range(1, 4):
            yard.run([job(n, "note")])
        return str(len(loops))

    assert in_a_copy(act) == "1"


def test_what_a_hook_has_begun_on_the_loop_serves_the_jobs_and_what_it_raises_comes_back() -> None:
    def act() -> str:
        asked: asyncio.Queue[asyncio.Future[int]]
        region = contextvars.ContextVar("region", default="none")

        async def connect() -> None:
            nonlocal asked
            asked = asyncio.Queue()
            region.set("north")

            async def serve() -> None:
                while True:
                    (await asked.get()).set_result(7)

            kept.append(asyncio.create_task(serve()))

        async def fails() -> None:
            raise ConnectionError("no route")

        async def use() -> str:
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            await asked.put(answer)
            return f"{await answer} {region.get()}"

        kept: list[asyncio.Task[None]] = []
        yard = Yard(3, use)
        context = yard.execution.context
        told = [yard.coroutines.attend(each(), context) for each in (connect, fails)]
        ended = yard.run([job(n, "use") for n in range(1, 9)])
        return f"{told} { ({each.result for each in ended.values()}) }"

    assert in_a_copy(act) == "[(None, None), (None, ConnectionError('no route'))] {'\"7 north\"'}"


def test_a_task_may_stop_the_loop_and_break_its_callbacks_and_the_others_go_on() -> None:
    def act() -> str:
        def broken() -> None:
            raise SystemExit("out of a callback")

        async def rough() -> None:
            loop = asyncio.get_running_loop()
            loop.stop()
            loop.call_soon(broken)
            await asyncio.sleep(0)

        yard = Yard(3, rough, wait_and_add)
        yard.run([job(1, "rough"), *(job(n, "wait_and_add", f"[{n},0]") for n in range(2, 50))])
        return f"{yard.ended[1].verb} {len(yard.ended)}"

    assert in_a_copy(act) == "succeed 49"


@pytest.mark.parametrize("kind", ["closed", "another file's"])
def test_a_loop_without_its_descriptors_ends_the_process_and_is_not_tried_for_ever(
    kind: str,
) -> None:
    def act() -> str:
        async def rough() -> None:
            lost = cast("Any", asyncio.get_running_loop())._selector.fileno()
            if kind == "closed":
                os.close(lost)
            else:
                os.dup2(os.open(os.devnull, os.O_RDONLY), lost)
            await asyncio.sleep(0)

        yard = Yard(2, rough)
        yard.begin([job(1, "rough")])
        eventually(lambda: yard.errors, what="it is told")
        eventually(lambda: not threads_named("loop"), what="nobody goes on with it")
        return str(len(yard.errors))

    assert in_a_copy(act) == "1"


def test_the_job_that_blocks_the_loop_is_named_whatever_its_functions_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def act() -> str:
        blocked, over = threading.Event(), threading.Event()

        async def blocks() -> None:
            def lane_0() -> None:
                blocked.set()
                over.wait(30)

            lane_0()

        async def waits() -> None:
            await asyncio.to_thread(over.wait, 30)

        yard = Yard(2, blocks, waits)
        yard.begin([job(1, "waits"), job(2, "blocks")])
        blocked.wait(30)
        yard.coroutines.note_blocked(SYSTEM.monotonic_ns() + 60 * SECOND)
        over.set()
        (told,) = [cast("Any", record).fields["job"] for record in caplog.records]
        return str(told)

    assert in_a_copy(act) == "2"


def test_a_loop_that_waits_for_something_to_do_is_kept_waiting_by_no_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def act() -> str:
        began = threading.Event()

        async def waits() -> None:
            began.set()
            await asyncio.Event().wait()

        yard = Yard(2, waits)
        yard.begin([job(1, "waits")])
        began.wait(30)
        (loop,) = [each.ident for each in threading.enumerate() if each.name == "loop"]
        eventually(
            lambda: sys._current_frames()[loop or 0].f_code.co_filename == selectors.__file__,
            what="it waits",
        )
        yard.coroutines.note_blocked(SYSTEM.monotonic_ns() + 60 * SECOND)
        return str(caplog.records)

    assert in_a_copy(act) == "[]"


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("return 3", ("succeed", "error")),
        ("raise", ("retry", "timeout")),
        ("raise ValueError", ("retry", "timeout")),
    ],
)
def test_an_async_job_is_cancelled_at_its_deadline(ends: str, told: tuple[str, str]) -> None:
    def act() -> str:
        source = f"""
async def f():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        {ends}
"""
        names: dict[str, Any] = {"asyncio": asyncio}
        exec(source, names)
        ended = outcome_of(Yard(2, names["f"]), "f", timeout_ms=30)
        return str((ended.verb, ended.kind))

    assert in_a_copy(act) == str(told)


def test_a_job_that_is_cancelled_at_its_deadline_says_so_with_the_place_where_it_was() -> None:
    def act() -> str:
        async def f() -> None:
            await asyncio.sleep(60)

        ended = outcome_of(Yard(2, f), "f", timeout_ms=30)
        assert ended.failure is not None
        return f"{ended.failure.summary} {'await asyncio.sleep(60)' in ended.failure.traceback}"

    assert in_a_copy(act) == "TimeoutError: cancelled at its timeout of 0.03 s True"


def test_the_parent_waits_the_grace_longer_for_what_the_loop_can_cancel() -> None:
    def act() -> str:
        seen: list[list[int]] = []

        def call(ctx: Context) -> None:
            seen.append(yard.slot.column(DEADLINE))

        async def wait(ctx: Context) -> None:
            seen.append(yard.slot.column(DEADLINE))

        yard = Yard(2, call, wait, grace_ms=1_000_000)
        for n, task in ((1, "call"), (2, "wait")):
            yard.run([job(n, task, timeout_ms=1_000)])
        first, second = (max(deadlines) for deadlines in seen)
        return str(second - first > 900_000 * 1_000_000)

    assert in_a_copy(act) == "True"


def test_a_cancel_reaches_an_async_job_at_once_and_a_def_job_by_its_context() -> None:
    def act() -> str:
        began: list[int] = []

        def call(ctx: Context) -> None:
            began.append(ctx.job)
            while True:
                ctx.check()
                time.sleep(0.001)  # task body

        async def wait(ctx: Context) -> None:
            began.append(ctx.job)
            await asyncio.sleep(60)

        yard = Yard(2, call, wait)
        yard.begin([job(1, "call"), job(2, "wait")])
        eventually(lambda: len(began) == 2, what="both have begun")
        for run in yard.slot.running():
            words = yard.slot.lane(run.lane)
            words[CANCEL_JOB], words[CANCEL_CLAIM] = run.job, run.claim
        for lane, number, claim in yard.lanes.asked_to_end():
            yard.coroutines.ask_to_end(lane, number, claim)
        eventually(lambda: len(yard.ended) == 2, what="both have ended")
        return str({(yard.ended[n].verb, yard.ended[n].kind) for n in (1, 2)})

    assert in_a_copy(act) == "{('cancel', 'cancelled')}"


def test_the_loop_beats_while_a_coroutine_runs_and_is_silent_afterwards() -> None:
    def act() -> str:
        yard = Yard(2, wait_and_add)
        yard.run([job(1, "wait_and_add", "[1,1]")])
        eventually(lambda: yard.beats[-1] == 0, what="the loop is silent")
        return str(yard.beats[0] > 0)

    assert in_a_copy(act) == "True"


# -- what must not begin


@pytest.mark.parametrize("why", ["stop", "recall", "verdict", "cancel", "closed"])
@pytest.mark.parametrize("task", ["add", "wait_and_add"])
def test_what_must_not_begin_goes_back_and_nothing_of_it_runs(why: str, task: str) -> None:
    def act() -> str:
        yard = Yard(3, add, wait_and_add)
        if why == "stop":
            yard.board[STOP] = RUN + 1
        elif why == "recall":
            yard.slot[RECALL] = 1
        elif why == "verdict":
            yard.slot[VERDICT] = 1
        elif why == "closed":
            yard.closed = True
        else:
            for number in range(3):
                words = yard.slot.lane(number)
                words[CANCEL_JOB], words[CANCEL_CLAIM] = 1, 1
        yard.run([job(n, task, "[1,1]") for n in range(1, 7)])
        rest = yard.backlog.rest()
        assert rest is not None
        return f"{rest.claims} {rest.held} {len(yard.ended)} {sum(yard.slot.column(CURRENT))}"

    left = "(1,) () 5 0" if why == "cancel" else "(1,) () 0 0"
    assert in_a_copy(act) == left


def test_a_recall_names_the_claim_up_to_which_nothing_begins() -> None:
    def act() -> str:
        yard = Yard(3, add)
        yard.slot[RECALL] = 2
        for first in (1, 11, 21):
            yard.run([job(n, "add", "[1,1]") for n in range(first, first + 5)])
        return f"{yard.backlog.rest()} {sorted(yard.ended)}"

    assert in_a_copy(act) == "Rest(claims=(1, 2), held=(), up_to=None) [21, 22, 23, 24, 25]"


# -- copies of the process


def test_a_copy_that_is_forked_in_a_job_ends_before_it_does_anything_of_another(
    tmp_path: Path,
) -> None:
    def act() -> str:
        me, lines = os.getpid(), tmp_path / "lines"

        def say(word: str) -> None:
            with lines.open("a") as file:
                file.write(f"{word} {os.getpid() == me}\n")

        def forks() -> None:
            if os.fork() == 0:
                return
            os.wait()

        async def forks_and_returns() -> None:
            await asyncio.sleep(0.01)
            if os.fork() == 0:
                return
            os.wait()  # noqa: ASYNC222 -- the copy ends at once

        async def forks_and_waits() -> None:
            await asyncio.sleep(0.01)
            if os.fork() == 0:
                await asyncio.sleep(0)
                say("waited on in a copy")
                return
            os.wait()  # noqa: ASYNC222 -- the copy ends at once

        async def forks_in_a_thread() -> None:
            await asyncio.to_thread(forks)

        async def neighbour() -> None:
            for _ in range(20):
                await asyncio.sleep(0.002)
                say("neighbour")

        def quick() -> None:
            say("quick")

        tasks: list[Callable[..., Any]] = [
            forks,
            forks_and_returns,
            forks_and_waits,
            forks_in_a_thread,
        ]
        yard = Yard(8, *tasks, neighbour, quick)
        names = [task.__name__ for task in tasks]
        jobs = [job(n, names[n % 4]) for n in range(1, 21)]
        jobs += [job(n, "neighbour" if n % 2 else "quick") for n in range(21, 41)]
        yard.run(jobs)
        told = lines.read_text().splitlines()
        verbs = {outcome.verb for outcome in yard.ended.values()}
        return f"{verbs} {set(told)} {len(told)}"

    expected = "{'succeed'} {'neighbour True', 'quick True'} 210"
    answer = in_a_copy(act)
    assert (
        answer.replace("'quick True', 'neighbour True'", "'neighbour True', 'quick True'")
        == expected
    )


# -- stacks


def test_the_outermost_function_of_everything_that_a_job_runs_bears_its_lane() -> None:
    def act() -> str:
        found: dict[str, list[str]] = {}

        def note(where: str) -> None:
            names = [frame.name for frame in traceback.extract_stack()]
            found[where] = [name for name in names if name.startswith("lane_")]

        def call(ctx: Context) -> None:
            note("thread")

        async def part() -> None:
            note("task of its own")

        async def wait(ctx: Context) -> None:
            note("loop")
            await asyncio.create_task(part())
            await asyncio.to_thread(note, "to_thread")

        yard = Yard(3, call, wait)
        yard.run([job(1, "call")])
        yard.run([job(2, "wait")])
        return str(found)

    names = ("thread", "loop", "task of its own", "to_thread")
    assert in_a_copy(act) == str({name: ["lane_0"] for name in names})


def test_an_outcome_that_no_ledger_takes_keeps_its_lane_until_it_is_settled(tmp_path: Path) -> None:
    def act() -> str:
        def large() -> str:
            return "x" * 200_000

        async def large_async() -> str:
            return "x" * 200_000

        yard = Yard(2, large, large_async, folder=tmp_path)
        yard.begin([job(1, "large", timeout_ms=60_000), job(2, "large_async", timeout_ms=60_000)])
        eventually(lambda: len(yard.outcomes) == 2, what="both outcomes wait")
        before = (sorted(yard.slot.column(CURRENT)), yard.slot.column(DEADLINE), yard.lanes.busy)
        settled = sorted(yard.settle())
        eventually(lambda: not yard.lanes.busy, what="the lanes are free")
        return f"{before} {settled} {yard.slot.column(CURRENT)}"

    assert in_a_copy(act) == "([1, 2], [0, 0], 2) [1, 2] [0, 0]"
