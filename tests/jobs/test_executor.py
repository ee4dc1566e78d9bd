"""Jobs as futures: results, errors, cancelling, and one thread that watches them all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

from jobvisor import Client, Registry, State
from jobvisor.errors import InvalidOption, JobFailed, JobNotFound, QueueFull
from jobvisor.jobs.executor import JobExecutor
from tests.waiting import LIMIT, eventually

registry = Registry()


@registry.task(name="add", retries=0)
def add(first: int, second: int = 0) -> int:
    return first + second


@registry.task(name="broken", retries=0)
def broken() -> None:
    raise ValueError("no such thing")


class Runner:
    """Runs jobs in a thread of its own when it is told to."""

    def __init__(self, url: str) -> None:
        self.client = Client(url, registry=registry)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            if self.client.run_one() is None:
                self._ends.wait(0.01)

    def close(self) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join(LIMIT)
        self.client.close()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(f"sqlite:///{tmp_path}/jobs.db")
    made.client.migrate()
    yield made
    made.close()


@pytest.fixture
def client(runner: Runner) -> Iterator[Client]:
    with Client(runner.client.url, registry=registry) as made:
        yield made


def test_a_future_has_the_result_of_its_job(client: Client, runner: Runner) -> None:
    runner.start()
    with client.executor() as executor:
        first, second = executor.submit(add, 1, second=2), executor.submit("add", 3)
        assert (first.result(LIMIT), second.result(LIMIT)) == (3, 3)
        assert client.get(first.job).result == 3


def test_a_future_of_a_job_that_failed_has_its_error(client: Client, runner: Runner) -> None:
    runner.start()
    with client.executor() as executor:
        future = executor.submit(broken)
        with pytest.raises(JobFailed, match="ValueError: no such thing") as caught:
            future.result(LIMIT)
        assert caught.value.job == future.job


def test_map_enqueues_all_at_once_and_keeps_the_order(client: Client, runner: Runner) -> None:
    runner.start()
    with client.executor() as executor:
        assert list(executor.map(add, range(20), range(20))) == [2 * n for n in range(20)]
        assert list(executor.map("add", [])) == []


def test_a_map_that_is_given_up_cancels_what_has_not_begun(client: Client) -> None:
    executor = client.executor()
    results = executor.map(add, range(5), timeout=0)
    with pytest.raises(TimeoutError):
        next(results)
    assert client.counts()["default"]["cancelled"] == 4
    executor.shutdown(cancel_futures=True)


def test_cancel_cancels_the_job_and_who_waits_hears_of_it(client: Client) -> None:
    with client.executor() as executor:
        future = executor.submit(add, 1)
        assert future.cancel()
        assert client.get(future.job).state == "cancelled"
        assert wait([future], LIMIT).done == {future}
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(0)


def test_a_job_that_somebody_else_cancels_cancels_its_future(
    client: Client, runner: Runner
) -> None:
    with client.executor() as executor:
        future = executor.submit(add, 1)
        runner.client.cancel(future.job)
        with pytest.raises(CancelledError):
            future.result(LIMIT)
        assert future.cancelled()


def test_a_job_that_is_finished_is_not_cancelled_any_more(client: Client, runner: Runner) -> None:
    with client.executor() as executor:
        future = executor.submit(add, 1)
        assert runner.client.run_one()
        assert not future.cancel()
        assert future.result(LIMIT) == 1


def test_a_job_that_is_gone_is_told_so(client: Client, runner: Runner) -> None:
    with client.executor() as executor:
        future = executor.submit(add, 1)
        with runner.client._store() as store, store.transaction():
            store.cancel(future.job)
            store.prune({State.CANCELLED: 0}, limit=10)
        with pytest.raises(JobNotFound, match="is gone"):
            future.result(LIMIT)


def test_two_futures_of_one_job_both_have_its_result(client: Client, runner: Runner) -> None:
    once = add.using(unique="once")
    with client.executor() as executor:
        first, second = executor.submit(once, 1), executor.submit(once, 2)
        assert first.job == second.job
        runner.start()
        assert (first.result(LIMIT), second.result(LIMIT)) == (1, 1)


def test_one_thread_watches_and_leaves_when_there_is_nothing_to_watch(
    client: Client, runner: Runner
) -> None:
    before = threading.active_count()
    executor = client.executor()
    futures = [executor.submit(add, number) for number in range(10)]
    assert threading.active_count() == before + 1
    runner.start()
    assert [future.result(LIMIT) for future in futures] == list(range(10))
    eventually(lambda: executor._watcher is None)
    assert executor.submit(add, 7).result(LIMIT) == 7
    executor.shutdown()


def test_shutdown_refuses_further_calls_and_leaves_jobs_to_their_family(
    client: Client, runner: Runner
) -> None:
    executor = client.executor()
    future = executor.submit(add, 1)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(add, 2)
    assert client.get(future.job).state == "pending"
    runner.start()
    assert future.result(LIMIT) == 1


def test_shutdown_with_cancel_cancels_what_has_not_begun(client: Client) -> None:
    executor = client.executor()
    futures = [executor.submit(add, number) for number in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_what_is_no_task_is_refused_and_nothing_is_stored(client: Client) -> None:
    with client.executor() as executor:
        with pytest.raises(InvalidOption, match="cannot be enqueued"):
            executor.submit(len, [1])
        with pytest.raises(InvalidOption, match="cannot be enqueued"):
            list(executor.map(len, [[1]]))
    assert client.counts() == {}


def test_there_are_not_more_futures_than_it_can_watch(client: Client) -> None:
    executor = JobExecutor(client, lambda task, args: task.call(*args), most=2)
    futures = [executor.submit(add, number) for number in range(2)]
    with pytest.raises(QueueFull, match="2 futures"):
        executor.submit(add, 3)
    assert len(list(client.list())) == 2
    assert all(future.cancel() for future in futures)
    executor.shutdown()


def test_a_copy_of_the_process_begins_without_futures(client: Client, runner: Runner) -> None:
    executor = client.executor()
    future = executor.submit(add, 1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mine = executor.submit(add, 20)
            while not mine.done():
                client.run_one()
            code = 0 if mine.result(0) == 20 and not future.done() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert future.result(LIMIT) == 1
    executor.shutdown()
