"""Signals: noted once each, in order, and never lost between a look and a sleep."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from jobvisor.supervisor.signals import Signals, drain, forget_all, poke
from tests.store.processes import in_a_copy

WANTED = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def signals() -> Iterator[Signals]:
    made = Signals(WANTED)
    yield made
    made.close()


def fill(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_a_signal_is_noted_and_makes_the_descriptor_readable(signals: Signals) -> None:
    assert not signals.pending()
    assert not readable(signals.fileno())
    signal.raise_signal(signal.SIGUSR1)
    assert signals.pending()
    assert readable(signals.fileno())
    assert signals.take() == [signal.SIGUSR1]
    assert not signals.pending()
    assert not readable(signals.fileno())


def test_signals_are_taken_in_the_order_they_came(signals: Signals) -> None:
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
        signal.raise_signal(number)
    assert signals.take() == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2]
    assert signals.take() == []


def test_a_full_pipe_loses_no_signal(signals: Signals) -> None:
    _, write = signals.descriptors()
    fill(write)
    signal.raise_signal(signal.SIGUSR1)
    assert signals.take() == [signal.SIGUSR1]
    assert not readable(signals.fileno())


def test_closing_puts_the_handlers_of_before_back() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        made = Signals(WANTED)
        made.close()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_process_that_ends_here_ignores_what_comes_late() -> None:
    pid = os.fork()
    if pid == 0:
        Signals([signal.SIGTERM]).close(ends_here=True)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_forked_child_begins_with_the_default_of_each(signals: Signals) -> None:
    pid = os.fork()
    if pid == 0:
        forget_all()
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGUSR1
    assert signals.take() == []


def test_drain_says_whether_there_was_anything() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    assert not drain(read)
    for _ in range(3):
        poke(write)
    assert drain(read)
    assert not drain(read)
    os.close(read)
    os.close(write)


def test_a_poke_neither_blocks_on_a_full_pipe_nor_fails_on_a_closed_one() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    fill(write)
    poke(write)
    os.close(read)
    poke(write)
    os.close(write)


def test_a_wake_up_that_somebody_switched_off_is_taken_back() -> None:
    signals = Signals([signal.SIGUSR1])
    try:
        signal.set_wakeup_fd(-1)
        signals.rearm()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert select.select([signals.fileno()], [], [], 10)[0] == [signals.fileno()]
    finally:
        signals.close()


@pytest.mark.parametrize("where", ["main thread", "another thread"])
def test_a_copy_that_a_task_forks_ends_by_the_signal_that_its_original_notes(where: str) -> None:
    def end_a_copy() -> int:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def act() -> str:
        signals = Signals([signal.SIGTERM])
        signals.forget_in_copies()
        if where == "main thread":
            ended = end_a_copy()
        else:
            with ThreadPoolExecutor(1) as threads:
                ended = threads.submit(end_a_copy).result()
        heard = signals.pending() or drain(signals.fileno())
        signal.raise_signal(signal.SIGTERM)
        return f"{ended} {heard} {signals.take()}"

    assert in_a_copy(act) == f"{-signal.SIGTERM} False [{signal.SIGTERM.value}]"


def test_a_copy_keeps_a_handler_of_the_users(signals: Signals) -> None:
    def act() -> str:
        return str(signal.getsignal(WANTED[0]) == signal.SIG_IGN)

    signals.forget_in_copies()
    signal.signal(WANTED[0], signal.SIG_IGN)
    assert in_a_copy(act) == "True"
