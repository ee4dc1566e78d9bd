"""The stack file of a life: what its jobs were doing, written when somebody asks and when it dies.

`ledger/<owner>.stack` begins with a line that says whose it is. Answers follow, each begun by a line that
says when, and of which jobs; and what faulthandler wrote, which has no such line. The file outlives its
process, as the ledger does.

A child is asked by SIGWINCH, which is ignored where there is no handler, and a Python handler answers.
From C (SIGUSR2, and a fatal signal) only a process is asked that is to die: to walk the frames of code
that runs may kill it (once in 55 to 400 dumps of one thread, measured; the Python way in 5,000 never).
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, NamedTuple

from jobvisor.jobs import identity
from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.identity import Identity
from jobvisor.supervisor.autopsy.frames import native_text, stack_text
from jobvisor.supervisor.autopsy.struck import SUFFIX, forget, path_of
from jobvisor.supervisor.board import UNTOLD, Running
from jobvisor.supervisor.child import send

ASK = signal.SIGWINCH
"""Asks a child for its stacks. By default it is ignored, so it harms no process that cannot answer."""

ASK_NATIVE = signal.SIGUSR2
"""Asks for what native code was called from; only sent to a child that is killed next."""

NATIVE_NS = 20_000_000
"""Who has not answered for so long sits in native code: its frames stand still and are read from C."""

LOOK_NS = 2_000_000
"""Between two looks whether somebody has answered."""

AGE_NS = 2 * SECOND
"""Of an answer, when a death is noted: an older one had nothing to do with it."""

KEPT_BYTES = 256 << 10  # of earlier answers; beyond that the file is begun anew
READ_BYTES_MAX = 16 << 20
_HIGH = 200  # a task that closes descriptors and opens files gets lower numbers

_DEPTH = 20  # more calls than an answer makes

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(identity.__file__)), "")

_LIFE, _ANSWER, _JOB = b"@life ", b"@stacks ", b"@job "


class Work(NamedTuple):
    """One job that runs in this process, and where."""

    lane: int
    job: int
    claim: int
    frame: FrameType | None
    """Of its thread."""
    awaited: Sequence[Any] = ()
    """The coroutine or task that it is, if it is one, and the further tasks that it has."""
    place: int = UNTOLD
    """Where among several it runs."""


class Stack(NamedTuple):
    """What one job was doing when it was asked."""

    lane: int
    job: int
    claim: int
    place: int
    text: str


class Living(NamedTuple):
    """A process that has a stack file, while it lives."""

    owner: int
    name: str
    identity: Identity


class Answer(NamedTuple):
    """What a stack file tells: its last answer, and what faulthandler wrote since."""

    moment_ns: int
    """By the monotonic clock; 0 where there is no answer."""
    stacks: list[Stack]
    native: str = ""


class StackWriter:
    """The writer's side, in the child."""

    def __init__(
        self,
        folder: str,
        owner: int,
        name: str,
        *,
        answered: Callable[[], None],
        clock: Clock = SYSTEM,
    ) -> None:
        """`answered` is called after each answer. Without a file (a full disk) there are no answers."""
        self._folder, self._owner = folder, owner
        self._answered = answered
        self._clock = clock
        self._pid = os.getpid()
        self._asked = False
        self.running: Callable[[FrameType | None], Iterable[Work]] = _nothing_known
        """What runs, given the frame that the signal has interrupted."""
        head = " ".join(map(str, Identity.mine()))
        self._head = f"{_LIFE.decode()}{head} {name}\n".encode()
        self.descriptor = _opened(path_of(folder, owner), self._head)
        self._inode = _inode(self.descriptor)

    def listen(self, *, all_threads: bool = False) -> None:
        """From here on answer; `all_threads`: jobs run in other threads than this one."""
        where = self.descriptor if self.descriptor >= 0 else 2
        faulthandler.enable(where, all_threads=False)
        # In the copy of a process that listened it takes itself for registered, whatever became of that.
        faulthandler.unregister(ASK_NATIVE)
        faulthandler.register(ASK_NATIVE, where, all_threads=all_threads)
        signal.signal(ASK, self._answer)

    def _answer(self, _number: int, frame: FrameType | None) -> None:
        # No word is kept that an answer is going on: a handler of the user's may end it at any line.
        try:
            if os.getpid() != self._pid:
                return
            self._asked = True
            if _is_in(frame, self._answer.__code__):
                return  # that one sees it: who asks again has read its answer, and it is not over yet
            while self._asked:  # and nothing interrupts what follows the last look
                self._asked = False
                self._write(self.running(frame))
                self._answered()
        except RecursionError:
            return  # the user's code is too deep for an answer, and could not call this much either
        except BaseException as error:
            # Nothing of ours may come out in the middle of a user's code. What a handler of the user's
            # raised meanwhile, such as the end of a time limit of his own, must.
            if not _is_ours(error):
                raise

    def _write(self, running: Iterable[Work]) -> None:
        parts: list[bytes] = []
        for each in running:
            text = stack_text(each.frame, each.awaited).encode(errors="backslashreplace")
            whose = *each[:3], each.place, len(text)
            parts += (b"%b%d %d %d %d %d\n" % (_JOB, *whose), text, b"\n")
        moment = self._clock.monotonic_ns()
        if self._inode is None or _inode(self.descriptor) != self._inode:
            return  # a task has closed it, and the number may be a file of its own now
        if os.fstat(self.descriptor).st_size > KEPT_BYTES:
            os.ftruncate(self.descriptor, len(self._head))
        os.write(
            self.descriptor, b"%b%d %d\n%b" % (_ANSWER, moment, len(parts) // 3, b"".join(parts))
        )

    def forget(self) -> None:
        """This life has ended as it should: nobody will ask."""
        forget(self._folder, self._owner)


def _nothing_known(frame: FrameType | None) -> Iterable[Work]:
    return (Work(0, 0, 0, frame),)


def _is_in(frame: FrameType | None, code: CodeType) -> bool:
    """Whether this code has been interrupted, in one of its calls perhaps."""
    for _ in range(_DEPTH):
        if frame is None or frame.f_code is code:
            break
        frame = frame.f_back
    return frame is not None and frame.f_code is code


def _is_ours(error: BaseException) -> bool:
    """Whether an error came about in this package, and not in a handler that was called meanwhile."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = "" if trace is None else trace.tb_frame.f_code.co_filename
    return isinstance(error, Exception) and file.startswith(_PACKAGE)


def _opened(path: str, head: bytes) -> int:
    """A descriptor for adding to the file, or -1."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError:
        return -1
    with suppress(OSError):
        os.write(descriptor, head)
    with suppress(OSError):  # fewer descriptors are allowed than that
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        os.close(descriptor)
        return high
    return descriptor


def _inode(descriptor: int) -> tuple[int, int] | None:
    with suppress(OSError):
        told = os.fstat(descriptor)
        return told.st_dev, told.st_ino
    return None


# -- for everybody else


def read_answer(folder: str, owner: int) -> Answer:
    """What a life has told last."""
    try:
        with open(path_of(folder, owner), "rb") as file:
            told = file.read(READ_BYTES_MAX)
    except OSError:
        told = b""
    at = told.rfind(_ANSWER)
    if at < 0:
        return Answer(0, [], told.decode(errors="replace"))
    try:
        return _parsed(told[at:])
    except ValueError:  # it is being written, or a process died in the middle of it
        return Answer(0, [])


def _parsed(told: bytes) -> Answer:
    head, _, rest = told.partition(b"\n")
    moment, count = map(int, head.removeprefix(_ANSWER).split())
    stacks: list[Stack] = []
    for _ in range(count):
        head, _, rest = rest.partition(b"\n")
        lane, job, claim, place, size = map(int, head.removeprefix(_JOB).split())
        if len(rest) <= size:
            raise ValueError("the answer is not whole")
        stacks.append(Stack(lane, job, claim, place, rest[:size].decode(errors="replace")))
        rest = rest[size + 1 :]
    return Answer(moment, stacks, rest.decode(errors="replace"))


def with_stacks(
    folder: str, owner: int, running: Iterable[Running], *, since_ns: int = 0
) -> tuple[Running, ...]:
    """The jobs of a life that was killed, or killed itself, with what each was doing where that is known.

    What native code was called from goes before an answer: it was written later. An answer from before
    `since_ns` was given to somebody who asked a living process.
    """
    answer = read_answer(folder, owner)
    told: dict[tuple[int, int], Stack] = {}
    if answer.moment_ns >= since_ns:
        told = {(each.job, each.claim): each for each in answer.stacks}
    return tuple(_with_stack(run, told.get((run.job, run.claim)), answer.native) for run in running)


def _with_stack(run: Running, told: Stack | None, native: str) -> Running:
    text = native_text(native, run.lane)
    if told is None:
        return run._replace(stack=text or None)
    return run._replace(stack=text or told.text or None, place=told.place)


def await_stack(folder: str, owner: int, pid: int, clock: Clock) -> bool:
    """Ask a process that is to be killed next, and wait for it, 30 ms at the most; whether it answered."""
    before = read_answer(folder, owner).moment_ns
    ends = clock.monotonic_ns() + NATIVE_NS
    send(pid, ASK)
    while clock.monotonic_ns() < ends:
        clock.sleep(LOOK_NS / SECOND)
        if read_answer(folder, owner).moment_ns > before:  # of half an answer it is 0
            return True
    send(pid, ASK_NATIVE)
    clock.sleep(NATIVE_NS / 2 / SECOND)
    return False


def stack_files(folder: str) -> list[tuple[int, str]]:
    """Owner and path of every stack file in a folder."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [
        (int(name.removesuffix(SUFFIX)), os.path.join(folder, name))
        for name in names
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal()
    ]


def head_of(owner: int, path: str) -> Living | None:
    """Whose a stack file is; None where it does not say."""
    try:
        with open(path, "rb") as file:
            told = file.readline(1000).decode().removeprefix(_LIFE.decode()).strip()
        boot, namespace, pid, ticks, name = told.split(" ", 4)
        return Living(owner, name, Identity(boot, int(namespace), int(pid), int(ticks)))
    except (OSError, ValueError):
        return None


def living(folder: str) -> list[Living]:
    """Who can be asked from here, of all families that had this folder."""
    found = [head_of(owner, path) for owner, path in stack_files(folder)]
    return [life for life in found if life is not None and life.identity.alive()]


def ask(life: Living) -> bool:
    """Ask one process, never a stranger with its number; whether it was there to hear it."""
    pid = life.identity.pid
    if not hasattr(os, "pidfd_open"):
        send(pid, ASK)
        return True
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if life.identity.alive():
                signal.pidfd_send_signal(descriptor, ASK)
                return True
        finally:
            os.close(descriptor)
    return False
