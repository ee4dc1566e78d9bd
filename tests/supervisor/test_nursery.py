"""What stands ready before the first fork."""

from __future__ import annotations

import os

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.board import Board
from jobvisor.supervisor.parent.nursery import Nursery


def test_a_family_that_has_left_leaves_no_descriptor_in_the_script_that_was_its_parent() -> None:
    Nursery(Board(), SYSTEM).close()  # whatever is imported for the first time is by now
    before = os.listdir("/proc/self/fd")
    Nursery(Board(), SYSTEM).close()
    assert os.listdir("/proc/self/fd") == before
