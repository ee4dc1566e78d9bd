"""Schedules as code and programs say them, judged where they are written; what a job knows of its tick."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from jobvisor import Client, Context
from jobvisor.errors import InvalidOption, PayloadError, ScheduleNotFound, ScheduleTaken
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.timing import timing_of


def test_a_task_that_says_when_has_a_schedule_of_its_own_name() -> None:
    registry = Registry()

    @registry.task(name="app:report", cron="0 3 * * *", timezone="Europe/Berlin")
    def report(ctx: Context, days: int = 7) -> None: ...

    @registry.task(name="app:sweep", every="15m", unique=lambda: "the-key")
    def sweep() -> None: ...

    @registry.task(name="app:other")
    def other() -> None: ...

    first, second = registry.plans()
    assert (first.name, first.task, first.cron) == ("app:report", "app:report", "0 3 * * *")
    assert (first.timezone, second.every_ms) == ("Europe/Berlin", 900_000)
    assert second.keys == '{"unique": "the-key"}'


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"cron": "0 3 * *"}, "is no cron expression"),
        ({"every": "0s"}, 'must be from "1s"'),
        ({"every": "soon"}, "every: 'soon' is not a duration"),
        ({"cron": "@daily", "every": "1h"}, "both say when"),
        ({"cron": "@daily", "timezone": "Mars"}, "is no time zone"),
        ({"timezone": "UTC"}, "goes with cron"),
        ({"cron": 7}, "cron=7 is no cron expression"),
    ],
)
def test_a_wrong_time_is_refused_at_the_decorator(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Registry().task(name="f", **said)


def test_a_task_that_needs_arguments_cannot_say_when_by_itself() -> None:
    with pytest.raises(InvalidOption, match="missing a required argument: 'to'"):

        @Registry().task(name="app:send", every="1h")
        def send(to: str) -> None: ...


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("memory://", registry=Registry()) as made:
        yield made


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "neither cron nor every"),
        ({"every": "1h", "catch_up": "some"}, "catch_up='some' must be one of latest, all, none"),
        ({"every": "1h", "overlap": 1}, "overlap=1 must be one of allow, skip"),
        ({"every": "1h", "queue": "*"}, "names no queue"),
        ({"every": "1h", "anchor": datetime(2027, 1, 1)}, "anchor: .* has no timezone"),  # noqa: DTZ001
        ({"cron": "@daily", "anchor": datetime(2027, 1, 1, tzinfo=UTC)}, "anchor goes with every"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_added(
    client: Client, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        client.schedules.add("s", "app:f", **said)
    assert client.schedules.list() == []


def test_arguments_are_held_against_the_task(client: Client) -> None:
    @client._registry.task(name="app:send", queue="mail")
    def send(to: str) -> None: ...

    with pytest.raises(InvalidOption, match="missing a required argument"):
        client.schedules.add("s", send, every="1h")
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        client.schedules.add("s", send, every="1h", args=[object()])
    with pytest.raises(InvalidOption, match="has its arguments already"):
        client.schedules.add("s", send.call("a"), every="1h", args=["b"])
    with pytest.raises(InvalidOption, match="has the options of its task but for the queue"):
        client.schedules.add("s", send.using(retries=9).call("a"), every="1h")
    with pytest.raises(InvalidOption, match="is no name of a schedule"):
        client.schedules.add("", send, every="1h", args=["a"])
    made = client.schedules.add("s", send.using(queue="other").call("a"), every="1h")
    assert (made.args, made.queue) == (["a"], "other")
    assert client.schedules.add("t", send, every="1h", args=["a"]).queue is None
    with pytest.raises(ScheduleTaken, match="replace changes it"):
        client.schedules.add("s", send.call("b"), every="1h")
    assert client.schedules.add("s", send.call("b"), every="1h", replace=True).args == ["b"]
    job = client.schedules.trigger("t")
    assert (job.queue, job.args) == ("mail", ["a"])
    with pytest.raises(ScheduleNotFound):
        client.schedules.trigger("u")


def test_every_counts_from_its_anchor_forward_and_back() -> None:
    noon = datetime(2027, 1, 1, 12, tzinfo=UTC)
    timing = timing_of(every="7h", anchor=noon)
    at = int(noon.timestamp() * 1000)
    assert timing.next_after(at - 1) == at
    assert timing.next_after(at) == at + 7 * 3_600_000
    assert timing.due(at - 15 * 3_600_000, at, 10) == [at - 14 * 3_600_000, at - 7 * 3_600_000, at]
    assert timing.due(at - 15 * 3_600_000, at, 2) == [at - 7 * 3_600_000, at]


def test_the_newest_ticks_of_a_year_of_seconds_are_found_from_its_end() -> None:
    timing = timing_of(cron="* * * * * *")
    now = 1_800_000_000_000
    assert timing.due(now - 366 * 86_400_000, now, 3) == [now - 2_000, now - 1_000, now]


def test_a_job_knows_its_tick_whatever_else_its_headers_say() -> None:
    ctx = Context.for_test(headers={"scheduled_for": "2027-01-31T03:00:00.000Z"})
    assert ctx.scheduled_for == datetime(2027, 1, 31, 3, tzinfo=UTC)
    for other in ("soon", "2027-01-31", "0001-01-01T00:00:00+14:00", 7, None):
        assert Context.for_test(headers={"scheduled_for": other}).scheduled_for is None
    assert Context.for_test().scheduled_for is None


def test_what_a_schedule_tells_is_json(client: Client) -> None:
    told = client.schedules.add("s", "app:f", cron="0 3 * * *", args=[1], paused=True).as_json()
    assert told["paused"] == "run time"
    assert (told["next"], told["args"], told["words"]) == ([], [1], "At 03:00 every day, in UTC")
    told = client.schedules.add("t", "app:f", cron="0 3 * * *", timezone="Asia/Tokyo").as_json()
    assert told["next"][0].endswith("T03:00:00+09:00")
