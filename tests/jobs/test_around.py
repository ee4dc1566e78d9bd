"""Context managers around each run: their order, what they see, and what they make of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Context, Nobody, current
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import SUCCEEDED, Outcome, Retry
from jobvisor.jobs.registry import Registry

JOB = Claimed(7, "app:any", "[2]", "{}", 1, 4, 1, None, 0, 0, None, "default", 0)

Run = Callable[[Callable[..., Any]], Outcome]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def run(registry: Registry) -> Run:
    """Runs a function as the task of a job."""

    def run(function: Callable[..., Any]) -> Outcome:
        name = f"app:{function.__name__}"
        registry.task(function, name=name)
        execution = Execution(registry, clock=SYSTEM, port=Nobody(), worker="worker 1")
        try:
            return execution.run(JOB._replace(task=name))
        finally:
            execution.close()

    return run


def double(n: int) -> int:
    return 2 * n


async def double_later(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def broken(n: int) -> int:
    raise ValueError(f"no {n}")


async def broken_later(n: int) -> int:
    await asyncio.sleep(0)
    return broken(n)


def note(registry: Registry, seen: list[str], name: str) -> None:
    """Registers one that notes when it is entered and left."""

    def noting(ctx: Context) -> Iterator[None]:
        seen.append(f"{name} {ctx.job}")
        try:
            yield
        except ValueError as error:
            seen.append(f"{name} sees {error}")
            raise
        seen.append(f"{name} ends")

    registry.arounds.around(noting)


@pytest.mark.parametrize("function", [double, double_later])
def test_they_nest_in_the_order_of_their_registration(
    registry: Registry, run: Run, seen: list[str], function: Callable[..., Any]
) -> None:
    note(registry, seen, "outer")
    note(registry, seen, "inner")
    assert run(function).result == "4"
    assert seen == ["outer 7", "inner 7", "inner ends", "outer ends"]


@pytest.mark.parametrize("function", [broken, broken_later])
def test_they_see_what_a_task_raises_and_it_stays_the_tasks_failure(
    registry: Registry, run: Run, seen: list[str], function: Callable[..., Any]
) -> None:
    note(registry, seen, "outer")
    note(registry, seen, "inner")
    outcome = run(function)
    assert (outcome.verb, outcome.failure and outcome.failure.message) == ("retry", "no 2")
    assert seen == ["outer 7", "inner 7", "inner sees no 2", "outer sees no 2"]
    assert outcome.failure is not None
    assert "around.py" not in outcome.failure.traceback.replace("test_around.py", "")


def test_an_asynchronous_one_is_for_async_tasks_alone_and_all_others_for_both(
    registry: Registry, run: Run, seen: list[str]
) -> None:
    note(registry, seen, "plain")

    @registry.arounds.around
    async def asynchronous(ctx: Context) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        seen.append(f"async {ctx.task}")
        yield
        await asyncio.sleep(0)
        seen.append("async ends")

    assert run(double).result == "4"
    assert seen == ["plain 7", "plain ends"]
    seen.clear()
    assert run(double_later).result == "4"
    assert seen == ["plain 7", "async app:double_later", "async ends", "plain ends"]


def test_one_around_a_plain_function_that_gives_a_coroutine_ends_with_that(
    registry: Registry, run: Run, seen: list[str]
) -> None:
    note(registry, seen, "plain")

    def gives(n: int) -> Any:
        async def later() -> int:
            await asyncio.sleep(0)
            seen.append("runs")
            return n

        return later()

    assert run(gives).result == "2"
    assert seen == ["plain 7", "runs", "plain ends"]


@pytest.mark.parametrize("function", [broken, broken_later])
def test_what_is_swallowed_is_a_success_with_nothing(
    registry: Registry, run: Run, function: Callable[..., Any]
) -> None:
    registry.arounds.around(lambda _ctx: suppress(ValueError))
    assert run(function) is SUCCEEDED


@pytest.mark.parametrize("function", [double, double_later])
def test_what_one_raises_is_the_outcome_of_the_job(
    registry: Registry, run: Run, function: Callable[..., Any]
) -> None:
    @registry.arounds.around
    def picky(ctx: Context) -> Iterator[None]:
        yield
        raise Retry(after="5s", reason=f"job {ctx.job} again")

    outcome = run(function)
    assert (outcome.verb, outcome.delay_ms) == ("retry", 5_000)
    assert outcome.failure is not None
    assert outcome.failure.message == "job 7 again"


def test_a_class_and_a_function_that_makes_a_context_manager_will_do(
    registry: Registry, run: Run, seen: list[str]
) -> None:
    @registry.arounds.around
    class Timed:
        def __init__(self, ctx: Context) -> None:
            self._job = ctx.job

        def __enter__(self) -> None:
            seen.append(f"class {self._job}")

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            seen.append("class ends")

    @registry.arounds.around
    @contextmanager
    def made(ctx: Context) -> Iterator[None]:
        assert current() is not None
        seen.append(f"made {ctx.worker}")
        yield

    assert run(double).result == "4"
    assert seen == ["class 7", "made worker 1", "class ends"]


def test_what_is_no_context_manager_fails_the_job_with_a_word(registry: Registry, run: Run) -> None:
    @registry.arounds.around
    def forgetful(ctx: Context) -> AbstractContextManager[None]:
        return None  # type: ignore[return-value]

    outcome = run(double)
    assert outcome.failure is not None
    assert "forgetful" in outcome.failure.message
    assert "returned None, which is no context manager; write `yield`" in outcome.failure.message


def test_one_whose_module_is_loaded_again_takes_its_own_place(
    registry: Registry, run: Run, seen: list[str]
) -> None:
    source = "def one(ctx):\n    seen.append(words)\n    yield\n"
    for words in ("first", "second"):
        names: dict[str, Any] = {"seen": seen, "words": words, "__name__": "app"}
        exec(source, names)
        registry.arounds.around(names["one"])
    run(double)
    assert seen == ["second"]


class Service:
    def around(self, _ctx: Context) -> Iterator[None]:
        yield


async def never_yields(ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (5, "@around takes a function, not 5"),
        (lambda: None, "must take one argument, the Context"),
        (Service.around, "is a method: there is no object to call it on"),
        (never_yields, "never yields: write `yield` where the task is to run"),
    ],
)
def test_what_cannot_be_around_a_run_is_refused_where_it_is_written(
    registry: Registry, given: Any, words: str
) -> None:
    with pytest.raises(InvalidOption, match=words):
        registry.arounds.around(given)
