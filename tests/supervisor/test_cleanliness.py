"""What a task may leave changed, seen from inside a process of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from jobvisor.supervisor.child import spawn
from jobvisor.supervisor.running.cleanliness import Cleanliness, locks_database
from tests.supervisor.test_child import ended


def stain_after(change: Callable[[], object], descriptors: tuple[int, ...] = ()) -> str:
    """What Cleanliness says of a process in which this happened; "" for nothing."""
    read, write = os.pipe()

    def run() -> int:
        clean = Cleanliness([write, *descriptors])
        if clean.lost_descriptor() or clean.stain():
            return 8
        change()
        os.write(write, (clean.lost_descriptor() or clean.stain() or "").encode() + b"\n")
        return 0

    assert ended(spawn(run, [])).code == 0
    found = os.read(read, 1000).decode().strip()
    os.close(read)
    os.close(write)
    return found


def start_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def replace_stdout() -> None:
    sys.stdout = sys.stderr


CHANGES: list[tuple[Callable[[], object], str]] = [
    (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "signal handlers"),
    (lambda: signal.signal(signal.SIGALRM, lambda *_: None), "signal handlers"),
    (lambda: signal.setitimer(signal.ITIMER_REAL, 600), "timer"),
    (lambda: signal.setitimer(signal.ITIMER_PROF, 600), "timer"),
    (lambda: signal.alarm(600), "timer"),
    (lambda: os.chdir("/"), "working directory is /"),
    (lambda: os.umask(0o123), "umask"),
    (replace_stdout, "standard streams"),
    (lambda: sys.setrecursionlimit(1234), "recursion limit"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words for _, words in CHANGES])
def test_a_change_is_named(change: Callable[[], object], words: str) -> None:
    assert words in stain_after(change)


def test_nothing_changed_is_clean() -> None:
    assert stain_after(lambda: None) == ""


def test_what_was_put_back_is_clean() -> None:
    def there_and_back() -> None:
        mask = os.umask(0o123)
        os.umask(mask)
        before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, before)
        signal.alarm(600)
        signal.alarm(0)

    assert stain_after(there_and_back) == ""


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    def lose_it() -> None:
        folder = tmp_path / "gone"
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()

    assert "gone" in stain_after(lose_it)


def test_a_closed_descriptor_and_another_file_in_its_place_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ours"
    ours = os.open(path, os.O_RDWR | os.O_CREAT)
    assert f"descriptor {ours} was closed" in stain_after(lambda: os.close(ours), (ours,))

    def replace() -> None:
        os.close(ours)
        assert os.open(os.devnull, os.O_RDONLY) == ours

    assert f"descriptor {ours} was closed" in stain_after(replace, (ours,))
    os.close(ours)


def test_threads_that_stay_are_no_stain() -> None:
    assert stain_after(start_thread) == ""


def test_an_executor_that_was_closed_is_no_stain() -> None:
    def use_it() -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            assert pool.submit(abs, -1).result(30) == 1

    assert stain_after(use_it) == ""


def test_only_the_process_that_holds_the_write_lock_is_told_so(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        assert not locks_database(path)
        connection.execute("BEGIN IMMEDIATE")
        assert locks_database(path)
        assert ended(spawn(lambda: 9 if locks_database(path) else 0, [])).code == 0
        connection.execute("COMMIT")
        assert not locks_database(path)
    assert not locks_database(str(tmp_path / "nowhere"))


def test_a_rotated_log_is_no_lost_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "old").open("w") as log, (tmp_path / "new").open("w") as new:
        clean = Cleanliness([log.fileno()])
        os.dup2(new.fileno(), log.fileno())
        assert clean.lost_descriptor() is not None
        clean.accept([log.fileno()])
        assert clean.lost_descriptor() is None
