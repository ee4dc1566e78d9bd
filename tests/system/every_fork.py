"""A parent, its template and workers that do nothing, without a database: killed at random, or at a line.

Run as `python -m tests.system.every_fork PLAY ...` in a folder that has config.toml and the module `app`. A
process of its own, because a parent has one thread. It ends with one line of what happened, or with the
traceback of what must not be.

churn LIVES            workers come and go, and the parent grows by how much
random LIVES SEED      kills of templates, middle processes and workers, and reloads, for so many lives
line WHO FIRST STRIDE  WHO (template, middle, worker) dies at each so-many-th line of one fork after another
parent FIRST STRIDE    a parent dies at each so-many-th line of its part, each in a family of its own
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.log import configure
from jobvisor.supervisor.board import FAILURES, IDLE, MADE_PID, REACHED, STATE, Grave, Slot
from jobvisor.supervisor.child import Exit, reap_strangers
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.memory import resident
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.parent.parent import Parent
from jobvisor.supervisor.parent.preload import Preload
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.roster import CARETAKER, TEMPLATE, WORKER
from jobvisor.supervisor.template.subreaper import become_subreaper
from jobvisor.supervisor.template.template import Template, is_let_in
from tests.system.harness import open_files
from tests.waiting import eventually

LIVES = Path("lives.txt")
TEMPLATES = Path("templates.txt")
TURN = Path("turn.txt")  # at which line the next one dies
SIZES = Path("sizes.txt")
PLACES = Path("places.txt")  # where somebody died
DONE = Path("done.txt")  # nobody came to that line any more

FILES = ("supervisor/template/template.py", "supervisor/template/sibling.py", "supervisor/child.py")
PARENT_FILES = ("supervisor/parent/preload.py", "supervisor/parent/nursery.py")
WHO = ("template", "middle", "worker")


def note(path: Path, *words: object) -> None:
    """A line of its own, whoever else writes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


class Idler(Role):
    """A worker that is there for a moment."""

    def boot(self) -> None:
        copied = self.seat.application is not None
        note(
            LIVES,
            "in",
            self.seat.owner,
            os.getpid(),
            self.slot.index,
            copied,
            SYSTEM.monotonic_ns(),
        )
        self.slot[REACHED] = 1
        self.slot[STATE] = IDLE
        self._steps = random.Random(self.seat.owner).randrange(3)

    def leaving(self) -> bool:
        return self.lifeline_cut or self._steps == 0

    def step(self) -> float:
        self._steps -= 1
        return 0.002

    def shut_down(self) -> None:
        pass


class Tracer:
    """Kills this process, or a copy of it or of that, at a line of some files."""

    def __init__(self, generation: int, at: int, files: tuple[str, ...]) -> None:
        """`generation` is 0 for this process, 1 for its copies, 2 for theirs."""
        self._generation = generation
        self._at = at
        self._files = files
        self._pid = os.getpid()
        self._depth = self._count = 0

    def begin(self) -> None:
        sys.settrace(self._on_call)

    def _on_call(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._on_line if frame.f_code.co_filename.endswith(self._files) else None

    def _on_line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._depth, self._count = self._depth + 1, 0
        self._count += event == "line"
        if event == "line" and (self._depth, self._count) == (self._generation, self._at):
            note(PLACES, f"{frame.f_code.co_filename}:{frame.f_lineno}")
            os.kill(os.getpid(), signal.SIGKILL)
        return self._on_line


IDLER = replace(WORKER, made_by="tests.system.every_fork:Idler")


class Noted(Template):
    """A template that says who it is, and makes idlers."""

    workers = IDLER

    def boot(self) -> None:
        note(TEMPLATES, os.getpid())
        super().boot()


class Doomed(Noted):
    """One that dies at a line of a fork, or whose middle process or worker does: the next line each time."""

    def _make(self, slot: Slot, owner: int) -> None:
        who, at, stride = TURN.read_text().split()
        TURN.write_text(f"{who} {int(at) + int(stride)} {stride}")
        Tracer(WHO.index(who), int(at), FILES).begin()
        super()._make(slot, owner)
        sys.settrace(None)
        if who == "template" or (who == "middle" and self.slot[MADE_PID] > 0):
            DONE.touch()

    def _enter(self, seat: Seat) -> int:
        is_wanted = is_let_in(seat)
        sys.settrace(None)
        if is_wanted and TURN.read_text().startswith("worker"):
            DONE.touch()
        return super()._enter(seat)


class Family(Parent):
    """A parent of idlers that stops after so many of their lives, or when nobody dies at a line any more."""

    def __init__(self, config: Config, lives: int, template: type[Noted] = Noted) -> None:
        super().__init__(config, ends_here=True)
        self.template = replace(TEMPLATE, made_by=f"tests.system.every_fork:{template.__name__}")
        self.lives = self.left = lives

    def prepare(self) -> None:
        super().prepare()
        self._preload = Preload(
            self._crew, self._nursery, self._board, self._clock, of_our_own=True, row=self.template
        )
        for post in self._crew:
            if post.role is CARETAKER or post.role is TEMPLATE:
                self._crew.remove(post)
            post.role = IDLER
        self._preload.furnish(self._config)
        self._first_start.ever_ready = True  # or a few deaths at the start would end it

    def _fill_posts(self) -> None:
        for post in self._crew:
            if post.role is WORKER:  # added by a reload
                post.role = IDLER
        super()._fill_posts()

    def _note_grave(self, post: Post, grave: Grave) -> None:
        if post.role is IDLER:
            note(LIVES, "out", post.owner, post.pid, post.slot.index, grave.status, grave.at)

    def _bury(self, post: Post, ended: Exit) -> None:
        super()._bury(post, ended)
        # The delays are not what is looked at here.
        post.failures = post.slot[FAILURES] = 0
        post.spawn_at = 0
        self.left -= post.role is IDLER
        if self.left <= 0 or DONE.exists():
            self._begin_stop()


class Measured(Family):
    """A parent that says how large it is after a tenth of the lives, and after all."""

    def _bury(self, post: Post, ended: Exit) -> None:
        marks, before = {self.lives * 9 // 10, 0}, self.left
        super()._bury(post, ended)
        if self.left != before and self.left in marks:
            note(SIZES, resident(os.getpid()))


class DoomedFamily(Family):
    """A parent that dies at a line of its part in a fork."""

    def __init__(self, config: Config, at: int) -> None:
        super().__init__(config, lives=12)
        self.at = at

    def prepare(self) -> None:
        super().prepare()
        Tracer(0, self.at, PARENT_FILES).begin()


# -- what must hold


@dataclass(frozen=True)
class Life:
    """One line of the lives."""

    word: str
    owner: int
    pid: int
    slot: int
    told: str
    at: int


def lives() -> list[Life]:
    found = []
    for line in LIVES.read_text().splitlines():
        word, owner, pid, slot, told, at = line.split()
        found.append(Life(word, int(owner), int(pid), int(slot), told, int(at)))
    return found


def check(known: list[Life]) -> str:
    """Each entered once and was judged once, and no two were in one slot at a time."""
    entered = [life for life in known if life.word == "in"]
    judged = [life for life in known if life.word == "out"]
    for group in (entered, judged):
        twice = [
            owner for owner, count in Counter(life.owner for life in group).items() if count > 1
        ]
        assert not twice, twice
    who = {(life.owner, life.pid, life.slot) for life in judged}
    unknown = [life for life in entered if (life.owner, life.pid, life.slot) not in who]
    assert not unknown, unknown
    ends: dict[int, int] = {}
    out = {life.owner: life.at for life in judged}
    for life in sorted(entered, key=lambda life: life.at):
        assert ends.get(life.slot, 0) <= life.at, f"two at a time: {life}"
        ends[life.slot] = out[life.owner]
    copied = sum(life.told == "True" for life in entered)
    unentered = len(judged) - len(entered)
    return f"{len(judged)} lives, {copied} copied, {unentered} killed before they entered"


def run_to_its_end(family: Family) -> None:
    """In a process of its own: the family to its end, and what it leaves behind."""
    log = Config.load("config.toml").log
    configure(log.level, log.format)  # as a reload does
    before = sorted(open_files(os.getpid()))
    code = family.run()
    assert code == 0, code
    # Who was forked for a request that was dropped sees the end of the lifeline.
    eventually(is_childless, what="nobody is left")
    assert sorted(open_files(os.getpid())) == before


def is_childless() -> bool:
    """Reap whoever has ended; whether nobody is left."""
    reap_strangers([])
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def start(family: Family) -> int:
    """Fork the family; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run_to_its_end(family)
            code = 0
        except BaseException:  # noqa: BLE001 -- the copy must not go on in the caller's lines
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill_at_random(parent: int, seed: int) -> Counter[str]:
    """Kill templates, middle processes and workers, and reload, until the family has ended."""
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    while True:
        ended, status = os.waitpid(parent, os.WNOHANG)
        if ended:
            assert status == 0, status
            return killed
        word, pid = _victim(parent, chance)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP if word == "reload" else signal.SIGKILL)
                killed[word] += 1
        SYSTEM.sleep(chance.expovariate(1 / 0.06))


def _victim(parent: int, chance: random.Random) -> tuple[str, int]:
    told = TEMPLATES.read_text().split() if TEMPLATES.exists() else []
    template = int(told[-1]) if told else 0
    kind = chance.random()
    if kind > 0.9:
        return "reload", parent if template in children(parent) else 0
    if kind < 0.1:
        return "template", template if template in children(parent) else 0
    if kind < 0.5:  # there is one for a few milliseconds at a time
        for _ in range(2000):
            if middle := children(template):
                SYSTEM.sleep(chance.random() * 0.003)
                return "middle process", middle[0] if middle[0] in children(template) else 0
        return "middle process", 0
    workers = [pid for pid in children(parent) if pid != template]
    return "worker", chance.choice(workers) if workers else 0


# -- the plays


def churn(config: Config, wanted: str) -> str:
    """So many lives, and what the parent has grown by between a tenth of them and all."""
    _, status = os.waitpid(start(Measured(config, int(wanted))), 0)
    assert status == 0, status
    sizes = [int(line) for line in SIZES.read_text().splitlines()]
    return f"{check(lives())}; the parent grew by {(sizes[-1] - sizes[0]) >> 10} KB"


def at_random(config: Config, wanted: str, seed: str) -> str:
    killed = kill_at_random(start(Family(config, int(wanted))), int(seed))
    return f"{check(lives())}; killed: {dict(killed)}"


def at_lines(config: Config, who: str, first: str, stride: str) -> str:
    """One family, whose template, middle processes or workers die at one line after the other."""
    TURN.write_text(f"{who} {first} {stride}")
    _, status = os.waitpid(start(Family(config, 100_000, Doomed)), 0)
    assert status == 0, status
    return f"{check(lives())}; {len(PLACES.read_text().splitlines())} killed"


def parent_at_lines(config: Config, first: str, stride: str) -> str:
    """One family after the other, each of which loses its parent at another line."""
    assert become_subreaper()
    killed = 0
    while True:
        _, status = os.waitpid(start(DoomedFamily(config, int(first) + killed * int(stride))), 0)
        eventually(is_childless, what="all leave whose parent is dead")
        if status == 0:
            return f"{killed} killed"
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
        killed += 1


PLAYS: dict[str, Callable[..., str]] = {
    "churn": churn,
    "random": at_random,
    "line": at_lines,
    "parent": parent_at_lines,
}


def main(play: str, *arguments: str) -> None:
    """Print one line of what happened."""
    print(PLAYS[play](Config.load("config.toml"), *arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
