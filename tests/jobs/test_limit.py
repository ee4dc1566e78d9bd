"""What a limit may be, and what a key: refused where it is written, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobvisor.jobs.client import Client
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.limit import Limit, Waiting, limit_of
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.store.tokens import MS, Tokens


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "limits nothing"),
        ({"concurrency": -1}, "concurrency=-1"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurrency": 10_001}, "from 0 to 10,000"),
        ({"rate": "fast"}, "rate='fast' is no rate"),
        ({"rate": "100"}, "such as"),
        ({"rate": "0/1m"}, "must be 1 to"),
        ({"rate": "-1/1m"}, "is no rate"),
        ({"rate": "1/0s"}, "must be 1 to"),
        ({"rate": "1/2y"}, "is no rate"),
        ({"rate": "1/400d"}, "1ms to 366d"),
        ({"rate": "9999999/1s"}, "must be 1 to"),
        ({"rate": 100}, "rate=100"),
        ({"rate": "1/1s", "burst": 0}, "burst=0"),
        ({"rate": "1/366d", "burst": 1_000_000}, "ten years"),
        ({"concurrency": 1, "burst": 5}, "goes with a rate"),
    ],
)
def test_a_wrong_limit_is_one_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        limit_of("stripe", **values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "x" * 101, None, 7, "a\0"])
def test_a_wrong_name_is_one_sentence(name: Any) -> None:
    with pytest.raises(InvalidOption, match="no name of a limit"):
        limit_of(name, concurrency=1)


@pytest.mark.parametrize(
    "key", ["", ":a", "a b:c", "x" * 501, "a:\0", "a:\ud800", 7, b"a", "\N{SNOWMAN}"]
)
def test_a_wrong_key_is_refused_where_it_is_written(key: Any) -> None:
    task = Registry().task
    with pytest.raises(InvalidOption, match="limit="):
        task(limit=key)(lambda: None)


@pytest.mark.parametrize("key", ["", 7, "a b"])
def test_a_wrong_key_of_a_function_is_refused_at_the_enqueue(key: Any) -> None:
    send = Registry().task(name="send", limit=lambda _to: key)(lambda _to: None)
    with Client("memory://") as client, pytest.raises(InvalidOption, match="limit="):
        client.enqueue(send, "a")


def test_the_default_burst_is_what_the_rate_gives_in_a_second() -> None:
    assert limit_of("a", rate="100/1m") == Limit("a", None, 100, 60_000, 2)
    assert limit_of("a", rate="50/s").burst == 50
    assert limit_of("a", rate="1/1d").burst == 1


def test_a_limit_is_of_the_task_of_the_call_or_of_the_arguments() -> None:
    task = Registry().task
    plain = task(name="plain", limit="gpu")(lambda n: n)
    keyed = task(name="keyed", limit=lambda n, *_: f"api:{n}" if n else None)(lambda n: n)
    with Client("memory://") as client:
        assert client.enqueue(plain, 1).limit == "gpu"
        assert client.enqueue(plain.using(limit="api:x"), 1).limit == "api:x"
        assert client.enqueue(keyed, 7).limit == "api:7"
        assert client.enqueue(keyed, 0).limit is None
        ids = client.enqueue_many([keyed.call(1), plain.call(2), keyed.call(0)])
        assert [client.get(job).limit for job in ids] == ["api:1", "gpu", None]


def test_one_job_is_run_that_stands_among_many_that_wait() -> None:
    registry = Registry()
    waits = registry.task(name="waits", limit="none")(lambda _n: None)
    plain = registry.task(name="plain")(lambda n: n)
    with Client("memory://", registry=registry) as client:
        client.limits.set("none", concurrency=0)
        client.enqueue_many([waits.call(n) for n in range(400)])
        first = client.enqueue(plain, 1)
        client.enqueue_many([waits.call(n) for n in range(3)])
        second = client.enqueue(plain, 2)
        ran = client.run_one()
        assert ran is not None
        assert (ran.id, ran.result) == (first.id, 1)
        assert ran.claim is not None
        assert ran.claim < 40  # pages, not rows
        assert (client.get(second).state, client.get(second).attempt) == ("pending", 0)
        ran = client.run_one()
        assert ran is not None
        assert (ran.id, ran.attempt) == (second.id, 1)
        assert client.run_one() is None


def test_a_test_gives_its_context_a_place() -> None:
    assert Context.for_test(place=3).place == 3
    assert Context.for_test().place is None


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0, "1st"),
        (1, "2nd"),
        (2, "3rd"),
        (3, "4th"),
        (10, "11th"),
        (110, "111th"),
        (1_202, "1,203rd"),
    ],
)
def test_a_place_in_line_is_told_in_words(ahead: int, said: str) -> None:
    waits = Waiting("stripe", limit_of("stripe", concurrency=5), 5, ahead, None)
    assert str(waits) == f"limit stripe: 5 of 5, {said} in line"


@given(
    rate=st.integers(1, 1_000),
    per_ms=st.integers(1, 10_000),
    burst=st.integers(1, 50),
    waits=st.lists(st.integers(0, 2_000), max_size=60),
)
def test_in_any_window_no_more_start_than_the_rate_and_a_burst(
    rate: int, per_ms: int, burst: int, waits: list[int]
) -> None:
    now, spent, starts = 1_000_000, None, []
    for wait in waits:
        now += wait
        tokens = Tokens.of(now, rate, per_ms, burst, spent)
        taken = tokens.free
        starts.append((now, taken))
        spent = tokens.after(taken).spent
    step = max(1, per_ms * MS // rate)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            window = (starts[last][0] - starts[first][0]) * MS
            taken = sum(number for _, number in starts[first : last + 1])
            assert taken <= burst + window // step + 1
