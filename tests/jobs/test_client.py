"""What an application calls."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.client import Client, use_client
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import (
    ConfigError,
    IllegalMove,
    InvalidOption,
    JobNotFound,
    JobsError,
    PayloadError,
    StoreUnavailable,
    UniqueTaken,
    WaitTimeout,
)
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import State
from jobvisor.jobs.outcome import Retry, Snooze
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.store.schema import SCHEMA
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.task import Call, Defaults, Task
from jobvisor.jobs.units import Duration
from tests.clock import MovableClock
from tests.store.processes import held_by_another, in_a_copy


def send(to: str, *, subject: str = "none") -> int:
    return len(to) + len(subject)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def sending(registry: Registry) -> Task[..., int]:
    return registry.task(send, name="app:send")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["sqlite", "memory"])
def client(
    request: pytest.FixtureRequest, tmp_path: Path, registry: Registry, clock: MovableClock
) -> Iterator[Client]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    with Client(url, registry=registry, clock=clock) as made:
        yield made


@pytest.fixture
def file_client(tmp_path: Path, registry: Registry) -> Iterator[Client]:
    with Client(f"sqlite:///{tmp_path}/jobs.db", registry=registry) as made:
        yield made


def test_clients_of_two_prefixes_have_two_queues_in_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    with Client(url, prefix="our_") as ours, Client(url) as plain:
        assert ours.enqueue("app:f", 1).id == plain.enqueue("app:f", 2).id
        assert [job.args for job in ours.list()] == [[1]]
        assert [job.args for job in plain.list()] == [[2]]
    with pytest.raises(InvalidOption, match="prefix='Our-' cannot begin"):
        Client(url, prefix="Our-")


# -- enqueue


def test_a_task_its_call_or_its_name_can_be_enqueued(
    client: Client, sending: Task[..., int]
) -> None:
    jobs = [
        client.enqueue(sending, "a@b.c", subject="x"),
        client.enqueue(sending.call("a@b.c", subject="x")),
        client.enqueue("app:send", "a@b.c", subject="x"),
        client.enqueue(client.call("app:send", "a@b.c", subject="x")),
    ]
    for job in jobs:
        assert (job.task, job.args, job.kwargs) == ("app:send", ["a@b.c"], {"subject": "x"})
        assert (job.state, job.created) == (State.PENDING, True)
        assert client.get(job.id) == job
    assert len({job.id for job in jobs}) == 4


def test_the_options_of_a_call_reach_the_row(client: Client, sending: Task[..., int]) -> None:
    job = client.enqueue(
        sending.using(
            run_in="10m", priority=5, queue="bulk", retries=8, timeout="5m", memory="1MB"
        ).call("a")
    )
    assert (job.state, job.priority, job.queue) == (State.SCHEDULED, 5, "bulk")
    assert (job.attempts_max, job.timeout, job.memory) == (9, 300.0, 1 << 20)
    named = client.enqueue(client.call("app:other", options={"queue": "bulk", "retries": 0}))
    assert (named.queue, named.attempts_max) == ("bulk", 1)


def test_a_task_enqueued_by_its_name_has_its_own_options_where_it_is_known(
    client: Client, registry: Registry
) -> None:
    registry.task(send, name="app:mail", queue="mail", retries=1, timeout="30s", priority=4)
    for job in (client.enqueue("app:mail", "a"), client.enqueue(client.call("app:mail", "a"))):
        assert (job.queue, job.attempts_max, job.timeout, job.priority) == ("mail", 2, 30.0, 4)
    given = client.call("app:mail", "a", options={"queue": "bulk", "priority": 0})
    job = client.enqueue(given)
    assert (job.queue, job.attempts_max, job.timeout, job.priority) == ("bulk", 2, 30.0, 0)
    with pytest.raises(InvalidOption):
        client.enqueue("app:mail")  # the signature is known too


def test_the_defaults_of_a_client_hold_where_nothing_is_said(registry: Registry) -> None:
    defaults = Defaults(queue="mail", retries=7, timeout_ms=500)
    with Client("memory://", registry=registry, defaults=defaults) as client:
        job = client.enqueue("app:send")
    assert (job.queue, job.attempts_max, job.timeout) == ("mail", 8, 0.5)


def test_a_unique_job_is_found_and_not_made_again(client: Client, sending: Task[..., int]) -> None:
    once = sending.using(unique="welcome:42")
    first = client.enqueue(once.call("a"))
    again = client.enqueue(once.call("b"))
    assert (first.created, again.created) == (True, False)
    assert (again.id, again.args) == (first.id, ["a"])


def test_many_jobs_are_enqueued_in_order(client: Client, sending: Task[..., int]) -> None:
    ids = client.enqueue_many(sending.call(str(number)) for number in range(5))
    assert [client.get(number).args for number in ids] == [[str(n)] for n in range(5)]
    assert ids == sorted(ids)


def test_many_jobs_of_one_key_are_one(client: Client, sending: Task[..., int]) -> None:
    once = sending.using(unique=True)
    ids = client.enqueue_many([once.call("a"), once.call("b"), once.call("a")])
    assert ids[0] == ids[2] != ids[1]


def test_one_bad_call_of_many_stores_none(client: Client, sending: Task[..., int]) -> None:
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        client.enqueue_many([sending.call("a"), sending.call(float("nan"))])
    assert client.list() == []


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        (send, (), "cannot be enqueued; it must be a task"),
        (None, (), "cannot be enqueued"),
        ("", (), "must be 1 to"),
        ("app:\0", (), "printable"),
        ("app:\ud800", (), "printable"),
        (Call("app:send", ("a",)), ("b",), "has its arguments already"),
    ],
)
def test_what_is_no_task_is_refused(
    client: Client, target: Any, arguments: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(InvalidOption, match=said):
        client.enqueue(target, *arguments)
    assert client.list() == []


def test_a_name_that_is_no_name_makes_no_call(client: Client) -> None:
    with pytest.raises(InvalidOption, match="must be 1 to"):
        client.call("")


def test_a_call_that_its_function_would_not_accept_is_refused(
    client: Client, sending: Task[..., int]
) -> None:
    with pytest.raises(InvalidOption, match="cannot be called like this"):
        client.enqueue(sending, "a", "b", "c")
    assert client.list() == []


def test_a_database_that_does_not_answer_is_said_to_be_unavailable(
    tmp_path: Path, registry: Registry, clock: MovableClock
) -> None:
    with Client(f"sqlite:///{tmp_path}/jobs.db", registry=registry, clock=clock) as client:
        client.enqueue("app:send")
        store = client._own_store()
        store.on_wait = lambda: clock.move(31_000)
        with (
            held_by_another(tmp_path / "jobs.db"),
            pytest.raises(StoreUnavailable, match="somebody else holds it"),
        ):
            client.enqueue("app:send")
        assert len(client.list()) == 1


# -- the default client


def test_a_task_enqueues_itself_with_the_client_in_use(
    client: Client, sending: Task[..., int]
) -> None:
    undo = use_client(client)
    try:
        job = sending.enqueue("a", subject="x")
        later = sending.using(queue="bulk").enqueue("b")
        anon = asyncio.run(sending.aenqueue("c"))
    finally:
        undo()
    assert [one.args for one in client.list()] == [["c"], ["b"], ["a"]]
    assert (client.get(job.id).kwargs, client.get(later.id).queue) == ({"subject": "x"}, "bulk")
    assert anon.id > later.id


def test_the_client_in_use_before_is_used_again(client: Client, sending: Task[..., int]) -> None:
    with Client("memory://") as other:
        undo = use_client(client)
        undo_other = use_client(other)
        sending.enqueue("other")
        undo_other()
        sending.enqueue("mine")
        undo()
        assert [job.args for job in other.list()] == [["other"]]
    assert [job.args for job in client.list()] == [["mine"]]


def test_without_a_client_one_is_found_in_the_environment(
    sending: Task[..., int], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"

    def enqueue() -> int:
        os.environ["JOBVISOR_DATABASE_URL"] = url
        use_client(None)
        return sending.enqueue("a").id

    number = int(in_a_copy(enqueue))
    with Client(url) as client:
        assert client.get(number).args == ["a"]


# -- look


def test_a_job_that_does_not_exist_is_not_found(client: Client) -> None:
    for ask in (client.get, client.attempts, client.cancel, client.requeue, client.wait):
        with pytest.raises(JobNotFound):
            ask(404)


def test_jobs_are_listed_newest_first_by_state_queue_and_task(
    client: Client, sending: Task[..., int]
) -> None:
    ids = client.enqueue_many(
        [sending.call("a"), sending.using(queue="bulk").call("b"), client.call("app:other")]
    )
    assert [job.id for job in client.list()] == ids[::-1]
    assert [job.id for job in client.list(queue="bulk")] == [ids[1]]
    assert [job.id for job in client.list(task="app:other", state="pending")] == [ids[2]]
    assert [job.id for job in client.list(limit=1, before=ids[2])] == [ids[1]]
    assert client.list(state="failed") == []


def test_a_state_that_is_none_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="'done' is no state; it must be one of scheduled, "):
        client.list(state="done")
    with pytest.raises(InvalidOption, match="'done' is no state"):
        client.prune({"done": 0})


def test_jobs_are_counted_and_the_longest_wait_is_told(client: Client, clock: MovableClock) -> None:
    client.enqueue("app:send")
    clock.move(1_500)
    client.enqueue("app:send")
    assert client.counts() == {"default": {"pending": 2}}
    assert client.oldest_pending() == {"default": 1.5}


def test_a_job_may_be_given_where_an_id_is_meant(client: Client, sending: Task[..., int]) -> None:
    job = client.enqueue(sending, "abc")
    assert client.get(job) == job
    assert client.attempts(job) == []
    assert client.cancel(job) == "cancelled"
    assert client.requeue(job).state is State.PENDING
    assert [moved.outcome for moved in client.cancel_many([job])] == ["cancelled"]
    assert [moved.outcome for moved in client.requeue_many([job])] == ["pending"]
    client.run_one()
    assert client.wait(job, timeout=0).result == 7


def test_a_requeued_job_that_is_done_and_gone_at_once_is_answered_as_it_was_requeued(
    client: Client, sending: Task[..., int]
) -> None:
    job = client.enqueue(sending, "abc")
    client.cancel(job)

    def run_and_prune(event: Event) -> None:
        if event.verb == "requeue":  # told right after the commit
            client.run_one()
            client.prune({"succeeded": 0})

    client._events.subscribe(run_and_prune)
    assert client.requeue(job).state is State.PENDING
    assert client.list() == []


def test_many_jobs_are_moved_in_the_order_of_their_ids_and_told_in_the_order_given(
    client: Client,
) -> None:
    first, second = (client.enqueue("app:f").id for _ in range(2))
    order: list[tuple[str, int]] = []
    client._events.subscribe(lambda event: order.append((event.verb, event.job)))
    told = client.cancel_many([second, 77, first, second])
    assert [(each.id, each.outcome) for each in told] == [
        (second, "cancelled"), (77, "refused"), (first, "cancelled"), (second, "refused"),
    ]  # fmt: skip
    assert [each.id for each in client.requeue_many([second, first])] == [second, first]
    assert order == [(verb, job) for verb in ("cancel", "requeue") for job in (first, second)]


@pytest.mark.parametrize("job", ["1", None, 1.0, True, b"1", [1]])
def test_what_is_no_job_is_refused_with_a_sentence(client: Client, job: Any) -> None:
    for ask in (client.get, client.attempts, client.cancel, client.requeue, client.wait):
        with pytest.raises(InvalidOption, match=r"is no job; give its id"):
            ask(job)
    for many in (client.cancel_many, client.requeue_many):
        with pytest.raises(InvalidOption, match=r"is no job; give its id"):
            many([job])


def test_what_is_no_call_is_refused_with_the_way_to_make_one(
    client: Client, sending: Task[..., int]
) -> None:
    wrong: list[Any] = [sending.call("a"), sending]
    with pytest.raises(InvalidOption, match=r"calls\[1\] is <task app:send>; .*app:send\.call"):
        client.enqueue_many(wrong)
    with pytest.raises(InvalidOption, match=r"calls\[0\] is 'app:send'; .*made by task\.call"):
        client.enqueue_many(["app:send"])  # type: ignore[list-item]
    assert client.list() == []


# -- wait


def test_a_finished_job_is_not_waited_for(client: Client, sending: Task[..., int]) -> None:
    job = client.enqueue(sending, "abc")
    client.run_one()
    assert client.wait(job.id, timeout=0).result == 7


def test_a_wait_ends_when_somebody_else_finishes_the_job(
    file_client: Client, registry: Registry, sending: Task[..., int]
) -> None:
    job = file_client.enqueue(sending, "abc")

    def work() -> None:
        with Client(file_client.url, registry=registry) as other:
            other.run_one()

    worker = threading.Thread(target=work)
    worker.start()
    assert file_client.wait(job.id, timeout=30).result == 7
    worker.join(30)


def test_the_waits_of_all_threads_take_one_watch_and_few_looks_among_the_writes_of_others(
    file_client: Client,
) -> None:
    job = file_client.enqueue("app:send")
    looks = 0

    def wait() -> None:
        file_client.wait(job.id, timeout=30)

    def trace(statement: str) -> None:
        nonlocal looks
        looks += f"id = {job.id}" in statement

    before = _watches()
    store = file_client._own_store()
    assert isinstance(store, SqliteStore)
    store._connected().set_trace_callback(trace)
    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    with Client(file_client.url) as other:
        for number in range(400):
            other.enqueue("app:send")
            if number == 200:
                assert _watches() - before <= 1
        other.cancel(job.id)
    for thread in threads:
        thread.join(30)
    assert _watches() == before
    assert 8 <= looks < 8 * 400 / 4


def _watches() -> int:
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum(os.path.islink(link) and "inotify" in os.readlink(link) for link in links)


@pytest.mark.parametrize(("timeout", "told"), [(0, "0"), (0.03, "0.03"), ("30ms", "0.03")])
def test_a_wait_that_takes_too_long_ends_and_the_job_goes_on(
    client: Client, timeout: Duration, told: str
) -> None:
    job = client.enqueue("app:send")
    with pytest.raises(WaitTimeout, match=f"job {job.id} is still pending after {told} s"):
        client.wait(job.id, timeout=timeout)
    assert client.get(job.id).state is State.PENDING


def test_a_wait_for_no_time_is_refused_with_a_sentence(client: Client) -> None:
    with pytest.raises(InvalidOption, match="'soon' is not a duration"):
        client.wait(client.enqueue("app:send"), timeout="soon")


# -- change


def test_a_pending_job_is_cancelled_and_can_be_requeued(client: Client) -> None:
    job = client.enqueue("app:send")
    assert client.cancel(job.id) == "cancelled"
    with pytest.raises(IllegalMove, match="is cancelled already"):
        client.cancel(job.id)
    assert client.requeue(job.id).state is State.PENDING
    with pytest.raises(IllegalMove, match="only a finished job"):
        client.requeue(job.id)


def test_a_requeue_names_the_job_that_holds_its_key(client: Client) -> None:
    call = client.call("app:send", options={"unique": "key"})
    first = client.enqueue(call)
    client.cancel(first.id)
    holder = client.enqueue(call)
    with pytest.raises(UniqueTaken) as caught:
        client.requeue(first.id)
    assert caught.value.holder == holder.id


def test_one_of_many_that_cannot_be_moved_stops_no_other(client: Client) -> None:
    keyed = client.call("app:send", options={"unique": "k"})
    ids = [client.enqueue("app:send").id, client.enqueue(keyed).id, client.enqueue("app:send").id]
    assert [moved.outcome for moved in client.cancel_many(ids)] == ["cancelled"] * 3
    holder = client.enqueue(keyed).id
    moves = client.requeue_many([*ids, 99, holder])
    assert [moved.id for moved in moves] == [*ids, 99, holder]
    assert [moved.outcome for moved in moves] == [
        "pending", "refused", "pending", "refused", "refused",
    ]  # fmt: skip
    assert isinstance(moves[1].error, UniqueTaken)
    assert isinstance(moves[3].error, JobNotFound)
    assert isinstance(moves[4].error, IllegalMove)
    assert list(client.ids("pending")) == [ids[0], ids[2], holder]


def test_many_are_moved_together_or_not_at_all(client: Client) -> None:
    ids = [client.enqueue("app:send").id for _ in range(3)]

    def interrupted() -> Iterator[int]:
        yield from ids
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        client.cancel_many(interrupted())
    assert list(client.ids("pending")) == ids


def test_finished_jobs_are_pruned_and_counted(client: Client, clock: MovableClock) -> None:
    for job in [client.enqueue("app:send") for _ in range(3)]:
        client.cancel(job.id)
    client.enqueue("app:send")
    clock.move(1_000)
    ages = {"cancelled": 1_000, "failed": 0}
    assert client.prune(ages, dry_run=True) == {"cancelled": 3, "failed": 0}
    assert len(client.list()) == 4
    assert client.prune(ages) == {"cancelled": 3, "failed": 0}
    assert [job.state for job in client.list()] == [State.PENDING]


def test_more_jobs_are_pruned_than_go_at_once(client: Client, clock: MovableClock) -> None:
    ids = client.enqueue_many(client.call("app:send") for _ in range(1_001))
    with client._own_store().transaction():
        for number in ids:
            client.cancel(number)
    clock.move(1)
    assert client.prune({"cancelled": 0}) == {"cancelled": 1_001}


def test_a_migration_tells_its_numbers(file_client: Client) -> None:
    assert file_client.migrate() == (0, SCHEMA)
    assert file_client.migrate() == (SCHEMA, SCHEMA)


# -- run_one


def test_one_step_runs_one_job_and_settles_it(client: Client, sending: Task[..., int]) -> None:
    low = client.enqueue(sending, "abc")
    high = client.enqueue(sending.using(priority=1).call("abcd"))
    first = client.run_one()
    assert first is not None
    assert (first.id, first.state, first.result, first.attempt) == (high.id, "succeeded", 8, 1)
    second = client.run_one()
    assert second is not None
    assert second.id == low.id
    assert client.run_one() is None


def test_one_step_leaves_no_owner_behind(client: Client, sending: Task[..., int]) -> None:
    client.enqueue(sending, "abc")
    client.run_one()
    client.run_one()
    assert client._own_store().strays() == []


def test_one_step_takes_what_has_fallen_due(client: Client, clock: MovableClock) -> None:
    client.enqueue(client.call("app:send", options={"run_in": "1s", "queue": "other"}))
    assert client.run_one() is None
    clock.move(1_000)
    assert client.run_one() is not None


def test_one_step_can_be_kept_to_some_queues(client: Client, sending: Task[..., int]) -> None:
    client.enqueue(sending, "abc")
    assert client.run_one(["bulk"]) is None
    assert client.run_one(["bulk", "default"]) is not None
    with pytest.raises(InvalidOption, match="must be a list of names"):
        client.run_one("default")


def test_a_failed_step_is_retried_when_it_is_due(
    client: Client, registry: Registry, clock: MovableClock
) -> None:
    def once(ctx: Context) -> str:
        if ctx.attempt == 1:
            raise Retry("5s", reason="not yet")
        return f"attempt {ctx.attempt} of {ctx.attempts_max} by {ctx.worker}"

    job = client.enqueue(registry.task(once, name="app:once"))
    first = client.run_one()
    assert first is not None
    assert (first.state, first.error) == (State.SCHEDULED, "not yet")
    clock.move(5_000)
    last = client.run_one()
    assert last is not None
    assert last.result == "attempt 2 of 4 by run_one"
    assert [attempt.message for attempt in client.attempts(job.id)] == ["not yet"]


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), Exception("x")], ids=repr)
def test_a_step_that_raises_anything_is_settled_and_not_raised(
    client: Client, registry: Registry, error: BaseException
) -> None:
    def function() -> None:
        raise error

    client.enqueue(registry.task(function, name="app:raising", retries=0))
    job = client.run_one()
    assert job is not None
    assert job.state is State.FAILED


class Interrupted(MovableClock):
    """A clock at whose next asking somebody presses Ctrl-C, once it is told so."""

    pressed = False

    def now_ms(self) -> int:
        if self.pressed:
            self.pressed = False
            raise KeyboardInterrupt
        return super().now_ms()


def test_a_step_that_is_interrupted_at_its_settling_is_settled_by_the_next(
    tmp_path: Path, registry: Registry
) -> None:
    clock = Interrupted()
    runs: list[int] = []

    def function() -> int:
        runs.append(1)
        clock.pressed = True
        return 7

    with Client(f"sqlite:///{tmp_path}/jobs.db", registry=registry, clock=clock) as client:
        job = client.enqueue(registry.task(function, name="app:interrupted"))
        with pytest.raises(KeyboardInterrupt):
            client.run_one()
        assert client.get(job.id).state is State.RUNNING
        assert client.run_one() is None
        assert client.get(job.id).result == 7
        assert runs == [1]
        assert client._own_store().strays() == []


def test_a_step_whose_every_end_is_refused_says_so(
    file_client: Client, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    job = file_client.enqueue(registry.task(lambda: 7, name="app:f"))
    with closing(sqlite3.connect(file_client.url.removeprefix("sqlite:///"))) as stranger:
        stranger.execute(
            "CREATE TRIGGER no_end BEFORE UPDATE ON jobs WHEN new.state IN ('succeeded', 'failed') "
            "BEGIN SELECT RAISE(ABORT, 'there is no end'); END"
        )
    logger = logging.getLogger("jobvisor")
    logger.addHandler(caplog.handler)
    try:
        ran = file_client.run_one()
    finally:
        logger.removeHandler(caplog.handler)
    assert ran is not None
    assert ran.state is State.RUNNING
    assert f"job {job.id} stays as it is, the database refuses every change of it" in caplog.text
    assert "there is no end" in caplog.text


def test_a_snoozed_step_keeps_its_attempts(
    client: Client, registry: Registry, clock: MovableClock
) -> None:
    def function() -> None:
        raise Snooze("1s")

    client.enqueue(registry.task(function, name="app:snoozing", retries=0))
    for _ in range(3):
        job = client.run_one()
        assert job is not None
        assert (job.state, job.attempt, job.deferred) == (State.SCHEDULED, 0, "snooze")
        clock.move(1_000)


def test_many_jobs_are_had_by_id_or_as_jobs_and_what_is_neither_is_named(client: Client) -> None:
    first, second = client.enqueue("app:a"), client.enqueue("app:b")
    found = client.get_many([second, 77, first.id])
    assert {number: job.task for number, job in found.items()} == {2: "app:b", 1: "app:a"}
    with pytest.raises(InvalidOption, match="'1' is no job"):
        client.get_many(["1"])  # type: ignore[list-item]
    assert client.attempts_of([first, second.id]) == {1: [], 2: []}


def test_a_step_of_an_unknown_task_is_put_off(client: Client) -> None:
    client.enqueue("app:nowhere")
    job = client.run_one()
    assert job is not None
    assert (job.state, job.deferred) == (State.SCHEDULED, "unknown")


def test_a_task_may_enqueue_through_the_client_that_runs_it(
    client: Client, registry: Registry, sending: Task[..., int]
) -> None:
    def fan_out() -> int:
        return client.enqueue(sending, "abc").id

    client.enqueue(registry.task(fan_out, name="app:fan_out"))
    job = client.run_one()
    assert job is not None
    assert client.get(job.result).state is State.PENDING


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_client_that_holds_nothing_has_no_connection_while_a_task_runs(
    tmp_path: Path, registry: Registry
) -> None:
    def open_files() -> list[str]:
        found = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{name}"))
        return [path for path in found if path.startswith(str(tmp_path))]

    with Client(f"sqlite:///{tmp_path}/jobs.db", registry=registry, hold=False) as client:
        client.enqueue(registry.task(open_files, name="app:open_files"))
        assert open_files() == []
        job = client.run_one()
    assert job is not None
    assert job.result == []


# -- codecs


class Backwards:
    """A codec that a reader of the table cannot read at a glance."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, text: str) -> str:
        return text[::-1]


def test_with_a_codec_nothing_readable_is_stored_and_everything_comes_back(
    tmp_path: Path, registry: Registry, sending: Task[..., int]
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Client(url, codec=Backwards(), registry=registry) as client:
        job = client.enqueue(sending, "secret", subject="hidden")
        assert (job.args, job.kwargs) == (["secret"], {"subject": "hidden"})
        ran = client.run_one()
        assert ran is not None
        assert (ran.state, ran.result) == (State.SUCCEEDED, 12)
    connection = sqlite3.connect(tmp_path / "jobs.db")
    (stored,) = connection.execute("SELECT args || kwargs || result FROM jobs").fetchall()
    connection.close()
    assert "secret" not in stored[0]
    assert "hidden" not in stored[0]


def test_without_the_codec_a_job_is_listed_but_not_run(
    tmp_path: Path, registry: Registry, sending: Task[..., int]
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Client(url, codec=Backwards(), registry=registry) as client:
        client.enqueue(sending, "secret")
    with Client(url, registry=registry) as other:
        (job,) = other.list()
        assert "Unreadable" in repr(job.args)
        failed = other.run_one()
        assert failed is not None
        assert failed.state is State.FAILED
        assert other.attempts(job.id)[0].outcome == "payload"


def test_the_codec_that_the_configuration_names_is_the_clients_at_its_first_value(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text('[database]\ncodec = "codec_of_mine:Codec"\n')
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Client(url, registry=registry) as client:
        assert client.counts() == {}  # no codec is needed for that
        with pytest.raises(ConfigError, match=r"'codec_of_mine' cannot be imported.*searched in"):
            client.enqueue("app:send", "secret")
        Path("codec_of_mine.py").write_text(
            inspect.getsource(Backwards).replace("Backwards", "Codec")
        )
        importlib.invalidate_caches()
        monkeypatch.syspath_prepend(str(tmp_path))
        assert client.enqueue("app:send", "secret").args == ["secret"]
    connection = sqlite3.connect(tmp_path / "jobs.db")
    (stored,) = connection.execute("SELECT args FROM jobs").fetchall()
    connection.close()
    assert "terces" in stored[0]


def test_a_registry_has_no_codec_of_its_own(registry: Registry) -> None:
    with pytest.raises(AttributeError):
        registry.codec = Backwards()  # type: ignore[attr-defined]


# -- the connection


def test_a_closed_client_connects_again(file_client: Client) -> None:
    job = file_client.enqueue("app:send")
    file_client.close()
    file_client.close()
    assert file_client.get(job.id).id == job.id


def test_a_client_stays_with_its_database_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Client("sqlite:///jobs.db") as client:
        monkeypatch.chdir(tmp_path / "elsewhere")
        client.enqueue("app:send")
    assert (tmp_path / "jobs.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_connected_before_the_first_call(tmp_path: Path) -> None:
    with Client(f"sqlite:///{tmp_path}/jobs.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_process_that_holds_a_client_connects_by_itself(file_client: Client) -> None:
    before = file_client.enqueue("app:send")

    def use() -> list[int]:
        file_client.enqueue("app:send")
        return [job.id for job in file_client.list()]

    assert in_a_copy(use) == f"[{before.id + 1}, {before.id}]"
    after = file_client.enqueue("app:send")
    assert [job.id for job in file_client.list()] == [after.id, before.id + 1, before.id]


def test_a_copy_made_while_a_thread_makes_its_store_or_connects_does_so_by_itself(
    file_client: Client,
) -> None:
    # A thread that imports a driver has the one lock, one that waits for a server the other.
    with file_client._lock:
        assert in_a_copy(file_client.counts) == "{}"
    store = file_client._own_store()
    assert isinstance(store, SqliteStore)
    with store._lock:
        assert in_a_copy(file_client.counts) == "{}"
    assert file_client.counts() == {}


def test_a_copy_made_while_a_thread_enqueues_connects_by_itself(file_client: Client) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        store = file_client._own_store()
        with store.transaction():
            inside.set()
            leave.wait(30)

    file_client.enqueue("app:send")
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(30)
    answer = in_a_copy(lambda: len(file_client.list()))
    leave.set()
    thread.join(30)
    assert answer == "1"


@pytest.mark.parametrize("hold", [True, False])
def test_threads_share_a_client(tmp_path: Path, registry: Registry, hold: bool) -> None:
    errors: list[BaseException] = []
    with Client(f"sqlite:///{tmp_path}/jobs.db", registry=registry, hold=hold) as client:

        def work() -> None:
            try:
                for _ in range(25):
                    job = client.enqueue("app:send")
                    assert client.get(job.id).created
            except BaseException as error:  # noqa: BLE001 -- told to the test
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert client.counts() == {"default": {"pending": 100}}


def test_threads_that_run_steps_never_run_one_job_twice(client: Client, registry: Registry) -> None:
    ran: list[int] = []

    def note(number: int) -> None:
        ran.append(number)

    task = registry.task(note, name="app:note")
    client.enqueue_many(task.call(number) for number in range(20))

    def work() -> None:
        while client.run_one() is not None:
            pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ran) == list(range(20))


Broken = Callable[[Client], object]


@pytest.mark.parametrize(
    "broken",
    [
        lambda client: client.enqueue(object()),
        lambda client: client.get(404),
        lambda client: client.list(state="x"),
        lambda client: client.call("app:send", options={"priorty": 1}),
    ],
)
def test_every_error_of_a_client_is_a_jobs_error(client: Client, broken: Broken) -> None:
    with pytest.raises(JobsError):
        broken(client)


def test_a_look_within_an_export_does_not_end_its_snapshot(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Client(url, hold=False) as client, Client(url) as other:
        first = other.enqueue("app:first")
        with client.export() as export:
            assert client.get(first).state is State.PENDING
            other.enqueue("app:later")
            assert [row.task for row in export.jobs] == ["app:first"]
        assert len(client.list()) == 2
