"""How far a worker reaches past jobs that must wait, and how long it waits for a key."""

from __future__ import annotations

import pytest

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.base import NOTHING, Turn
from jobvisor.supervisor.running.reach import Reach

JOB = Claimed(1, "app:f", "[]", "{}", 1, 4, 1, None, 0, 0, None, "default", 0)


def test_a_worker_reaches_twice_as_far_while_all_that_it_claims_must_wait() -> None:
    reach, wishes = Reach(), []
    for _ in range(6):
        wishes.append(reach.wish(4, 500))
        reach.turned(Turn([], NOTHING, parked=wishes[-1]))
        assert reach.goes_on
    assert wishes == [4, 32, 64, 128, 256, 500]
    reach.turned(Turn([JOB], NOTHING, parked=499))
    assert reach.goes_on
    assert reach.wish(4, 500) == 4


def test_what_is_put_back_is_waited_for_a_moment_and_not_for_long() -> None:
    reach, waits = Reach(), []
    for _ in range(6):
        reach.turned(Turn([], NOTHING, returned=1))
        assert reach.is_held_up
        waits.append(reach.wait)
    assert waits == pytest.approx([0.005, 0.01, 0.02, 0.04, 0.05, 0.05])
    reach.turned(Turn([JOB], NOTHING, returned=1))
    assert not reach.is_held_up
