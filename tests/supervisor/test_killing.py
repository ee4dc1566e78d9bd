"""The end of a condemned child: asked for its stack, asked from C, killed; and what it leaves of that."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.supervisor.autopsy.autopsy import (
    ASK,
    ASK_NATIVE,
    StackWriter,
    Work,
    await_stack,
    with_stacks,
)
from jobvisor.supervisor.board import ANSWERS, BUSY, STATE, VERDICT, VERDICTS, Board, Running
from jobvisor.supervisor.child import Exit, kill_group, reap, spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.judge import Judge
from jobvisor.supervisor.parent.killing import PATIENCE_NS
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.signals import PASSED_ON
from tests.clock import StandingClock
from tests.waiting import eventually

OWNER, JOB, CLAIM = 7, 5, 1


class Court:
    """A judge, and children that do what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.config = Config.of({}, folder=self.folder)
        self.board = Board()
        self.crew = Crew(self.board)
        self.clock = StandingClock()
        self.clock.move(1_000)
        self.judge = Judge(self.crew, self.clock)

    def child(self, task: Callable[[], object], at_answer: Callable[[int], object] = bool) -> Post:
        """A worker that is in this task, and answers when it is asked; it is told how often it has."""
        post = self.crew.add(WORKER)
        slot = post.slot

        def answered() -> None:
            slot[ANSWERS] += 1
            at_answer(slot[ANSWERS])

        def run() -> int:
            writer = StackWriter(self.folder, OWNER, "worker 1", answered=answered)
            writer.running = lambda frame: [Work(0, JOB, CLAIM, frame)]
            writer.listen()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            slot[STATE] = BUSY
            task()
            return 0

        post.owner = OWNER
        post.pid = spawn(run, [])
        eventually(lambda: slot[STATE] == BUSY, what="it is in its task")
        return post

    def look(self, *, after_ms: int = 0) -> None:
        """One look of the judge, so much later."""
        self.clock.move(after_ms)
        self.judge.look(self.config.family)

    def condemn(self, post: Post) -> None:
        self.judge.condemn(post, "timeout")

    def kill(self, post: Post) -> Exit:
        """All steps, each taken when the child has had its time."""
        before = os.stat(f"{self.folder}/{OWNER}.stack").st_size
        self.condemn(post)
        self.look(after_ms=19)

        def is_told() -> bool:
            return os.stat(f"{self.folder}/{OWNER}.stack").st_size > before

        try:
            eventually(lambda: post.slot[ANSWERS], limit=0.5)
        except AssertionError:
            self.look(after_ms=1)
            eventually(is_told, what="faulthandler has written")
        self.look(after_ms=30)
        return self.ended(post)

    def ended(self, post: Post) -> Exit:
        found = eventually(lambda: reap(post.pid), what="its end")
        post.pid = 0
        assert found is not None
        return found

    def stack(self) -> str:
        return stack_at_death(self.folder, OWNER, JOB, CLAIM) or ""


def stack_at_death(folder: str, owner: int, job: int, claim: int, since_ns: int = 0) -> str | None:
    """What is told of one job."""
    (found,) = with_stacks(folder, owner, [Running(job, claim)], since_ns=since_ns)
    return found.stack


@pytest.fixture
def court(tmp_path: Path) -> Iterator[Court]:
    made = Court(tmp_path)
    yield made
    for post in made.crew.living():
        kill_group(post.pid)
        made.ended(post)


def in_sleep() -> None:
    SYSTEM.sleep(600)


def in_a_regex() -> None:
    re.match(r"(a|aa)+$", "a" * 60 + "b")


def in_c_with_the_lock() -> None:
    deque(repeat(None), maxlen=0)


def in_a_library_with_the_lock() -> None:
    _lock_twice(ctypes.PyDLL(None))


def in_a_library_without_the_lock() -> None:
    _lock_twice(ctypes.CDLL(None))


def _lock_twice(library: ctypes.CDLL) -> None:
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def with_its_handler_replaced() -> None:
    signal.signal(ASK, lambda *_: None)
    deque(repeat(None), maxlen=0)


@pytest.mark.parametrize(
    "task",
    [
        in_sleep, in_a_regex, in_c_with_the_lock, in_a_library_with_the_lock,
        in_a_library_without_the_lock, with_its_handler_replaced,
    ],
)  # fmt: skip
def test_a_child_that_is_killed_leaves_a_stack_with_the_function_it_was_in(
    court: Court, task: Callable[[], object]
) -> None:
    post = court.child(task)
    assert court.kill(post).signal == "SIGKILL"
    assert f"in {task.__name__}" in court.stack()


def test_a_child_that_has_answered_is_killed_with_the_next_look(court: Court) -> None:
    post = court.child(in_sleep)
    court.condemn(post)
    assert VERDICTS[post.slot[VERDICT]] == "timeout"
    eventually(lambda: post.slot[ANSWERS], what="its answer")
    court.look()
    assert court.ended(post).signal == "SIGKILL"


def test_a_child_that_is_stopped_is_killed_in_time_all_the_same(court: Court) -> None:
    post = court.child(in_sleep)
    os.kill(post.pid, signal.SIGSTOP)
    court.condemn(post)
    for _ in range(PATIENCE_NS // 1_000_000 - 1):
        court.look(after_ms=1)
    assert reap(post.pid) is None
    court.look(after_ms=1)
    assert court.ended(post).signal == "SIGKILL"
    assert court.stack() == ""


def test_a_second_verdict_kills_at_once_and_leaves_the_first_one_on_the_board(
    court: Court,
) -> None:
    post = court.child(in_sleep)
    os.kill(post.pid, signal.SIGSTOP)
    court.condemn(post)
    court.judge.condemn(post, "force")
    assert court.ended(post).signal == "SIGKILL"
    assert VERDICTS[post.slot[VERDICT]] == "timeout"


def test_while_one_does_not_answer_another_is_judged(court: Court) -> None:
    first, second = court.child(in_sleep), court.child(in_sleep)
    for post in (first, second):
        os.kill(post.pid, signal.SIGSTOP)
    court.condemn(first)
    court.look(after_ms=25)
    court.condemn(second)
    court.look(after_ms=25)
    court.ended(first)
    assert reap(second.pid) is None
    court.look(after_ms=25)
    court.ended(second)


def test_the_judge_looks_again_soon_only_while_somebody_is_asked(court: Court) -> None:
    post = court.child(in_sleep)
    now = court.clock.monotonic_ns()
    assert court.judge.next_look(now) is None
    court.condemn(post)
    assert court.judge.next_look(now) == now + 2_000_000
    court.look(after_ms=20)
    court.look(after_ms=30)
    assert court.judge.next_look(now) is None


def test_a_judge_that_is_late_gives_native_code_its_time_all_the_same(court: Court) -> None:
    post = court.child(in_sleep)
    os.kill(post.pid, signal.SIGSTOP)
    court.condemn(post)
    court.look(after_ms=200)
    court.look(after_ms=9)
    assert reap(post.pid) is None
    court.look(after_ms=1)
    court.ended(post)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_a_child_that_breaks_by_itself_leaves_its_stack_too(court: Court, number: int) -> None:
    def breaks() -> None:
        os.kill(os.getpid(), number)

    post = court.child(breaks)
    assert court.ended(post).status == -number
    assert court.stack().startswith("Fatal Python error: ")
    assert "in breaks" in court.stack()


# -- the user's code


def test_an_answer_disturbs_neither_waits_nor_code_nor_a_limit_of_the_users(court: Court) -> None:
    class LateError(OSError):
        """What a user's own time limit raises."""

    def late(*_: object) -> None:
        raise LateError

    def task() -> None:
        read, _write = os.pipe()
        signal.signal(signal.SIGALRM, late)
        while True:
            began = SYSTEM.monotonic_ns()
            SYSTEM.sleep(0.002)
            if SYSTEM.monotonic_ns() - began < 2_000_000:
                os._exit(3)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.003)
                os.read(read, 1)
            except LateError:
                continue
            os._exit(4)

    post = court.child(task)

    def has_answered(before: int) -> bool:
        os.kill(post.pid, ASK)  # again: the user's limit may have ended an answer
        return post.slot[ANSWERS] != before or reap(post.pid) is not None

    for _ in range(300):
        eventually(partial(has_answered, post.slot[ANSWERS]), what="an answer")
    assert reap(post.pid) is None
    assert os.stat(f"{court.folder}/{OWNER}.stack").st_size < 1 << 20


def test_who_asks_again_before_an_answer_is_over_gets_another_one(court: Court) -> None:
    def ask_again(answers: int) -> None:
        if answers < 3:
            os.kill(os.getpid(), ASK)

    post = court.child(lambda: os.kill(os.getpid(), ASK), ask_again)
    assert court.ended(post).status == 0
    assert post.slot[ANSWERS] == 3


def test_code_that_stands_as_deep_as_it_may_is_not_disturbed(court: Court) -> None:
    def down(left: int, number: int) -> None:
        if left:
            down(left - 1, number)
        else:
            os.kill(os.getpid(), number)

    def task() -> None:
        deep = 0
        for left in range(sys.getrecursionlimit(), 0, -1):
            with suppress(RecursionError):
                down(left, 0)
                deep = left
                break
        for less in range(1, 41):  # at the very limit no handler of a signal can be called
            down(deep - less, ASK)

    post = court.child(task)
    assert court.ended(post).status == 0
    assert 0 < post.slot[ANSWERS] < 40


def test_a_copy_of_a_process_does_not_answer(court: Court, tmp_path: Path) -> None:
    def task() -> None:
        copy = os.fork()
        if copy == 0:
            os.kill(os.getpid(), ASK)
            os._exit(0)
        os.waitpid(copy, 0)
        over.touch()
        in_sleep()

    over = tmp_path / "over"
    post = court.child(task)
    eventually(over.exists)
    assert court.kill(post).signal == "SIGKILL"
    assert post.slot[ANSWERS] == 1
    assert "in in_sleep" in court.stack()


def test_an_answer_never_goes_into_a_file_of_the_tasks(court: Court, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"

    def task() -> None:
        os.closerange(3, 1000)
        descriptor = os.open(theirs, os.O_WRONLY | os.O_CREAT)
        for number in range(3, 300):
            os.dup2(descriptor, number)
        in_sleep()

    post = court.child(task)
    eventually(theirs.exists)
    os.kill(post.pid, ASK)
    eventually(lambda: post.slot[ANSWERS], what="it has heard")
    assert theirs.read_bytes() == b""


def test_without_room_for_a_file_a_child_is_killed_all_the_same(court: Court) -> None:
    court.folder = os.path.join(court.folder, "missing")
    post = court.child(in_sleep)
    court.condemn(post)
    eventually(lambda: post.slot[ANSWERS], what="it has heard")
    court.look()
    assert court.ended(post).signal == "SIGKILL"


# -- which stack is whose


def test_a_stack_is_of_the_job_that_is_charged_or_of_none(court: Court) -> None:
    post = court.child(in_sleep)
    court.kill(post)
    assert stack_at_death(court.folder, OWNER, JOB, CLAIM) is not None
    assert stack_at_death(court.folder, OWNER, JOB + 1, CLAIM) is None
    assert stack_at_death(court.folder, OWNER, JOB, CLAIM + 1) is None
    assert stack_at_death(court.folder, OWNER + 1, JOB, CLAIM) is None


def test_what_somebody_asked_for_long_before_is_not_told_of_a_death(court: Court) -> None:
    post = court.child(in_sleep)
    os.kill(post.pid, ASK)
    eventually(lambda: post.slot[ANSWERS], what="an answer")
    since = SYSTEM.monotonic_ns()
    assert stack_at_death(court.folder, OWNER, JOB, CLAIM, since_ns=since) is None
    assert stack_at_death(court.folder, OWNER, JOB, CLAIM, since_ns=since - 60 * SECOND)


def test_what_native_code_was_called_from_goes_before_an_earlier_answer(court: Court) -> None:
    ready = os.path.join(court.folder, "ready")

    def task() -> None:
        os.close(os.open(ready, os.O_CREAT))
        in_c_with_the_lock()

    post = court.child(in_sleep)
    del post
    post = court.child(task)
    eventually(lambda: os.path.exists(ready))
    os.kill(post.pid, ASK_NATIVE)
    eventually(lambda: "in in_c_with_the_lock" in court.stack(), what="the native stack")


class Writing(StandingClock):
    """A clock in whose sleeps a process writes its answer, a part in each."""

    def __init__(self, path: Path, parts: list[bytes]) -> None:
        super().__init__()
        self._path, self._parts = path, parts

    def sleep(self, seconds: float, /) -> None:
        super().sleep(seconds)
        if self._parts:
            with self._path.open("ab") as file:
                file.write(self._parts.pop(0))


def test_half_an_answer_is_none_for_who_waits_to_kill(tmp_path: Path) -> None:
    path = tmp_path / f"{OWNER}.stack"
    first = b"@life a 1 2 3 worker 1\n@stacks 5 1\n@job 0 4 1 0 5\nfirst\n"
    path.write_bytes(first)
    clock = Writing(path, [b"@stacks 9 1\n@job 0 5 1 0 6\nsec", b"ond\n"])
    assert await_stack(str(tmp_path), OWNER, os.getpid(), clock)
    assert stack_at_death(str(tmp_path), OWNER, JOB, CLAIM) == "second"


def test_a_file_that_holds_nonsense_tells_nothing(tmp_path: Path) -> None:
    for number, text in enumerate(
        [b"", b"@stacks x y\n", b"@stacks 1 1\n@job 0 1", b"@stacks 5\n"]
    ):
        (tmp_path / f"{number}.stack").write_bytes(text)
        assert stack_at_death(str(tmp_path), number, 1, 1) is None
