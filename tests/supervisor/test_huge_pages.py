"""Huge pages take the place of small ones where these are in use, and of no others."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.child import spawn
from jobvisor.supervisor.template.huge_pages import LIMIT_NS, PAGE, use_huge_pages
from tests.clock import StandingClock

SIZE = 16 * PAGE
PATTERN = bytes(range(256)) * (PAGE // 256)
NONE_GIVEN = 3  # an exit code


def made() -> mmap.mmap:
    return mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def held(word: str) -> int:
    """Bytes of this process, by a word of smaps_rollup."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{word}:"))


def in_a_child(check: Callable[[], int]) -> None:
    """Its memory is its own, so that ours stays as it is."""
    _, status = os.waitpid(spawn(check, []), 0)
    if (code := os.waitstatus_to_exitcode(status)) == NONE_GIVEN:
        pytest.skip("this system gives no huge pages")
    assert code == 0


def test_what_is_in_use_stands_in_huge_pages_and_is_the_same() -> None:
    def check() -> int:
        memory = made()
        memory[:] = PATTERN * 16
        if not use_huge_pages(SYSTEM):
            return NONE_GIVEN
        assert held("AnonHugePages") >= SIZE - PAGE  # it may begin in the middle of one
        assert memory[:] == PATTERN * 16
        return 0

    in_a_child(check)


def test_what_is_hardly_used_takes_no_more_memory() -> None:
    def check() -> int:
        memory = made()
        for at in range(0, SIZE, PAGE // 2):
            memory[at] = 1
        before = held("Rss")
        use_huge_pages(SYSTEM)
        assert held("Rss") - before < SIZE / 2
        return 0

    in_a_child(check)


def test_it_ends_at_its_limit() -> None:
    class Late(StandingClock):
        def monotonic_ns(self) -> int:
            self.move(LIMIT_NS // 1_000_000 + 1)
            return super().monotonic_ns()

    assert use_huge_pages(Late()) == 0
