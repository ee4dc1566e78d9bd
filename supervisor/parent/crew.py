"""The posts of a family: the slot and role of each, who holds it now, and how it has been going there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from jobvisor.jobs.log import say
from jobvisor.supervisor.board import SLOTS, TAKEN_UP, Board, Slot
from jobvisor.supervisor.parent.notice import Notice
from jobvisor.supervisor.parent.ranges import NONE, Range, Ranges
from jobvisor.supervisor.roster import QUARANTINE, RoleRow


@dataclass(slots=True, eq=False)
class Post:
    """One post. It outlives the children that hold it one after another."""

    slot: Slot
    role: RoleRow
    pool: str = ""
    lanes: Range = NONE
    pid: int = 0  # 0: nobody is here
    owner: int = 0
    generation: int = 0  # of the configuration and code that its child was forked with
    failures: int = 0  # deaths and failed forks in a row
    bad_boots: int = 0  # of them, those that began and did not become ready
    spawn_at: int = 0
    has_worked: bool = False  # a child of it reached the database, since the last that kept dying
    leaving: str = ""  # why its child is to leave, a word of LEAVINGS
    leave_by: int = 0  # when it is killed where it has not left; 0 is never
    departs: bool = False  # the post ends with its child, which may finish its jobs first
    on_trial: bool = False  # for a configuration that is not taken up yet
    condemned_at: int = 0  # when its verdict was written; 0: there is none
    answers: int = 0  # that it had given when it was asked for its stack
    asked_native_at: int = 0
    killed: bool = False
    peak: int = 0  # bytes of memory that it had held when it was killed; 0: not known
    notice: Notice | None = None
    cancels: dict[tuple[int, int], int] = field(default_factory=dict)
    """Jobs (and claims) that were asked to end, and since when."""

    @property
    def name(self) -> str:
        """As in logs: `worker 2`, `caretaker`."""
        return self.role.name(self.slot.index)

    def vacate(self) -> None:
        """Its child has ended and is buried."""
        self.pid = 0
        self.leaving, self.leave_by = "", 0
        self.condemned_at, self.killed, self.peak = 0, False, 0
        self.notice = None
        self.cancels.clear()


class Crew:
    """All posts, in the order they were made."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.generation = board[TAKEN_UP] = 1
        """The number of the configuration that is taken up."""
        self._posts: list[Post] = []
        self._free = list(range(SLOTS - 1, -1, -1))
        self._ranges = Ranges()

    def __iter__(self) -> Iterator[Post]:
        """The posts as of now; one may be removed while they are gone through."""
        return iter(list(self._posts))

    @property
    def room(self) -> int:
        """How many further posts have a slot."""
        return len(self._free)

    def take_up(self) -> None:
        """Another configuration is taken up: all that are there are old, but for those on trial."""
        self.generation += 1
        self._board[TAKEN_UP] = self.generation
        for post in self:
            post.on_trial = False

    def add(self, role: RoleRow, pool: str = "") -> Post:
        """A post in the lowest free slot; its child is forked with the next look."""
        post = Post(self._board.slots[self._free.pop()], role, pool)
        post.slot.clear()
        self._posts.append(post)
        return post

    def give_lanes(self, post: Post, lanes: int) -> bool:
        """Before the fork of its child: so many lanes, the same as before where the number is the same.

        Where no piece of the board has so many free it is the largest one, and that is said. False where
        there is none: the fork has to wait until others have left.
        """
        if post.lanes.length != lanes:
            self._ranges.give_back(post.lanes)
            post.lanes = self._ranges.take(lanes)
            if post.lanes.length < lanes:
                say("lanes_short", name=post.name, count=post.lanes.length, wanted=lanes)
        post.slot.give_lanes(*post.lanes)
        return bool(post.lanes.length or not lanes)

    def remove(self, post: Post) -> None:
        """A post that nobody holds is given up, and its slot and its lanes are free."""
        post.slot.clear()
        post.slot.give_lanes(*NONE)
        self._ranges.give_back(post.lanes)
        self._posts.remove(post)
        self._free.append(post.slot.index)
        self._free.sort(reverse=True)

    def living(self) -> list[Post]:
        """Those that have a child."""
        return [post for post in self._posts if post.pid]

    def of(self, role: RoleRow) -> list[Post]:
        """Those of one role."""
        return [post for post in self._posts if post.role is role]

    def renewed(self) -> list[Post]:
        """Those that a reload replaces, each in its turn."""
        return [post for post in self._posts if post.role.renewed]

    def workers(self) -> list[Post]:
        """Those that run jobs."""
        return [post for post in self._posts if post.role.runs_jobs]

    def staying(self, pool: str) -> list[Post]:
        """The posts of a pool: without those that end with their child, or are only on trial."""
        return [
            post
            for post in self.workers()
            if post.pool == pool and not post.departs and not post.on_trial
        ]

    def departing(self, pool: str) -> list[Post]:
        """The workers of a pool that finish their jobs beside their successors."""
        return [
            post
            for post in self.workers()
            if post.pool == pool and post.departs and post.role is not QUARANTINE
        ]

    def is_old(self, post: Post) -> bool:
        """Whether its child was forked with a configuration that another one has followed."""
        return bool(post.pid) and post.generation < self.generation
