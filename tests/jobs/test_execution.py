"""One claimed job to one outcome, whatever its function does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobvisor.jobs.context import Context, Nobody
from jobvisor.jobs.execution import UNKNOWN_CAP_MS, Execution
from jobvisor.jobs.job import Claimed, Special
from jobvisor.jobs.outcome import SUCCEEDED, Cancelled, Fail, Outcome, Release, Retry, Snooze
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.retry import Fixed, policy_json
from jobvisor.jobs.task import Task
from tests.clock import MovableClock
from tests.store.processes import in_a_copy

NAME = "app:f"


def claimed(**values: Any) -> Claimed:
    row = Claimed(1, NAME, "[]", "{}", 1, 4, 1, None, 0, 0, None, "default", 0)
    return row._replace(**values)


def execution(
    function: Callable[..., Any] | None = None, *, defer_unknown: bool = True, **options: Any
) -> Execution:
    registry = Registry()
    if function is not None:
        registry.task(function, name=NAME, **options)
    return Execution(
        registry,
        clock=MovableClock(),
        port=Nobody(),
        worker="worker 1",
        defer_unknown=defer_unknown,
    )


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def ran(function: Callable[..., Any], **values: Any) -> Outcome:
    execute = execution(function)
    try:
        return execute.run(claimed(**values))
    finally:
        execute.close()


# -- a function that returns


def test_a_function_that_returns_nothing_succeeds() -> None:
    assert ran(lambda: None) is SUCCEEDED


def test_a_returned_value_is_kept_as_payload() -> None:
    outcome = ran(lambda: {"n": 1, "at": (1, 2)})
    assert outcome == Outcome("succeed", result='{"n":1,"at":{"$tuple":[1,2]}}')


def test_a_function_gets_its_arguments() -> None:
    seen: list[Any] = []
    ran(
        lambda *args, **kwargs: seen.append((args, kwargs)),
        args='[1,{"$tuple":[2]}]',
        kwargs='{"to":"a@b.c"}',
    )
    assert seen == [((1, (2,)), {"to": "a@b.c"})]


def test_an_async_function_is_run_to_its_end() -> None:
    async def function(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    assert ran(function, args="[1]").result == "2"


def test_an_async_function_that_raises_is_retried() -> None:
    async def function() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    outcome = ran(function)
    assert outcome.verb == "retry"
    assert outcome.failure is not None
    assert outcome.failure.message == "broken"


def test_a_result_that_cannot_be_kept_fails_the_job_for_good() -> None:
    outcome = ran(object)
    assert (outcome.verb, outcome.kind) == ("fail", "result")
    assert outcome.failure is not None
    assert "result" in outcome.failure.message


# -- a job that is not started


def test_an_expired_job_is_not_started() -> None:
    seen: list[int] = []
    execute = execution(lambda: seen.append(1))
    outcome = execute.run(claimed(expires_in_ms=5), waited_ns=5_000_001)
    assert (outcome.verb, outcome.kind, seen) == ("cancel", "expired", [])
    assert execute.run(claimed(expires_in_ms=5), waited_ns=5_000_000) is SUCCEEDED


@pytest.mark.parametrize(
    ("left_ms", "waited_ns", "begins"), [(5, 4_999_999, True), (5, 5_000_000, False), (0, 0, False)]
)
def test_a_job_past_its_deadline_is_not_started(left_ms: int, waited_ns: int, begins: bool) -> None:
    seen: list[int] = []
    execute = execution(lambda: seen.append(1))
    job = claimed(timeout_ms=left_ms, special=Special.DEADLINE | Special.LAST)
    outcome = execute.run(job, waited_ns=waited_ns)
    assert bool(seen) is begins
    if not begins:
        assert (outcome.verb, outcome.kind) == ("fail", "deadline")


def test_a_run_that_was_cancelled_at_its_deadline_is_not_tried_again() -> None:
    execute = execution(lambda: None)
    task: Task[[], None] = Task(NAME, lambda: None)
    last = claimed(timeout_ms=5, special=Special.DEADLINE | Special.LAST)
    outcome = execute.timed_out(task, last, TimeoutError())
    assert (outcome.verb, outcome.kind) == ("fail", "timeout")
    assert outcome.failure is not None
    assert outcome.failure.message == "cancelled at its deadline"
    assert execute.timed_out(task, claimed(timeout_ms=5), TimeoutError()).verb == "retry"


@pytest.mark.parametrize(
    "values",
    [
        {"args": '[{"$dataclass":["no.such.module:Thing",{}]}]'},
        {"args": "[NaN]"},
        {"args": '{"a":1}'},
        {"kwargs": "[1]"},
        {"kwargs": '{"n":{"$codec":"x"}}'},
    ],
)
def test_arguments_that_cannot_be_read_fail_the_job_unstarted(values: dict[str, str]) -> None:
    seen: list[int] = []
    outcome = ran(lambda *_args, **_kwargs: seen.append(1), **values)
    assert (outcome.verb, outcome.kind, seen) == ("fail", "payload", [])


def test_an_unknown_task_is_put_off_longer_each_time() -> None:
    execute = execution()
    delays = [execute.run(claimed(claims=claims)) for claims in (1, 2, 3, 100)]
    assert [outcome.verb for outcome in delays] == ["snooze"] * 4
    assert [outcome.delay_ms for outcome in delays] == [1_000, 2_000, 4_000, UNKNOWN_CAP_MS]
    assert {outcome.deferred for outcome in delays} == {"unknown"}


def test_an_unknown_task_is_failed_where_that_was_configured() -> None:
    outcome = execution(defer_unknown=False).run(claimed())
    assert (outcome.verb, outcome.kind) == ("fail", "unknown")
    assert outcome.failure is not None
    assert "'app:f'" in outcome.failure.message


def test_a_mistyped_task_is_put_off_with_the_nearest_name() -> None:
    outcome = execution(lambda: None).run(claimed(task="app:ff"))
    assert outcome.failure is not None
    assert outcome.failure.message == f"no module has the task 'app:ff'; did you mean {NAME}?"


def test_a_task_is_run_under_its_aliases() -> None:
    execute = execution(lambda: 7, aliases=["old.app:g"])
    assert execute.run(claimed(task="old.app:g")).result == "7"


def test_an_unknown_task_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = MovableClock()
    execute = Execution(Registry(), clock=clock, port=Nobody(), worker="worker 1")
    for _ in range(3):
        execute.run(claimed())
    execute.run(claimed(task="app:other"))
    clock.move(11_000)
    execute.run(claimed())
    tasks = [vars(line)["fields"]["task"] for line in caplog.records]
    assert tasks == ["app:f", "app:other", "app:f"]


# -- what a task raises


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (Snooze("1m"), ("snooze", 60_000, "snooze")),
        (Retry("5m"), ("retry", 300_000, "retry")),
        (Release(), ("release", 0, None)),
        (Fail("no such user"), ("fail", 0, None)),
        (Cancelled("enough"), ("cancel", 0, None)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_task_chooses_its_outcome_by_what_it_raises(
    error: BaseException, wanted: tuple[str, int, str | None]
) -> None:
    outcome = ran(raising(error))
    assert (outcome.verb, outcome.delay_ms, outcome.deferred) == wanted


def test_the_reason_of_a_choice_is_kept() -> None:
    failed = ran(raising(Fail("no such user")))
    cancelled = ran(raising(Cancelled("enough")))
    assert failed.failure is not None
    assert cancelled.failure is not None
    assert failed.failure.message == "no such user"
    assert (cancelled.failure.message, cancelled.kind) == ("enough", "cancelled")


class Odd(BaseException):
    """No Exception, and its own words raise too."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("broken"),
        SystemExit(0),
        SystemExit("message"),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        MemoryError(),
        StopIteration(),
        Odd(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_task_raises_is_a_failed_attempt_and_never_a_success(
    error: BaseException,
) -> None:
    outcome = ran(raising(error))
    assert (outcome.verb, outcome.kind, outcome.deferred) == ("retry", "error", "retry")
    assert outcome.failure is not None
    assert type(error).__name__ in outcome.failure.error_type
    last = ran(raising(error), attempt=4)
    assert (last.verb, last.kind) == ("fail", "error")


def test_a_call_of_sys_exit_is_a_failed_attempt() -> None:
    assert ran(lambda: sys.exit(0)).verb == "retry"


def test_an_endless_recursion_is_a_failed_attempt() -> None:
    def function() -> None:
        function()

    outcome = ran(function)
    assert outcome.verb == "retry"
    assert outcome.failure is not None
    assert outcome.failure.error_type == "RecursionError"


def test_arguments_that_do_not_fit_the_function_are_a_failed_attempt() -> None:
    outcome = ran(lambda: None, args="[1,2]")
    assert outcome.failure is not None
    assert outcome.failure.error_type == "TypeError"


def test_the_traceback_begins_in_the_users_function() -> None:
    outcome = ran(raising(ValueError("broken")))
    assert outcome.failure is not None
    assert "execution.py" not in outcome.failure.traceback.replace(__file__, "")
    assert "raise error" in outcome.failure.traceback


# -- when to try again


def test_the_policy_of_the_row_says_when() -> None:
    outcome = ran(raising(ValueError("broken")), policy=policy_json(Fixed("7s")))
    assert outcome.delay_ms == 7_000


def test_a_retry_without_a_delay_takes_the_policys() -> None:
    outcome = ran(raising(Retry(reason="later")), policy=policy_json(Fixed("7s")))
    assert (outcome.verb, outcome.delay_ms) == ("retry", 7_000)
    assert outcome.failure is not None
    assert outcome.failure.message == "later"


def test_a_retry_after_the_last_attempt_fails() -> None:
    outcome = ran(raising(Retry("5m")), attempt=4)
    assert (outcome.verb, outcome.delay_ms) == ("fail", 0)


def test_a_snooze_or_release_in_the_last_attempt_is_not_the_end() -> None:
    assert ran(raising(Snooze("1s")), attempt=4).verb == "snooze"
    assert ran(raising(Release()), attempt=4).verb == "release"


@pytest.mark.parametrize(
    ("answer", "wanted"), [(2.5, ("retry", 2_500)), (None, ("fail", 0))], ids=["delay", "none"]
)
def test_a_policy_of_the_users_is_asked_with_the_error(
    answer: float | None, wanted: tuple[str, int]
) -> None:
    asked: list[tuple[int, str]] = []

    def policy(attempt: int, error: BaseException) -> float | None:
        asked.append((attempt, str(error)))
        return answer

    execute = execution(raising(ValueError("broken")), retry=policy)
    task = execute._registry.get(NAME)
    assert task is not None
    assert task.options.retry is not None
    row = claimed(attempt=2, policy=policy_json(task.options.retry))
    outcome = execute.run(row)
    assert (outcome.verb, outcome.delay_ms) == wanted
    assert asked == [(2, "broken")]


# -- the context


def test_a_context_is_passed_first_where_it_is_asked_for() -> None:
    seen: list[Any] = []

    def function(ctx: Context, n: int) -> None:
        seen.append((ctx.job, ctx.task, ctx.attempt, ctx.attempts_max, ctx.worker, n))

    ran(function, args="[5]", id=42, attempt=3)
    assert seen == [(42, NAME, 3, 4, "worker 1", 5)]


def test_the_state_of_a_worker_outlives_a_job() -> None:
    def function(ctx: Context) -> int:
        ctx.state["runs"] = ctx.state.get("runs", 0) + 1
        return int(ctx.state["runs"])

    execute = execution(function)
    assert [execute.run(claimed()).result for _ in range(2)] == ["1", "2"]


def test_a_context_knows_the_deadline_of_its_run() -> None:
    def function(ctx: Context) -> bool:
        return ctx.remaining is not None and 4 < ctx.remaining <= 5

    execute = execution(function)
    assert execute.run(claimed(), MovableClock().monotonic_ns() + 5_000_000_000).result == "true"


# -- a function that forks


@pytest.mark.parametrize("fails", [True, False], ids=["raises", "returns"])
def test_a_copy_that_comes_back_from_the_function_leaves_without_an_outcome(fails: bool) -> None:
    def function() -> int:
        pid = os.fork()
        if pid == 0:
            if fails:
                raise ValueError("in the copy")
            return 99
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    outcome = in_a_copy(lambda: ran(function).result)
    assert outcome == ("1" if fails else "0")
