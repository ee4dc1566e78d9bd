"""The shared memory of the living: stop, slots, lanes, verdicts, and the graves of lives not yet settled.

Anonymous memory made before the first fork: 8-byte aligned words, each with one writer. A single
aligned word is never seen torn (12 million reads, measured); two words may be (2.6 %), so no fact
is spread over two words without the order of their writing being said.

What belongs to a process is a word of its slot, what belongs to a job a word of the lane it runs in.
A slot has a range of lanes, given by the parent before the fork. In a range each word of the lanes is a
column, so that who judges a worker reads the deadlines of all its lanes at once.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple, NewType

from jobvisor.jobs.keys import LANES_MAX
from jobvisor.supervisor.roster import ROSTER

if TYPE_CHECKING:
    from jobvisor.supervisor.counting.counters import Counters

SLOTS = 256
GRAVES = 1024

_HEADER_WORDS = 64
_SLOT_WORDS = 40
_GRAVE_WORDS = 16
_LANE_WORDS = 16
_POOL_WORDS = 16
_GRAVES_AT = _HEADER_WORDS + SLOTS * _SLOT_WORDS
_POOLS_AT = _GRAVES_AT + GRAVES * _GRAVE_WORDS
_LANES_AT = _POOLS_AT + SLOTS * _POOL_WORDS
_WORDS = _LANES_AT + LANES_MAX * _LANE_WORDS
NOTE_BYTES = 512
_NOTES_AT = _WORDS * 8
PARENT_NOTE, PRELOAD_NOTE = SLOTS, SLOTS + 1
"""The notes that are the parent's (of a reload, of a template); those before them belong to the slots."""
NAME_BYTES = 56
_NAMES_AT = _NOTES_AT + (SLOTS + 2) * NOTE_BYTES
_BYTES = _NAMES_AT + SLOTS * NAME_BYTES

# The header. Parent: stop, whether it watches, graves written, restarts, degraded, when the family started,
# whether it drains, how many reloads it was asked for and how the last one stands, how its template stands.
# Caretaker: graves settled, lease, drained, whether it watches, the family that has a row, the family that
# was declared dead.
(
    STOP, PARENT_WATCHES, GRAVES_WRITTEN, RESTARTS, DEGRADED, STARTED_AT, DRAINING, RELOADS, RELOAD_STATE,
    PRELOAD, GRAVES_SETTLED, LEASE_UNTIL, DRAINED, CARETAKER_WATCHES, ENTERED, EXPELLED,
) = range(16)  # fmt: skip
# Parent: the number of the configuration that is taken up; a worker on trial has a greater one.
TAKEN_UP = 16
# Caretaker (SCHEDULED: whether the database has a schedule). Any worker (CODE_PLANS: how many schedules the
# code says, and one more; CODE_GENERATION, CODE_FAMILY: of which configuration and family, written last):
SCHEDULED, CODE_PLANS, CODE_GENERATION, CODE_FAMILY = range(20, 24)
# Caretaker: of which configuration and family the limits, and the queues, were told to the database.
LIMITS_TOLD, QUEUES_TOLD = range(24, 26)
# Any worker: numbers of tasks that left their process changed (inspection.py), only a hint.
DIRTY_AT, DIRTY_WORDS = 32, 32

SlotWord = NewType("SlotWord", int)
LaneWord = NewType("LaneWord", int)
PoolWord = NewType("PoolWord", int)

# A slot, by writer and cache line. Child (CLAIM: its last committed one; TURN: when the turn that it is in
# last moved, 0 while it is in none; AHEAD: how many jobs it has claimed and not begun, or some more;
# LOOP_BEAT: of the loop that its async jobs run on; GOING: why it leaves by itself; CLERK, CLIENTS_CLERK:
# pids of the processes that hold its connections, 0 for none; ANSWERS: how often it has told its stack):
(
    STATE, OWNER, CLAIM, BEAT, TURN, AHEAD, REACHED, LACKS_LEDGER, TICKS, LOOP_BEAT, GOING, CLERK,
    CLIENTS_CLERK, MADE_PID, MADE, ANSWERS,
) = map(SlotWord, range(16))  # fmt: skip
# (of a template: the worker that it forked last, by its pid or a negative errno, then its owner.)
# parent (LEAVE: why this child alone is to leave; LEAVE_BY: when it is killed where it has not, 0 is never,
# and written first; FAILURES: deaths in a row at its post before it; FIRST_LANE, LANE_COUNT: its range of
# lanes; LIFE, FAMILY: the owner and family of the life that the slot is for, which a child holds against its
# own; ASKED: of a template, the owner of the life that it is to fork):
(
    PID, ROLE, POOL, VERDICT_JOB, VERDICT_CLAIM, VERDICT, SLOT_STATE, BORN, LEAVE, FAILURES,
    FIRST_LANE, LANE_COUNT, LEAVE_BY, LIFE, FAMILY, ASKED,
) = map(SlotWord, range(16, 32))  # fmt: skip
# caretaker (RECALL: the claim up to which nothing may start that has not begun):
RECALL = SlotWord(32)

# A lane, by writer and cache line. Child (CURRENT_CLAIM and DEADLINE are written before CURRENT; PROGRESS:
# the number of what its job said last; STARTED: how many jobs it has started; CPU: what its process or
# thread had used when the job began, in ns):
(
    CURRENT, CURRENT_CLAIM, SINCE, DEADLINE, MEMORY, PROGRESS, STARTED, CPU,
) = map(LaneWord, range(8))  # fmt: skip
# caretaker:
CANCEL_JOB, CANCEL_CLAIM = map(LaneWord, range(8, 10))

# A pool, by its number in the configuration. Parent (WHY: a number of staffing.py):
LEAST, MOST, WANTED, WHY, WHY_MS = map(PoolWord, range(5))
# caretaker (SUSPECTS_BY, SUSPECTS_AT: as below, of how long a suspect has waited):
SUSPECTS_BY, SUSPECTS_AT, SUSPECTS_WAIT_MS = map(PoolWord, range(12, 15))
# caretaker (SEEN_BY: of which configuration it is, SEEN_AT: when it looked, which it writes last):
SEEN_BY, SEEN_AT, LATENCY_SEEN, IDLE_SEEN = map(PoolWord, range(8, 12))

# States of a child, as it writes them.
BOOTING, WAITING_STATE, IDLE, BUSY = range(4)
STATES = ("booting", "waiting", "idle", "busy")
# States of a slot, as the parent writes them.
EMPTY, FILLED, BACKOFF = range(3)

# How the last reload stands.
NEVER, GOING_ON, DONE, REFUSED = range(4)
RELOAD_STATES = ("never", "going on", "done", "refused")

# How the template stands: the family has none, its first one is made, another one is made while workers are
# forked without it, it serves, the application is unfit for one.
NO_TEMPLATE, FIRST_TEMPLATE, NEXT_TEMPLATE, TEMPLATE_SERVES, UNFIT = range(5)

# The stop flag.
RUN, DRAIN, NOW = range(3)

# Why the parent killed: the word on the attempt. 0 is no verdict.
VERDICTS = (
    "", "timeout", "memory", "cancel", "stop", "reload", "scale", "boot", "stuck", "force",
)  # fmt: skip
VERDICT_CODES = {word: code for code, word in enumerate(VERDICTS)}
STOOD_STILL, LOOP_STOOD_STILL = 64, 128
"""Added to a code: when it was killed the process had not moved for a second, or only its loop had not."""

# Where a job of several runs, as its process told when it was asked for its stack: nothing is known, in a
# thread of its own, on the loop, on the loop and has kept that from going round.
UNTOLD, IN_THREAD, ON_LOOP, BLOCKS_LOOP = range(4)

# Why one child leaves while its family goes on: told by the parent (LEAVE), or by itself (GOING).
LEAVINGS = ("", "stop", "reload", "scale", "recycled", "dirty", "clerk")
LEAVING_CODES = {word: code for code, word in enumerate(LEAVINGS)}

FOREVER = 2**63 - 1
JOBS_TOLD = 10

_RUNS_JOBS = frozenset(row.number for row in ROSTER.values() if row.runs_jobs)


class Grave(NamedTuple):
    """The end of one life, as the parent saw it: `status` is -signal or the exit code."""

    owner: int
    pid: int
    slot: int
    status: int
    verdict_job: int
    verdict_claim: int
    verdict: int
    at: int
    current: int
    """The job the board showed, for a life that had no ledger and thus one lane; its claim follows."""
    claim: int
    role: int
    cpu_ms: int = -1
    """Of the job that ran, where it ran alone: CPU time; -1 where it is not known."""
    rss_bytes: int = 0
    """And the most memory that its process held; 0 where it is not known."""


class Running(NamedTuple):
    """A job that runs, or ran when its process died."""

    job: int
    claim: int
    lane: int = 0
    """Its number within the range of its worker."""
    deadline: int = 0
    """By CLOCK_MONOTONIC; 0 for none."""
    progress: str | None = None
    """How far it last said that it had come (JSON), where a ledger tells it."""
    stack: str | None = None
    """What it was doing when its process was ended, where that is known."""
    place: int = UNTOLD
    """Where it ran then."""
    said: str | None = None
    """What it had logged or printed last, where a ledger tells it."""
    cpu_ms: int | None = None
    rss_bytes: int | None = None


class Slot:
    """One place for a child on the board, with the lanes it was given."""

    __slots__ = ("_at", "_words", "index")

    def __init__(self, words: memoryview[int], index: int) -> None:
        self.index = index
        self._words = words
        self._at = _HEADER_WORDS + index * _SLOT_WORDS

    def __getitem__(self, word: SlotWord) -> int:
        return self._words[self._at + word]

    def __setitem__(self, word: SlotWord, value: int) -> None:
        self._words[self._at + word] = value

    def view(self) -> memoryview[int]:
        """The words of the slot itself, for who reads or writes them for each job."""
        return self._words[self._at : self._at + _SLOT_WORDS]

    def clear(self) -> None:
        """For the parent, between two lives: all but its range of lanes."""
        first, count = self._range()
        _zero(self._words, self._at, _SLOT_WORDS)
        self.give_lanes(first, count)

    # -- its lanes

    def give_lanes(self, first: int, count: int) -> None:
        """For the parent, before the fork: a range of the board's lanes, empty ones."""
        _zero(self._words, _LANES_AT + first * _LANE_WORDS, count * _LANE_WORDS)
        self[FIRST_LANE], self[LANE_COUNT] = first, count

    def lane(self, number: int) -> memoryview[int]:
        """The words of one of its lanes, for its child: `slot.lane(0)[CURRENT]`. Raises IndexError."""
        return self.lanes()[number]

    def lanes(self) -> list[memoryview[int]]:
        """The words of each of its lanes; fewer, or none, while its parent gives it up."""
        first, count = self._range()
        at = _LANES_AT + first * _LANE_WORDS
        end = at + count * _LANE_WORDS
        return [self._words[at + number : end : count] for number in range(count)]

    def column(self, word: LaneWord) -> list[int]:
        """One word of each of its lanes."""
        first, count = self._range()
        at = _LANES_AT + first * _LANE_WORDS + word * count
        return self._words[at : at + count].tolist()

    def running(self) -> list[Running]:
        """The jobs that run in its lanes."""
        currents = self.column(CURRENT)
        if not any(currents):
            return []
        claims, deadlines = self.column(CURRENT_CLAIM), self.column(DEADLINE)
        rows = zip(currents, claims, range(len(currents)), deadlines, strict=False)
        return [Running(*row) for row in rows if row[0]]

    def first_deadline(self) -> int:
        """The earliest one of its running jobs, 0 where none has one."""
        currents = self.column(CURRENT)
        if not any(currents):
            return 0
        return min(filter(None, compress(self.column(DEADLINE), currents)), default=0)

    @property
    def started(self) -> int:
        """How many jobs its child has started."""
        return sum(self.column(STARTED))

    def _range(self) -> tuple[int, int]:
        return self[FIRST_LANE], self[LANE_COUNT]


def _zero(words: memoryview[int], at: int, count: int) -> None:
    words[at : at + count] = memoryview(bytes(count * 8)).cast("q")


class Pool:
    """What there is to know of one pool: what is wanted of it, and what was seen there."""

    __slots__ = ("_at", "_words")

    def __init__(self, words: memoryview[int], index: int) -> None:
        self._words = words
        self._at = _POOLS_AT + index * _POOL_WORDS

    def __getitem__(self, word: PoolWord) -> int:
        return self._words[self._at + word]

    def __setitem__(self, word: PoolWord, value: int) -> None:
        self._words[self._at + word] = value


def state_name(slot: Slot) -> str:
    """What its child says that it does; "?" where a child has written what is no state."""
    state = slot[STATE]
    if slot[TURN] and not any(slot.column(CURRENT)):
        return "turn"
    return STATES[state] if 0 <= state < len(STATES) else "?"


def jobs_text(slot: Slot) -> str:
    """The jobs that run there, for a line of a log: of many the first few."""
    jobs = [str(job) for job in slot.column(CURRENT) if job]
    return ", ".join([*jobs[:JOBS_TOLD], *(["..."] if jobs[JOBS_TOLD:] else [])]) or "none"


def why_leaving(slot: Slot) -> str:
    """Why its child is to leave, or leaves by itself; "" where it stays."""
    code = slot[LEAVE] or slot[GOING]
    return LEAVINGS[code] if 0 <= code < len(LEAVINGS) else "dirty"


class Board:
    """Words of the whole family, its slots, and the ring of graves."""

    counters: Counters | None = None
    """What the family counts, for its metrics; None where it counts nothing."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BYTES)
        self._words: memoryview[int] = memoryview(self._memory)[:_NOTES_AT].cast("q")
        self.slots = [Slot(self._words, index) for index in range(SLOTS)]
        self.pools = [Pool(self._words, index) for index in range(SLOTS)]
        self[LEASE_UNTIL] = FOREVER

    def __getitem__(self, word: int) -> int:
        return self._words[word]

    def __setitem__(self, word: int, value: int) -> None:
        self._words[word] = value

    def filled(self) -> list[Slot]:
        """The slots that have a child."""
        return [slot for slot in self.slots if slot[SLOT_STATE] == FILLED]

    def busy(self) -> list[Slot]:
        """The workers that are in a turn, or hold jobs."""
        return [slot for slot in self.workers() if slot[STATE] == BUSY or slot[TURN]]

    def workers(self) -> list[Slot]:
        """The slots that have a child which runs jobs."""
        return [slot for slot in self.filled() if slot[ROLE] in _RUNS_JOBS]

    # -- notes: a sentence for people, by one writer each, read after a word has said that it is there

    def write_note(self, note: int, text: str) -> None:
        """Replace a note (a slot's number, or PARENT_NOTE) by this text, cut to NOTE_BYTES."""
        data = text.encode(errors="replace")[:NOTE_BYTES]
        at = _NOTES_AT + note * NOTE_BYTES
        self._memory[at : at + NOTE_BYTES] = data.ljust(NOTE_BYTES, b"\0")

    def read_note(self, note: int) -> str:
        """What it says now, an empty text where nothing was written."""
        at = _NOTES_AT + note * NOTE_BYTES
        return self._memory[at : at + NOTE_BYTES].rstrip(b"\0").decode(errors="ignore")

    # -- the pool of each slot by its name: a number means another one after a reload

    def write_pool_name(self, slot: int, name: str) -> None:
        """For the parent, before the slot is filled."""
        at = _NAMES_AT + slot * NAME_BYTES
        self._memory[at : at + NAME_BYTES] = name.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")

    def pool_name(self, slot: int) -> str:
        """As it was called when its child was forked; "" for a child that is in none."""
        at = _NAMES_AT + slot * NAME_BYTES
        return self._memory[at : at + NAME_BYTES].rstrip(b"\0").decode(errors="ignore")

    # -- graves: written by the parent, settled by the caretaker, in order

    def has_room_for_graves(self, number: int) -> bool:
        """Whether this many could die without a death being forgotten; else the parent forks nobody."""
        return self[GRAVES_WRITTEN] - self[GRAVES_SETTLED] + number <= GRAVES

    def bury(self, grave: Grave) -> None:
        """Note a death; the counter moves last."""
        at = _GRAVES_AT + (self[GRAVES_WRITTEN] % GRAVES) * _GRAVE_WORDS
        for offset, value in enumerate(grave):
            self._words[at + offset] = value
        self[GRAVES_WRITTEN] += 1

    def unsettled(self) -> Iterator[Grave]:
        """Deaths the caretaker has not settled; count them off with `settled_one`."""
        for number in range(self[GRAVES_SETTLED], self[GRAVES_WRITTEN]):
            at = _GRAVES_AT + (number % GRAVES) * _GRAVE_WORDS
            yield Grave._make(self._words[at : at + len(Grave._fields)])

    def settled_one(self) -> None:
        """The oldest grave is settled, in the database."""
        self[GRAVES_SETTLED] += 1
