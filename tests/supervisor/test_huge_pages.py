"""Huge pages take the place of small ones where these are in use, and of no others."""

from __future__ import annotations

import ctypes
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
    """Memory in small pages, also where the system gives large ones to everybody, that may become huge."""
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def let(memory: mmap.mmap) -> None:
    memory.madvise(mmap.MADV_HUGEPAGE)


def can_be_huge() -> bool:
    """Whether this system does it at all, asked without our code."""
    memory = made()
    memory[:] = PATTERN * 16
    let(memory)
    try:
        memory.madvise(25)  # MADV_COLLAPSE
    except OSError:
        return False
    return held(memory, "AnonHugePages") > 0


def held(memory: mmap.mmap, word: str) -> int:
    """Bytes of it, by a word of smaps: whatever else this process has may become huge, too."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first:
            begin, end = (int(each, 16) for each in first.split("-"))
            found = begin <= address < end
        elif found and first == f"{word}:":
            return int(rest[0]) << 10
    raise AssertionError(word)


def in_a_child(check: Callable[[], None]) -> None:
    """Its memory is its own, so that ours stays as it is."""

    def run() -> int:
        if not can_be_huge():
            return NONE_GIVEN
        check()
        return 0

    _, status = os.waitpid(spawn(run, []), 0)
    if (code := os.waitstatus_to_exitcode(status)) == NONE_GIVEN:
        pytest.skip("this system gives no huge pages")
    assert code == 0


def test_what_is_in_use_stands_in_huge_pages_and_is_the_same() -> None:
    def check() -> None:
        memory = made()
        memory[:] = PATTERN * 16
        let(memory)
        assert use_huge_pages(SYSTEM) >= SIZE - PAGE  # it may begin in the middle of one
        assert held(memory, "AnonHugePages") >= SIZE - PAGE
        assert memory[:] == PATTERN * 16

    in_a_child(check)


def test_what_is_hardly_used_takes_no_more_memory() -> None:
    def check() -> None:
        memory = made()
        for at in range(0, SIZE, PAGE // 2):
            memory[at] = 1
        let(memory)
        use_huge_pages(SYSTEM)
        assert held(memory, "Rss") < SIZE / 2

    in_a_child(check)


def test_what_is_shared_with_another_process_stays_shared() -> None:
    memory = made()
    memory[:] = PATTERN * 16

    def check() -> None:
        let(memory)
        use_huge_pages(SYSTEM)
        assert held(memory, "AnonHugePages") == 0

    in_a_child(check)


def test_it_ends_at_its_limit() -> None:
    class Late(StandingClock):
        def monotonic_ns(self) -> int:
            self.move(LIMIT_NS // 1_000_000 + 1)
            return super().monotonic_ns()

    assert use_huge_pages(Late()) == 0
