"""A stack as text: frames walked, awaits followed, and what faulthandler wrote brought into the same form.

It works in a signal handler, in the middle of whatever the process was doing: no lock is taken, no file
is read, and no code of a user's objects runs. Source lines are for whoever reads the text later.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import dropwhile, pairwise
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

from jobvisor.jobs import execution
from jobvisor.jobs.execution import Execution

STACK_MAX = 8 << 10
"""Bytes of the stack of one job."""

FRAMES_MAX = 10_000  # that are walked
OUTERMOST = 20  # lines that are kept of a stack which is too long; its innermost fill what is left
AWAITS_MAX = 200  # that are followed
CHILDREN_MAX = 10  # tasks that are shown where one waits for several

_RUN = Execution.run.__code__
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(execution.__file__)), "")
_OF_USERS = os.path.join(_PACKAGE, "jobs", "demo.py")
_LOOP = f"{os.sep}asyncio{os.sep}"
_PLACE = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$')
_THREAD = re.compile(
    r"^(?:Stack|(?:Current thread|Thread) 0x.*) \(most recent call first\):$", re.MULTILINE
)
_LANE = re.compile(r" in lane_\d+$", re.MULTILINE)
_LANE_NAME = re.compile(r"lane_(\d+)")


class Place(NamedTuple):
    """Where one frame stands."""

    file: str
    line: int | None
    name: str

    def __str__(self) -> str:
        return f'  File "{self.file}", line {self.line or "?"}, in {self.name}'


def stack_text(frame: FrameType | None, awaited: Sequence[Any] = ()) -> str:
    """What a job does, outermost first, in at most STACK_MAX bytes.

    `frame` is where its thread stands; `awaited` are the coroutine or the task of a job that is one, and
    the further tasks that it has: they may wait while the thread does something else.
    """
    thread = [str(_place(each)) for each in of_task(frame)]
    chains = [list(_waits(each, AWAITS_MAX)) for each in awaited[:CHILDREN_MAX]]
    main, *others = chains or [[]]
    both = ["it runs:", *thread, "it waits in:", *main]
    lines = both if thread and main else thread or main
    for other in filter(None, others):
        lines = [*lines, "a task that it has started waits in:", *other]
    return cut(lines)


def lane_of(frame: FrameType | None) -> int | None:
    """The number of the lane whose job is on a stack: of its outermost function, others may be called so."""
    lane: int | None = None
    while frame is not None:
        found = _LANE_NAME.fullmatch(frame.f_code.co_name)
        if found:
            lane = int(found[1])
        frame = frame.f_back
    return lane


def native_text(told: str, lane: int = 0) -> str:
    """What faulthandler wrote last, in the same form, behind the error that it names.

    Where jobs run in threads that bear the number of their lane, it is what it wrote of this lane's.
    """
    parts = _THREAD.split(told)
    threads = list(pairwise(parts))  # what was written before each, and it
    if _LANE.search(told):
        threads = [each for each in threads if f" in lane_{lane}\n" in f"{each[1]}\n"]
    if not threads:
        return ""
    before, thread = threads[-1]
    fatal = [line for line in before.splitlines() if line.startswith("Fatal ")][-1:]
    places = [Place(*_read(found)) for found in map(_PLACE.match, thread.splitlines()) if found]
    places.reverse()
    return cut([*fatal, *map(str, _of_places(places))])


def cut(lines: Sequence[str]) -> str:
    """The lines as one text; of too many the outermost few, and as many of the innermost as fit."""
    text = "\n".join(lines)
    if len(text.encode(errors="backslashreplace")) <= STACK_MAX:
        return text
    outer, inner = list(lines[:OUTERMOST]), list(lines[OUTERMOST:])
    room = STACK_MAX - _size(outer) - 40
    kept: list[str] = []
    while inner and room - _size(inner[-1:]) >= 0:
        room -= _size(inner[-1:])
        kept.append(inner.pop())
    kept.reverse()
    text = "\n".join([*outer, f"  ... {len(inner)} more", *kept])
    return text.encode(errors="backslashreplace")[:STACK_MAX].decode(errors="ignore")


def _size(lines: Sequence[str]) -> int:
    return sum(len(line.encode(errors="backslashreplace")) + 1 for line in lines)


# -- a thread


def _walked(frame: FrameType | None) -> list[FrameType]:
    """This frame and those it was called from, outermost first."""
    found: list[FrameType] = []
    while frame is not None and len(found) < FRAMES_MAX:
        found.append(frame)
        frame = frame.f_back
    found.reverse()
    return found


def of_task(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of the task, outermost first: without ours and the loop's. All where no task runs."""
    frames = _walked(frame)
    for place, each in enumerate(frames):
        if each.f_code is _RUN or _LANE_NAME.fullmatch(each.f_code.co_name):
            return dropwhile(lambda inner: _is_around(inner.f_code.co_filename), frames[place:])
    return iter(frames)


def _of_places(places: list[Place]) -> Iterator[Place]:
    """The same of what faulthandler wrote."""
    for number, place in enumerate(places):
        runs = place.file == _RUN.co_filename and place.name == _RUN.co_name
        if runs or _LANE_NAME.fullmatch(place.name):
            return dropwhile(lambda each: _is_around(each.file), places[number:])
    return iter(places)


def _is_around(file: str) -> bool:
    """Whether it is code around a task: ours, or of the loop that it runs on."""
    return _is_ours(file) or _LOOP in file or file.endswith(f"{os.sep}selectors.py")


def _is_ours(file: str) -> bool:
    return file.startswith(_PACKAGE) and file != _OF_USERS


def _place(frame: FrameType) -> Place:
    code = frame.f_code
    return Place(code.co_filename, frame.f_lineno, code.co_qualname)


def _read(found: re.Match[str]) -> tuple[str, int | None, str]:
    file, line, name = found.groups()
    return file, int(line) if line.isdecimal() else None, name


# -- what waits


def _waits(awaited: Any, most: int, depth: str = "") -> Iterator[str]:
    """Where a coroutine or task that is suspended stands, then what it waits for, and so on."""
    for _ in range(most):
        # By the type alone: an object of a user's may answer any question with code of its own.
        kind = type(awaited)
        if kind is CoroutineType:
            frame, running, following = awaited.cr_frame, awaited.cr_running, awaited.cr_await
        elif kind is GeneratorType:
            frame, running, following = awaited.gi_frame, awaited.gi_running, awaited.gi_yieldfrom
        elif kind is AsyncGeneratorType:
            frame, running, following = awaited.ag_frame, awaited.ag_running, awaited.ag_await
        else:
            yield from _tasks(awaited, most, depth)
            return
        if frame is None or running:
            return  # it has ended, or the thread is in it
        if not _is_ours(frame.f_code.co_filename):
            yield f"{depth}{_place(frame)}"
        awaited = following


def _tasks(awaited: Any, most: int, depth: str) -> Iterator[str]:
    """A task, and what it waits for; or the tasks that are waited for together."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not issubclass(type(awaited), asyncio.Future):
        return
    if issubclass(type(awaited), asyncio.Task):
        coroutine = awaited.get_coro()
        yield from _waits(coroutine, most, depth)
        yield from _waits(awaited._fut_waiter, most - 1, depth)  # noqa: SLF001 -- nothing else tells it
    elif type(awaited) is asyncio.tasks._GatheringFuture:  # noqa: SLF001 -- as above
        children = awaited._children  # noqa: SLF001 -- as above
        for number, child in enumerate(children[:CHILDREN_MAX]):
            if not child.done():
                yield f"{depth}  of {len(children)} at once, number {number + 1}:"
                yield from _waits(child, most // CHILDREN_MAX, f"{depth}  ")
