"""The looks at what changed: how few statements they are, and that each gap in what they see is told."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SECOND
from jobvisor.supervisor.web.events.lookout import (
    AGAIN_NS,
    FOLLOWED_S,
    HEARD_NS,
    JOBS_MOST,
    Lookout,
)
from tests.clock import StandingClock
from tests.postgres import shared
from tests.proxy import Proxy
from tests.waiting import LIMIT

NONE: frozenset[int] = frozenset()
HEARD_MS = HEARD_NS // 1_000_000 + 1
TASK = "app:send"


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def lookout(client: Client, clock: StandingClock) -> Iterator[Lookout]:
    """One that has begun, and that everybody knows of."""
    made = Lookout(client, dict, clock)
    assert made.look(NONE).began
    assert len(resets(made, clock, AGAIN_NS)) == 2
    yield made
    made.rest()


class Slow(Client):
    """Closing a connection of it takes until the test says so, as with a database that is away."""

    closing, go_on = threading.Event(), threading.Event()

    def close(self) -> None:
        self.closing.set()
        assert self.go_on.wait(LIMIT)
        super().close()


def test_a_look_may_begin_while_the_connection_before_is_still_being_closed(
    url: str, clock: StandingClock
) -> None:
    Slow.closing.clear()
    Slow.go_on.clear()
    client = Slow(url)
    lookout = Lookout(client, dict, clock)
    assert lookout.look(NONE).began
    rest = threading.Thread(target=lookout.rest)
    rest.start()
    assert client.closing.wait(LIMIT)
    assert not lookout.look(NONE).trouble
    own = lookout._own
    client.go_on.set()
    rest.join(LIMIT)
    assert lookout._own is own
    assert not lookout.look(NONE).trouble
    lookout.rest()
    client.close()


def resets(lookout: Lookout, clock: StandingClock, nanoseconds: int) -> list[int]:
    """When it says to look at everything anew, in milliseconds, if it looks five times a second."""
    found: list[int] = []
    for passed in range(200, nanoseconds // 1_000_000 + 1, 200):
        clock.move(200)
        if lookout.look(NONE).reset is not None:
            found.append(passed)
    return found


def states(lookout: Lookout) -> dict[int, str]:
    seen = lookout.look(NONE)
    assert not seen.trouble
    return {each.job: json.loads(each.text)["state"] for each in seen.told}


def test_a_job_that_changed_often_between_two_looks_is_told_once_with_its_last_state(
    client: Client, lookout: Lookout
) -> None:
    job = client.enqueue(TASK)
    client.cancel(job)
    client.requeue(job)
    client.cancel(job)
    client.requeue(job)
    assert states(lookout) == {job.id: "pending"}
    assert states(lookout) == {}


def test_a_job_that_is_gone_says_so(client: Client, lookout: Lookout) -> None:
    job = client.enqueue(TASK)
    client.cancel(job)
    lookout.look(NONE)
    client.prune({"cancelled": 0})
    assert states(lookout) == {job.id: "gone"}


def test_a_summary_has_the_words_of_a_job_and_neither_arguments_nor_result(
    client: Client, lookout: Lookout
) -> None:
    job = client.enqueue(TASK, "to@somebody", subject="secret")
    (each,) = lookout.look(NONE).told
    told: dict[str, Any] = json.loads(each.text)
    whole = client.get(job).as_json()
    assert told == {name: whole[name] for name in told}
    assert not {"args", "kwargs", "result", "headers"} & told.keys()
    assert "secret" not in each.text


def test_what_is_to_be_hidden_is_masked(client: Client, clock: StandingClock) -> None:
    lookout = Lookout(client, lambda document: {**document, "progress": "***"}, clock)
    lookout.look(NONE)
    client.enqueue(TASK)
    (each,) = lookout.look(NONE).told
    assert json.loads(each.text)["progress"] == "***"
    lookout.rest()


def test_it_begins_with_a_word_to_look_at_everything_when_everybody_has_heard_of_it(
    client: Client, clock: StandingClock
) -> None:
    lookout = Lookout(client, dict, clock)
    first = lookout.look(NONE)
    assert (first.began, first.reset, lookout.is_sure) == (True, None, False)
    # A moment later, and when what was a longer transaction then has ended.
    assert resets(lookout, clock, 3 * AGAIN_NS) == [1_200, 10_000]
    assert lookout.is_sure
    lookout.rest()


def test_more_jobs_than_are_told_one_by_one_are_a_reset_but_those_that_somebody_asked_for(
    client: Client, lookout: Lookout, clock: StandingClock
) -> None:
    ids = client.enqueue_many(client.call(TASK) for _ in range(JOBS_MOST + 1))
    seen = lookout.look(frozenset(ids[-1:]))
    assert [each.job for each in seen.told] == ids[-1:]
    assert seen.reset is None
    clock.move(HEARD_MS)
    assert lookout.look(NONE).reset is not None
    assert lookout.look(NONE).reset is None


def test_who_is_back_soon_goes_on_from_where_the_last_look_was(
    client: Client, lookout: Lookout, clock: StandingClock
) -> None:
    lookout.rest()
    job = client.enqueue(TASK)
    clock.move(1000)
    seen = lookout.look(NONE)
    assert not seen.began
    assert [each.job for each in seen.told] == [job.id]


def test_who_is_back_late_begins_anew(lookout: Lookout, clock: StandingClock) -> None:
    lookout.rest()
    clock.move((FOLLOWED_S + 1) * 1000)
    assert lookout.look(NONE).began


def test_a_look_that_finds_nothing_is_one_statement_and_one_that_does_is_three(
    tmp_path: Path, clock: StandingClock
) -> None:
    client = Client(f"sqlite:///{tmp_path}/jobs.db", clock=clock)
    client.migrate()
    lookout = Lookout(client, dict, clock)
    lookout.look(NONE)
    asked: list[str] = []
    assert lookout._own is not None
    connection: sqlite3.Connection = lookout._own._own_store()._connected()  # type: ignore[attr-defined]
    connection.set_trace_callback(asked.append)
    for _ in range(10):
        lookout.look(NONE)
    assert len(asked) == 10
    asked.clear()
    job = client.enqueue(TASK)
    client.cancel(job)
    lookout.look(NONE)
    assert len(asked) == 4  # where it stands, changes, new jobs, and the summaries
    lookout.rest()
    client.close()


def test_a_database_that_is_away_is_trouble_and_its_return_is_told(clock: StandingClock) -> None:
    url = shared().new_database()
    place = urlsplit(url)
    with Client(url) as direct, Proxy(str(place.hostname), place.port or 0) as proxy:
        direct.migrate()
        lookout = Lookout(Client(proxy.url(url)), dict, clock)
        lookout.look(NONE)
        proxy.cut()
        seen = lookout.look(NONE)
        assert seen.trouble
        assert not lookout.is_sure
        proxy.restore()
        job = direct.enqueue(TASK)
        seen = lookout.look(NONE)
        assert seen.reset == "the database answers again"
        assert [each.job for each in seen.told] == [job.id]
        lookout.rest()


def test_the_followed_time_is_asked_for_again_before_it_is_over(
    client: Client, lookout: Lookout, clock: StandingClock
) -> None:
    for _ in range(3 * FOLLOWED_S):
        clock.move(SECOND // 1_000_000)
        assert not lookout.look(NONE).began
    job = client.enqueue(TASK)
    client.cancel(job)
    assert states(lookout) == {job.id: "cancelled"}
