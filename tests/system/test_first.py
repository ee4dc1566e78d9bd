"""The shortest way through everything."""

from __future__ import annotations

import pytest

from tests.system.harness import Build

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]


def test_a_family_runs_what_was_enqueued_and_stops_when_asked(build: Build) -> None:
    house = build("@task\ndef add(a, b):\n    return a + b\n")
    ids = house.client.enqueue_many([house.client.call("app:add", n, 1) for n in range(100)])
    family = house.start()
    house.wait_finished(ids)
    assert house.client.get(ids[41]).result == 42
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    assert house.said(" warning ") == []
