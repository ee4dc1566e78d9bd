"""The task `http` in a family: a call whose run was killed is made again, and known by its key."""

from __future__ import annotations

import os
import signal

import pytest

from tests.builtin.server import Server, answer
from tests.system.harness import Build
from tests.waiting import eventually

pytestmark = pytest.mark.system


def test_a_call_whose_worker_is_killed_is_made_again_under_the_same_key(build: Build) -> None:
    with Server([]) as server:
        server.does += [server.stall, answer(body=b"done")]
        house = build("", processes=1, config={"tasks": {"modules": ["jobvisor.builtin.http"]}})
        call = house.client.call(
            "http", server.url(), "POST", data="x", allow_private=True, options={"retry": "0s"}
        )
        job = house.client.enqueue(call).id
        family = house.start()
        eventually(lambda: server.calls, what="the call has arrived")
        os.kill(house.workers()[0], signal.SIGKILL)
        house.wait_state(job, "succeeded")
        assert house.client.get(job).result["text"] == "done"
        assert [each.headers["idempotency-key"] for each in server.calls] == [str(job)] * 2
        assert house.history(job) == ["crash"]
        assert house.stop(family) == 0
