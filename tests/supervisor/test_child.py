"""One child: forked with empty hands, ended with its own exit code, reaped with all it left."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterable

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import EX_SOFTWARE
from jobvisor.jobs.log import configure
from jobvisor.supervisor.child import (
    Exit,
    kill_group,
    reap,
    reap_strangers,
    send,
    signal_name,
    spawn,
)
from jobvisor.supervisor.signals import HANDLED, PASSED_ON
from tests.system.harness import alive
from tests.waiting import eventually


def ended(pid: int) -> Exit:
    return eventually(lambda: reap(pid), what=f"the end of {pid}")  # type: ignore[return-value]


def life(run: Callable[[], object], closing: Iterable[int] = ()) -> Exit:
    """The end of a child that runs this and leaves with 0, or with 9 where it is falsy."""
    return ended(spawn(lambda: 0 if run() else 9, closing))


def forever() -> int:
    while True:
        SYSTEM.sleep(60)


def test_a_child_leaves_with_the_code_its_run_returns() -> None:
    found = ended(spawn(lambda: 42, []))
    assert (found.code, found.signal) == (42, None)


def test_a_child_that_raises_leaves_with_70_and_a_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken() -> int:
        configure("info", "text", 2)
        raise ValueError("in the child")

    assert ended(spawn(broken, [])).code == EX_SOFTWARE
    told = capfd.readouterr().err
    assert "this process ends: ValueError: in the child" in told
    assert "    Traceback (most recent call last)" in told


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
def test_no_exception_lets_a_child_run_on_in_its_parents_lines(error: BaseException) -> None:
    def broken() -> int:
        raise error

    assert ended(spawn(broken, [])).code == EX_SOFTWARE


TERMINAL = {signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}
DEFAULT = set(HANDLED) - TERMINAL


def test_a_child_is_alone_in_its_group_with_default_signals_and_no_input() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        pid = spawn(
            lambda: (
                0
                if os.getpgid(0) == os.getpid()
                and all(signal.getsignal(number) is signal.SIG_DFL for number in DEFAULT)
                and all(signal.getsignal(number) is signal.SIG_IGN for number in TERMINAL)
                and signal.set_wakeup_fd(-1) == -1
                and os.read(0, 1) == b""
                else 9
            ),
            [],
        )
        assert os.getpgid(pid) == pid
        assert ended(pid).code == 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_child_closes_what_it_must_not_inherit() -> None:
    read, write = os.pipe()
    pid = spawn(forever, [write])
    os.close(write)
    try:
        # Only the end of the last writer makes this return.
        assert os.read(read, 1) == b""
    finally:
        kill_group(pid)
        ended(pid)
        os.close(read)


def test_only_what_the_parent_passes_on_is_blocked_in_a_new_child() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert (
        life(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []) == {*blocked, *PASSED_ON}).code
        == 0
    )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked


def test_what_a_child_wrote_before_its_end_is_flushed(capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        life(lambda: sys.__stdout__ is not None and sys.__stdout__.write("no line end")).code == 0
    )
    assert capfd.readouterr().out == "no line end"


def test_a_running_child_is_not_reaped() -> None:
    pid = spawn(forever, [])
    assert reap(pid) is None
    kill_group(pid)
    assert ended(pid)[:2] == (pid, -signal.SIGKILL)
    assert Exit(pid, -9).signal == "SIGKILL"
    assert Exit(pid, -9).code is None


def test_the_end_of_a_child_tells_what_it_cost_without_its_own_children() -> None:
    def busy_with_children() -> int:
        for number in (0, 1):
            child = os.fork() if number == 0 else 0
            if child:
                os.waitpid(child, 0)
                continue
            held = bytearray(100_000_000 if number == 0 else 10)
            while SYSTEM.process_ns() < 100_000_000 + len(held):
                pass
            if number == 0:
                os._exit(0)
        return 0

    found = ended(spawn(busy_with_children, []))
    assert found.cpu_ns is not None
    assert 100_000_000 <= found.cpu_ns < 190_000_000
    assert found.rss_bytes > 100_000_000


def test_a_child_somebody_else_reaped_is_taken_for_broken() -> None:
    pid = spawn(lambda: 0, [])
    os.waitpid(pid, 0)
    assert reap(pid) == Exit(pid, EX_SOFTWARE)


def test_reaping_kills_what_the_child_left_in_its_group() -> None:
    read, write = os.pipe()

    def leave_one() -> int:
        grandchild = os.fork()
        if grandchild == 0:
            forever()
        os.write(write, str(grandchild).encode())
        return 0

    pid = spawn(leave_one, [])
    left = int(os.read(read, 20))
    assert ended(pid).code == 0
    eventually(lambda: not alive(left), what="the grandchild is gone")
    os.close(read)
    os.close(write)


def test_signals_to_a_child_that_has_gone_are_quiet() -> None:
    pid = spawn(lambda: 0, [])
    ended(pid)
    send(pid, signal.SIGTERM)
    kill_group(pid)


def test_strangers_are_reaped_and_our_own_children_left() -> None:
    # In a process of its own, whose children nobody else waits for.
    def check() -> bool:
        mine = spawn(lambda: 3, [])
        strangers = [spawn(lambda: 0, []) for _ in range(3)]
        eventually(lambda: not any(alive(pid) for pid in (mine, *strangers)))
        reap_strangers([mine])
        kept = (reap(mine) or ())[:2] == (mine, 3)
        reap_strangers([])  # those behind ours, which the first round stopped at
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return kept
        return False

    assert life(check).code == 0


def test_a_signal_without_a_name_has_its_number() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(40) == "signal 40"


class Circle:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_of_the_parent_is_not_kept_for_ever_by_the_next_fork() -> None:
    life(lambda: True)
    gone = weakref.ref(Circle())
    life(lambda: True)
    assert gone() is None
