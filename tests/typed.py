"""What type checkers must know of the public face: each expected error has its `type: ignore`.

Nothing here runs. Under `mypy --strict` an ignore that is not needed is an error itself.
"""

from __future__ import annotations

from typing import Any, assert_type

from jobvisor import Call, Client, Context, Job, Task, task
from jobvisor.testing import in_memory


@task
def send(to: str, *, subject: str = "") -> int:
    return len(to) + len(subject)


@task(queue="slow", retries=1)
def count(ctx: Context, pages: int) -> list[str]:
    return [str(ctx.attempt)] * pages


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task(no_such_option=1)  # type: ignore[call-overload, untyped-decorator]
def wrong() -> None: ...


def plain_calls() -> None:
    assert_type(send("a@b.c"), int)
    send(1)  # type: ignore[arg-type]
    assert_type(count(Context.for_test(), 3), list[str])
    count(3)  # type: ignore[call-arg, arg-type]


def enqueued_by_the_task() -> None:
    assert_type(send.enqueue("a@b.c", subject="x"), Job[int])
    assert_type(send.enqueue("a@b.c").result, int)
    assert_type(count.enqueue(3).result, list[str])
    assert_type(fetch.enqueue("x").result, bytes)
    assert_type(send.using(run_in="10m").enqueue("a@b.c"), Job[int])
    send.enqueue(1)  # type: ignore[arg-type]
    send.enqueue("a", subjekt="x")  # type: ignore[call-arg]
    count.enqueue(Context.for_test(), 3)  # type: ignore[call-arg, arg-type]
    send.using(run_inn="10m")  # type: ignore[call-arg]


async def enqueued_in_a_loop() -> None:
    assert_type(await send.aenqueue("a@b.c"), Job[int])
    assert_type(await fetch.aenqueue("x"), Job[bytes])


def enqueued_by_a_client(client: Client) -> None:
    assert_type(client.enqueue(send, "a@b.c", subject="x"), Job[int])
    assert_type(client.enqueue(count, 3), Job[list[str]])
    assert_type(client.enqueue(fetch, "x"), Job[bytes])
    assert_type(client.enqueue(send.call("a@b.c")), Job[int])
    assert_type(client.enqueue("app.mail:send", 1, 2, x=3), Job[Any])
    client.enqueue(send, 1)  # type: ignore[call-overload]
    client.enqueue(send)  # type: ignore[call-overload]
    client.enqueue(send.call("a"), "b")  # type: ignore[call-overload]
    client.enqueue(len, "a")  # type: ignore[call-overload]


def enqueued_in_bulk(client: Client) -> None:
    assert_type(send.call("a"), Call[int])
    assert_type(client.enqueue_many([send.call("a"), count.call(3)]), list[int])
    client.enqueue_many([send])  # type: ignore[list-item]
    client.enqueue_many([send.call(1)])  # type: ignore[arg-type]


def looked_up(client: Client, job: Job[int], any_job: Job) -> None:
    assert_type(client.get(job), Job[int])
    assert_type(client.wait(job, timeout=3).result, int)
    assert_type(client.requeue(job), Job[int])
    assert_type(client.get(7).result, Any)
    assert_type(any_job.result, Any)
    client.cancel(job)
    client.attempts(job)
    client.get("7")  # type: ignore[call-overload]


def tested() -> None:
    with in_memory() as jobs:
        assert_type(jobs.enqueued(send), list[Job[int]])
        assert_type(jobs.enqueued(), list[Job[Any]])


def passed_on(of_any: Task[..., Any]) -> Job[Any]:
    return of_any.enqueue(1, 2)
