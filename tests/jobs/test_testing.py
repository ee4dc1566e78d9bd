"""Tests of code that enqueues."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client, use_client
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import ConfigError, JobsError, PayloadError, UnknownTask
from jobvisor.jobs.outcome import Snooze
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.testing import MemoryQueue, in_memory, inline
from tests.jobs.test_client import Backwards

registry = Registry()
early = Client("sqlite:////nowhere/at/all.db", registry=registry)


@registry.task(name="app:greet", queue="mail")
def greet(name: str) -> str:
    return f"hello, {name}"


@registry.task(name="app:twice", retries=1, retry="1h")
def twice(ctx: Context) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("no route")
    return ctx.attempt


@registry.task(name="app:later", retries=0)
def later(ctx: Context, names: list[str]) -> list[int]:
    return [greet.enqueue(name).id for name in names]


@registry.task(name="app:sleepy")
async def sleepy() -> str:
    await asyncio.sleep(0)
    return "awake"


@registry.task(name="app:again")
def again() -> None:
    again.enqueue()


@registry.task(name="app:snoozing")
def snoozing() -> None:
    raise Snooze("1h")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def jobs() -> Iterator[MemoryQueue]:
    with in_memory(registry=registry) as queue:
        yield queue


def test_jobs_are_kept_until_they_are_run(jobs: MemoryQueue) -> None:
    job = greet.enqueue("Ada")
    assert [one.args for one in jobs.enqueued(greet)] == [["Ada"]]
    assert (job.state, job.queue, jobs.enqueued(twice)) == ("pending", "mail", [])
    assert [ran.result for ran in jobs.run_all()] == ["hello, Ada"]
    assert jobs.client.wait(job, timeout=0).result == "hello, Ada"
    assert jobs.run_all() == []


def test_every_client_plays_in_memory_whatever_database_it_names(jobs: MemoryQueue) -> None:
    early.enqueue(greet, "a")
    with Client(registry=registry) as found, Client("sqlite:///x.db", hold=False) as closing:
        found.enqueue(greet, "b")
        closing.enqueue("app:greet", "c")
        closing.enqueue_many([greet.call("d")])
    greet.enqueue("e")
    assert [job.args[0] for job in jobs.enqueued("app:greet")] == ["a", "b", "c", "d", "e"]
    assert list(Path().iterdir()) == []


def test_what_a_job_enqueues_is_run_too_in_order(jobs: MemoryQueue) -> None:
    later.enqueue(["a", "b"])
    assert [job.task for job in jobs.run_all()] == ["app:later", "app:greet", "app:greet"]


def test_what_a_task_raises_is_raised_by_the_test_and_its_job_is_settled(
    jobs: MemoryQueue,
) -> None:
    job = twice.enqueue()
    with pytest.raises(ConnectionError, match="no route"):
        jobs.run_all()
    assert jobs.client.get(job).state == "scheduled"
    assert jobs.run_all() == []
    (ran,) = jobs.after("61m").run_all()
    assert (ran.state, ran.result) == ("succeeded", 2)


def test_a_failure_may_be_looked_at_instead(jobs: MemoryQueue) -> None:
    twice.enqueue()
    (ran,) = jobs.run_all(raises=False)
    assert (ran.state, ran.error) == ("scheduled", "ConnectionError: no route")


def test_what_a_task_chooses_is_no_failure(jobs: MemoryQueue) -> None:
    snoozing.enqueue()
    (ran,) = jobs.run_all()
    assert (ran.state, ran.attempt) == ("scheduled", 0)


def test_a_job_for_later_is_run_when_its_time_has_come(jobs: MemoryQueue) -> None:
    greet.using(run_in="10m").enqueue("x")
    assert jobs.run_all() == []
    assert len(jobs.after("10m").run_all()) == 1


def test_a_job_of_no_known_task_is_an_error_and_not_put_off(jobs: MemoryQueue) -> None:
    jobs.client.enqueue("app:renamed")
    with pytest.raises(UnknownTask, match="app:renamed"):
        jobs.run_all()


def test_jobs_that_never_end_are_an_error(jobs: MemoryQueue) -> None:
    again.enqueue()
    with pytest.raises(JobsError, match="not done after 20 runs; the last was of app:again"):
        jobs.run_all(limit=20)


def test_arguments_go_through_the_same_json_as_in_a_family(jobs: MemoryQueue) -> None:
    with pytest.raises(PayloadError):
        greet.enqueue(object())  # type: ignore[arg-type]


def test_a_client_that_holds_no_connection_keeps_the_jobs_all_the_same(jobs: MemoryQueue) -> None:
    with Client(hold=False, registry=registry) as client:
        job = client.enqueue(greet, "Ada")
        assert client.run_one() is not None
        assert client.wait(job, timeout=0).result == "hello, Ada"
    assert len(jobs.enqueued()) == 1


def test_a_codec_of_a_client_is_used_on_both_sides(jobs: MemoryQueue) -> None:
    with Client(codec=Backwards(), registry=registry) as client:
        client.enqueue(greet, "secret")
    assert jobs.run_all()[0].result == "hello, secret"


def test_inline_an_enqueue_runs_its_job_before_it_returns() -> None:
    with inline(registry=registry) as jobs:
        assert greet.enqueue("Ada").result == "hello, Ada"
        later.enqueue(["a", "b"])
        jobs.client.enqueue_many([greet.call("c")])
        assert [job.state for job in jobs.enqueued()] == ["succeeded"] * 5
        assert asyncio.run(sleepy.aenqueue()).result == "awake"


def test_inline_what_a_task_raises_comes_out_of_the_enqueue_or_stays_in_the_job() -> None:
    with inline(registry=registry), pytest.raises(ConnectionError):
        twice.enqueue()
    with inline(registry=registry, raises=False):
        assert twice.enqueue().error == "ConnectionError: no route"


def test_inline_a_unique_job_is_found_only_while_it_is_unfinished() -> None:
    with inline(registry=registry):
        once = greet.using(unique="k", run_in="1h")
        assert [once.enqueue("a").created, once.enqueue("b").created] == [True, False]


def test_blocks_may_stand_in_each_other_and_leave_everything_as_it_was() -> None:
    with in_memory(registry=registry) as outer:
        greet.enqueue("outer")
        with in_memory(registry=registry) as inner:
            greet.enqueue("inner")
            assert [job.args for job in inner.enqueued()] == [["inner"]]
        assert [job.args for job in outer.enqueued()] == [["outer"]]
    assert Client.stage is None
    undo = use_client(None)  # what is found afterwards is not what was found in the block
    with pytest.raises(ConfigError, match="no database is named"):
        greet.enqueue("afterwards")
    undo()


def test_a_task_with_a_context_is_called_in_a_unit_test() -> None:
    ctx = Context.for_test(attempt=2, timeout="1h")
    assert twice(ctx) == 2
    assert ctx.deadline is not None
    ctx.progress(1, total=2, note="half")
    assert ctx.told == [{"done": 1, "total": 2, "note": "half"}]
    ctx.check()
    ctx.ask_to_stop()
    assert (ctx.stopping, ctx.cancelled) == (True, False)


def test_a_limit_that_the_test_does_not_set_keeps_no_job_waiting() -> None:
    tasks = Registry()
    place = tasks.task(name="app:place", limit=lambda n: f"gpu:{n}")(lambda n: n)
    with in_memory(registry=tasks) as jobs:
        jobs.client.limits.set("cpu", concurrency=0)
        for n in (1, 2):
            place.enqueue(n)
        held = place.using(limit="cpu").enqueue(3)
        assert [job.result for job in jobs.run_all()] == [1, 2]
        assert jobs.client.get(held.id).state == "blocked"
