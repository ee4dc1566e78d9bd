"""What stands ready before the first fork."""

from __future__ import annotations

import os

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.board import Board
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent import nursery
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import WORKER


def test_a_family_that_has_left_leaves_no_descriptor_in_the_script_that_was_its_parent() -> None:
    Nursery(Board(), SYSTEM).close()  # whatever is imported for the first time is by now
    before = os.listdir("/proc/self/fd")
    Nursery(Board(), SYSTEM).close()
    assert os.listdir("/proc/self/fd") == before


def test_what_the_parent_cannot_import_for_its_children_keeps_nobody_from_being_forked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after an upgrade under a running parent: the child imports it by itself, or says what is wrong."""

    def broken(_config: Config) -> None:
        raise ImportError("cannot import name 'Bell'")

    monkeypatch.setattr(nursery, "import_for_lanes", broken)
    monkeypatch.setattr(nursery, "spawn", lambda _run, _closing: 4711)
    config = Config.of({"tasks": {"modules": ["app"]}, "workers": [{"concurrency": 2}]})
    board = Board()
    board.slots[1].give_lanes(0, 2)
    post = Post(board.slots[1], WORKER, config.workers[0].name)
    ours = Nursery(board, SYSTEM)
    ours.fork(post, config, 1)
    ours.close()
    assert post.pid == 4711
