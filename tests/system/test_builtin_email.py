"""The task `email` in a family: whatever kills a run, who was accepted gets no second mail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.builtin.post import STALL, Post
from tests.system.harness import Build, House
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

ADA, BOB, CYD = "ada@example.com", "bob@example.com", "cyd@example.com"


@pytest.fixture
def post() -> Iterator[Post]:
    """It accepts the first, and is silent when it has the mail for the second."""
    with Post({f"DATA {BOB}": [STALL]}) as server:
        yield server


def household(build: Build, post: Post) -> House:
    email = {"host": "127.0.0.1", "port": post.port, "from": "jobs@example.org", "security": "none"}
    tasks = {"modules": ["jobvisor.builtin.email"]}
    return build("", processes=1, config={"email": email, "tasks": tasks})


def enqueue(house: House, post: Post) -> int:
    call = house.client.call("email", [ADA, BOB, CYD], "S", "T", options={"retry": "0s"})
    return house.client.enqueue(call).id


def wait_for_the_second(post: Post) -> None:
    eventually(lambda: f"DATA {BOB}" in post.asked, what="the second mail is under way")
    assert post.to == [ADA]


@pytest.mark.lanes(1, 4)
def test_a_worker_that_is_killed_in_the_middle_sends_nobody_a_second_mail(
    build: Build, post: Post
) -> None:
    house = household(build, post)
    job = enqueue(house, post)
    family = house.start()
    wait_for_the_second(post)
    os.kill(house.workers()[0], signal.SIGKILL)
    house.wait_state(job, "succeeded")
    assert post.to == [ADA, BOB, CYD]
    assert house.history(job) == ["crash"]
    assert house.client.get(job).result["recipients"][ADA]["status"] == "accepted"
    assert house.stop(family) == 0


def test_a_family_that_is_killed_in_the_middle_sends_nobody_a_second_mail(
    build: Build, post: Post
) -> None:
    house = household(build, post)
    job = enqueue(house, post)
    family = house.start()
    wait_for_the_second(post)
    house.kill_family(family)
    family = house.start()
    house.wait_state(job, "succeeded")
    assert post.to == [ADA, BOB, CYD]
    assert house.stop(family) == 0
