"""Plain callables on threads: retried, bounded, cancelled, joined, and ended with their program."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from jobvisor import Cancelled, Exponential, Fail, Fixed, LocalQueue, Release, Retry, Snooze
from jobvisor.errors import InvalidOption, JobsError, QueueFull
from jobvisor.jobs.local_calls import FailedCall
from tests.waiting import LIMIT, eventually


class Flaky:
    """Raises what it is given, one after the other, then returns how often it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


def gated() -> tuple[Callable[[], str], threading.Event, threading.Event]:
    """A call that waits, the word that it has begun, and the word to go on."""
    began, gate = threading.Event(), threading.Event()

    def wait() -> str:
        began.set()
        assert gate.wait(LIMIT)
        return "done"

    return wait, began, gate


def test_a_future_has_what_the_call_returns_or_raised() -> None:
    with LocalQueue() as queue:
        assert queue.submit(divmod, 7, 2).result(LIMIT) == (3, 1)
        assert queue.submit(sorted, [2, 1], reverse=True).result(LIMIT) == [2, 1]
        error = queue.submit(int, "x").exception(LIMIT)
        assert isinstance(error, ValueError)


def test_a_call_that_raises_is_run_again_until_its_retries_are_over() -> None:
    with LocalQueue(retries=2, retry=Fixed(0)) as queue:
        good = Flaky(OSError(), OSError())
        assert queue.submit(good).result(LIMIT) == 3
        bad = Flaky(*[OSError(str(number)) for number in range(5)])
        assert str(queue.submit(bad).exception(LIMIT)) == "2"
        assert bad.calls == 3


@pytest.mark.parametrize("place", ["callback", "handler", "policy"])
def test_whoever_leaves_the_interpreter_around_a_call_takes_no_thread_along(place: str) -> None:
    def leave(*_: Any) -> Any:
        raise SystemExit(1)

    retry = leave if place == "policy" else Fixed(0)
    handler = leave if place == "handler" else None
    with LocalQueue(threads=1, retries=1, retry=retry, on_failure=handler) as queue:
        go = threading.Event()

        def fails() -> None:
            assert go.wait(LIMIT)
            raise OSError("away")

        first = queue.submit(fails)
        if place == "callback":
            first.add_done_callback(leave)
        go.set()
        assert first.exception(LIMIT) is not None
        assert queue.submit(int, "7").result(LIMIT) == 7


def test_a_cancelled_rest_keeps_nobody_who_leaves() -> None:
    queue = LocalQueue(threads=1, retries=1, retry="1h")
    flaky = Flaky(OSError("away"))
    future = queue.submit(flaky)
    eventually(lambda: flaky.calls)
    leaving = threading.Thread(target=queue.shutdown)
    leaving.start()
    eventually(future.cancel)
    leaving.join(LIMIT)
    assert not leaving.is_alive()


def test_a_policy_is_asked_for_the_wait_with_the_attempt_and_its_error() -> None:
    asked: list[tuple[int, str]] = []

    def policy(attempt: int, error: BaseException) -> float | None:
        asked.append((attempt, str(error)))
        return None if attempt == 2 else 0

    with LocalQueue(retries=9, retry=policy) as queue:
        assert queue.submit(Flaky(OSError("a"), OSError("b"), OSError("c"))).exception(LIMIT)
    assert asked == [(1, "a"), (2, "b")]


def test_the_words_of_a_backoff_are_those_of_an_exponential_policy() -> None:
    queue = LocalQueue(retries=1, initial="2s", multiplier=3, cap="5s")
    assert queue._manner.policy == Exponential(first="2s", factor=3, cap="5s")
    assert LocalQueue()._manner.policy == Exponential()


def test_what_a_task_raises_to_choose_its_end_does_the_same_here() -> None:
    with LocalQueue(retries=1, retry="1h") as queue:
        at_once = Flaky(Retry(after=0))
        assert queue.submit(at_once).result(LIMIT) == 2
        given_back = Flaky(Snooze(0), Release(), Snooze(0), Retry(after=0))
        assert queue.submit(given_back).result(LIMIT) == 5
        failed = Flaky(Fail("no such user"))
        assert str(queue.submit(failed).exception(LIMIT)) == "no such user"
        assert failed.calls == 1
        left = queue.submit(Flaky(Cancelled("not any more")))
        with pytest.raises(CancelledError):
            left.result(LIMIT)
        assert left.cancelled()
        gone = Flaky(SystemExit(3))
        assert isinstance(queue.submit(gone).exception(LIMIT), SystemExit)
        assert gone.calls == 1


def test_a_call_that_failed_for_good_comes_to_the_handler() -> None:
    told: list[FailedCall] = []
    with LocalQueue(retries=1, retry=0, on_failure=told.append) as queue:
        queue.submit(int, "x", base=10)
        queue.submit(Flaky(OSError()))
    (failed,) = told
    assert (failed.function, failed.args, failed.kwargs, failed.attempts) == (
        int, ("x",), {"base": 10}, 2,
    )  # fmt: skip
    assert isinstance(failed.error, ValueError)


def test_a_handler_that_raises_is_told_to_the_log_and_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(_failed: FailedCall) -> None:
        raise OSError("no mail")

    with LocalQueue(threads=1, on_failure=handler) as queue:
        assert queue.submit(int, "x").exception(LIMIT)
        assert queue.submit(int, "7").result(LIMIT) == 7
    assert "the on_failure handler of a LocalQueue raised OSError: 'no mail'" in caplog.text


def test_a_full_queue_raises_at_once_after_a_time_or_waits_for_room() -> None:
    wait, began, gate = gated()
    for patience in (0, "10ms"):
        queue = LocalQueue(threads=1, size=1, patience=patience)
        running = queue.submit(wait)
        assert began.wait(LIMIT)
        waiting = queue.submit(int, "1")
        with pytest.raises(QueueFull, match="1 calls wait"):
            queue.submit(int, "2")
        gate.set()
        assert (running.result(LIMIT), waiting.result(LIMIT)) == ("done", 1)
        queue.shutdown()
        gate.clear()
        began.clear()
    patient = LocalQueue(threads=1, size=1)
    patient.submit(wait)
    assert began.wait(LIMIT)
    patient.submit(int, "1")
    found: list[int] = []
    third = threading.Thread(target=lambda: found.append(patient.submit(int, "3").result(LIMIT)))
    third.start()
    gate.set()
    third.join(LIMIT)
    assert found == [3]
    patient.shutdown()


def test_who_waits_for_room_hears_of_the_end() -> None:
    wait, began, gate = gated()
    queue = LocalQueue(threads=1, size=1)
    queue.submit(wait)
    assert began.wait(LIMIT)
    queue.submit(int, "1")
    errors: list[BaseException] = []

    def submit() -> None:
        try:
            queue.submit(int, "2")
        except RuntimeError as error:
            errors.append(error)

    waits = threading.Thread(target=submit)
    waits.start()
    eventually(lambda: queue._calls._change._waiters)  # type: ignore[attr-defined]
    queue.shutdown(wait=False)
    waits.join(LIMIT)
    gate.set()
    assert "after shutdown" in str(errors[0])


def test_a_call_that_submits_to_its_own_full_queue_is_refused_and_not_stuck() -> None:
    with LocalQueue(threads=1, size=1) as queue:

        def nested() -> str:
            queue.submit(int, "1")
            try:
                queue.submit(int, "2")
            except QueueFull:
                return "refused"
            return "taken"

        assert queue.submit(nested).result(LIMIT) == "refused"


def test_a_call_is_cancelled_while_it_waits_and_while_it_rests_but_not_while_it_runs() -> None:
    wait, began, gate = gated()
    with LocalQueue(threads=1, retries=1, retry="1h") as queue:
        rests = queue.submit(Flaky(OSError()))
        eventually(lambda: queue._calls._resting, what="it rests")
        runs = queue.submit(wait)
        assert began.wait(LIMIT)
        waits = queue.submit(int, "1")
        assert [rests.cancel(), runs.cancel(), waits.cancel()] == [True, False, True]
        assert [rests.cancelled(), runs.cancelled(), waits.cancelled()] == [True, False, True]
        with pytest.raises(CancelledError):
            rests.result(0)
        with pytest.raises(CancelledError):
            rests.exception(0)
        gate.set()
        assert queue.join(LIMIT)
        assert runs.result(0) == "done"


def test_join_waits_for_all_and_says_if_it_was_in_vain() -> None:
    wait, began, gate = gated()
    queue = LocalQueue(threads=1)
    assert queue.join(0)
    future = queue.submit(wait)
    assert not queue.join("10ms")
    gate.set()
    assert queue.join(LIMIT)
    assert future.done()
    assert began.is_set()
    refused = queue.submit(queue.join)
    assert isinstance(refused.exception(LIMIT), JobsError)
    queue.shutdown()


def test_the_end_of_a_with_waits_and_what_comes_after_it_is_refused() -> None:
    with LocalQueue(threads=2, retries=3, retry="1ms") as queue:
        futures = [queue.submit(Flaky(OSError(), OSError())) for _ in range(20)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        queue.submit(int)


def test_shutdown_may_cancel_what_has_not_begun_and_what_rests() -> None:
    wait, began, gate = gated()
    queue = LocalQueue(threads=1, retries=1, retry="1h")
    rests = queue.submit(Flaky(OSError()))
    eventually(lambda: queue._calls._resting)
    runs = queue.submit(wait)
    assert began.wait(LIMIT)
    waits = queue.submit(int)
    queue.shutdown(wait=False, cancel_futures=True)
    assert rests.cancelled()
    assert waits.cancelled()
    gate.set()
    queue.shutdown()
    assert runs.result(0) == "done"


def test_an_event_loop_can_wait_for_a_call_and_cancel_it_between_two_runs() -> None:
    async def main(queue: LocalQueue) -> int:
        never = asyncio.wrap_future(queue.submit(Flaky(OSError())))
        await asyncio.to_thread(eventually, lambda: queue._calls._resting)
        never.cancel()
        return await asyncio.wrap_future(queue.submit(int, "7"))

    with LocalQueue(retries=1, retry="1h") as queue:
        assert asyncio.run(main(queue)) == 7
        assert queue.join(LIMIT)


def test_a_queue_that_nobody_refers_to_any_more_ends_when_its_calls_have() -> None:
    queue = LocalQueue(threads=2, retries=1, retry="1ms")
    future = queue.submit(Flaky(OSError()))
    threads = set(queue._calls.threads)
    del queue
    gc.collect()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert future.result(0) == 2


def test_a_copy_of_the_process_begins_without_calls_and_the_original_goes_on() -> None:
    wait, began, gate = gated()
    with LocalQueue(threads=1) as queue:
        runs = queue.submit(wait)
        waits = queue.submit(int, "1")
        assert began.wait(LIMIT)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                is_right = queue.submit(int, "5").result(LIMIT) == 5 and queue.join(LIMIT)
                code = 0 if is_right and not waits.done() else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        gate.set()
        assert (runs.result(LIMIT), waits.result(LIMIT)) == ("done", 1)


ENDS = """
import sys, time
from jobvisor import LocalQueue
def slow(text):
    time.sleep(0.2)  # task body
    print(text, flush=True)
def fails():
    raise OSError("away")
queue = LocalQueue(threads=1, retries=1, retry="1h",
    on_failure=lambda failed: print(failed.error, failed.attempts, flush=True))
queue.submit(fails)
queue.submit(slow, "one")
queue.submit(slow, "two")
"""


def test_a_program_that_ends_runs_what_waits_and_gives_up_what_rests() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr == ""
    assert sorted(ended.stdout.splitlines()) == ["away 1", "one", "two"]


@pytest.mark.parametrize(
    "bad",
    [
        {"threads": 0},
        {"threads": "4"},
        {"size": 0},
        {"retries": -1},
        {"retry": "soon"},
        {"patience": -1},
        {"retry": 1, "initial": 1},
        {"multiplier": 0.5},
        {"initial": "2h"},
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        LocalQueue(**bad)


def test_what_cannot_be_called_is_refused_at_once() -> None:
    with LocalQueue() as queue, pytest.raises(InvalidOption, match="cannot be called"):
        queue.submit("app:send")  # type: ignore[arg-type]
