"""What a job knows of itself at any depth, and what comes with one beside its arguments."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Context, Nobody, current
from jobvisor.jobs.errors import InvalidOption, PayloadError
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.headers import HEADERS_MAX, decode_headers, encode_headers, headers
from jobvisor.jobs.job import Claimed, Job
from jobvisor.jobs.registry import Registry

TRACED = {"trace": "4bf92f35", "user": 7}
colour = ContextVar("colour", default="none")


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def client(registry: Registry) -> Iterator[Client]:
    with Client("memory://", registry=registry) as opened:
        yield opened


@pytest.fixture
def ambient() -> Iterator[dict[str, Any]]:
    """What a web application says of the request that it serves."""
    token = headers.set(TRACED)
    yield TRACED
    headers.reset(token)


def ran(client: Client) -> Job:
    job = client.run_one()
    assert job is not None
    assert job.state == "succeeded", job.error
    return job


# -- headers


@pytest.mark.usefixtures("ambient")
def test_a_job_takes_along_the_headers_that_are_set_where_it_is_enqueued(client: Client) -> None:
    job = client.enqueue("app:f")
    assert job.headers == client.get(job.id).headers == TRACED
    ids = client.enqueue_many([client.call("app:f"), client.call("app:f", options={"queue": "q"})])
    assert [client.get(number).headers for number in ids] == [TRACED, TRACED]


@pytest.mark.usefixtures("ambient")
def test_headers_of_the_call_are_added_and_count_where_both_say_it(client: Client) -> None:
    call = client.call("app:f", options={"headers": {"user": 8, "tenant": "x"}})
    assert client.enqueue(call).headers == {"trace": "4bf92f35", "user": 8, "tenant": "x"}


def test_a_job_without_headers_has_none(client: Client) -> None:
    assert client.enqueue("app:f").headers == {}
    assert client.enqueue(client.call("app:f", options={"headers": {}})).headers == {}


def test_a_task_reads_the_headers_of_its_job(client: Client, registry: Registry) -> None:
    @registry.task(name="app:f", headers={"app": "shop"})
    def f(ctx: Context) -> Any:
        return dict(ctx.headers)

    f_job = client.enqueue(f.using(headers=TRACED))
    client.enqueue(f)
    assert ran(client).result == f_job.headers == TRACED
    assert ran(client).result == {"app": "shop"}
    assert Context.for_test(headers=TRACED).headers == TRACED


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "must be a dict with texts as its keys"),
        ({1: 2}, "must be a dict with texts as its keys"),
        ({"a": object()}, "must hold what JSON has"),
        ({"a": float("nan")}, "must hold what JSON has"),
        ({"a": "\ud800"}, "must hold what JSON has"),
        ({"a": "x" * HEADERS_MAX}, f"more than {HEADERS_MAX}; give what is larger as an argument"),
    ],
)
def test_what_headers_cannot_be_is_an_error_of_one_sentence(value: Any, words: str) -> None:
    with pytest.raises(InvalidOption, match=words) as caught:
        encode_headers("headers", value)
    assert str(caught.value).startswith("headers")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": "x" * HEADERS_MAX}, "headers takes"),
        (["a"], r"jobvisor\.headers=\['a'\] must be a dict"),
        ({7: 1}, "must be a dict with texts as its keys"),
    ],
)
def test_what_is_set_around_and_cannot_be_headers_is_refused_at_the_enqueue(
    client: Client, value: Any, words: str
) -> None:
    token = headers.set(value)
    try:
        with pytest.raises(InvalidOption, match=words):
            client.enqueue("app:f")
    finally:
        headers.reset(token)


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": ' + "[" * 3_000])
def test_what_a_stranger_wrote_as_headers_fails_the_job_with_a_word(text: str) -> None:
    with pytest.raises(PayloadError, match=r"^headers"):
        decode_headers(text)
    registry, port = Registry(), Nobody()
    registry.task(lambda: None, name="app:f")
    claimed = Claimed(1, "app:f", "[]", "{}", 1, 4, 1, None, 0, 0, None, "default", 0, text)
    outcome = Execution(registry, clock=SYSTEM, port=port, worker="w").run(claimed)
    assert (outcome.verb, outcome.kind) == ("fail", "payload")


# -- a job enqueued by a job


def test_a_job_enqueued_by_a_job_inherits_its_trace_and_knows_its_parent(
    client: Client, registry: Registry
) -> None:
    @registry.task(name="app:f")
    def f(depth: int) -> int:
        if not depth:
            return 0
        return client.enqueue(f.using(headers={"depth": depth}), depth - 1).id

    first = client.enqueue(f.using(headers=TRACED), 2)
    for _ in range(3):
        ran(client)
    child, grandchild = client.get(first.id + 1), client.get(first.id + 2)
    assert (child.parent, child.headers) == (first.id, {"trace": "4bf92f35", "depth": 2})
    assert (grandchild.parent, grandchild.headers) == (child.id, {"trace": "4bf92f35", "depth": 1})
    assert first.parent is None


def test_the_parent_of_a_job_in_another_database_is_not_told(
    client: Client, registry: Registry, tmp_path: Path
) -> None:
    elsewhere = Client(f"sqlite:///{tmp_path}/other.db")

    @registry.task(name="app:f")
    def f() -> int:
        return elsewhere.enqueue("other:g").id

    client.enqueue(f.using(headers=TRACED))
    with elsewhere:
        found = elsewhere.get(ran(client).result)
    assert (found.parent, found.headers) == (None, {"trace": "4bf92f35"})


def test_one_database_is_known_by_any_url_of_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    urls = [f"sqlite:///{tmp_path}/jobs.db", f"sqlite:///{tmp_path}/below/../jobs.db"]
    assert len({Client(url).home for url in urls}) == 1
    assert Client(urls[0], prefix="our_").home != Client(urls[0]).home
    assert Client("memory://").home != Client("memory://").home


# -- the job that runs here


def test_the_running_job_is_known_at_any_depth(client: Client, registry: Registry) -> None:
    def deep() -> list[int | None]:
        def note() -> None:
            asked = current()
            found.append(asked.job if asked else None)

        found: list[int | None] = []
        note()
        threads = [
            threading.Thread(target=copy_context().run, args=[note]),
            threading.Thread(target=note),
        ]
        for thread in threads:
            thread.start()
            thread.join()
        return found

    registry.task(deep, name="app:f")
    job = client.enqueue("app:f")
    assert current() is None
    assert ran(client).result == [job.id, job.id, None]
    assert current() is None


def test_the_running_job_is_known_in_coroutines_and_their_threads(
    client: Client, registry: Registry
) -> None:
    async def name() -> str | None:
        asked = current()
        return asked.task if asked else None

    @registry.task(name="app:f")
    async def f() -> list[str | None]:
        asked = await asyncio.to_thread(current)
        assert asked is not None
        return [await name(), await asyncio.create_task(name()), asked.task]

    client.enqueue(f)
    assert ran(client).result == ["app:f"] * 3


def test_a_job_finds_nothing_that_another_left_in_context_variables(
    client: Client, registry: Registry
) -> None:
    @registry.task(name="app:f")
    def f() -> str:
        found = colour.get()
        colour.set("red")
        headers.set(TRACED)
        return found

    @registry.task(name="app:g")
    async def g() -> str:
        found = colour.get()
        colour.set("green")
        return found

    client.enqueue_many([f.call(), g.call(), f.call()])
    assert [ran(client).result for _ in range(3)] == ["none"] * 3
    assert headers.get() == {}
