"""The layouts of a ledger: what stands where in its file, and what the file is called.

Layout 3, in bytes: 0 header (words of 8: magic, layout, owner, the last claim, lanes, bytes of what a job
said, tail of the journal, pid, start ticks, pid namespace, family, head of the journal), 96 a death that
its parent saw and nobody has settled (owner, exit status, verdict, the verdict's job and claim; with another
owner it is an earlier life's), 128 boot id and database id (64 each), 256 host (256), 512 the tail of the
second half, 576 the lanes: of each a line of words (current job, its claim, its deadline, whose the said is
and how much that was) and its progress (sequence, length, job, 488 bytes of JSON). Then what the job of
each lane said. Then the journal: with one lane it reaches from head to tail, with several there are two
halves, which reach from their beginning to their tail.

Layout 2, of release 0.3, has one lane, whose current job and deadline stand in the header, its progress at
512 and the journal at 1024. Layout 1, of releases before that, has no head, no death, and records without
kind and progress.

The name of a file tells its layout, so that a release leaves alone what it cannot read: `17.3` is the
ledger of owner 17 in layout 3; in layout 1 it was `17`.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import NamedTuple

INLINE = 64 << 10  # bytes; a larger outcome is committed at once instead of being journalled
SAID_ONE, SAID_EACH = 16 << 10, 4 << 10
"""Bytes of what a job said: of the only lane, of each of several."""

MAGIC = 0x4A4F425649534F52  # "JOBVISOR"
LAYOUT = 3
LAYOUTS = (3, 2, 1)
"""Those that this release reads; the first is the one it writes."""

HEAD = Struct("=12q")
MAGIC_AT, LAYOUT_AT, OWNER_AT, CLAIM_AT, LANES_AT, SAID_BYTES_AT, TAIL_AT = range(7)
PID_AT, TICKS_AT, NAMESPACE_AT, FAMILY_AT, HEAD_AT = range(7, 12)
CURRENT_AT, DEADLINE_AT = 4, 5
"""Of the layouts with one lane."""
DEATH_AT, DEATH = 96, Struct("=qiiqq")
TEXTS_AT = 128
BOOT_AT, DATABASE_AT, HOST_AT = (128, 64), (192, 64), (256, 256)
SECOND_TAIL_AT = 64
"""As the tail it is a word, counted from the beginning of the file."""

FIRST_LANE_AT = 576
LANE = Struct("=8q")
"""The line of a lane; two words are free."""
LANE_CURRENT, LANE_CLAIM, LANE_DEADLINE, LANE_SAID_JOB, LANE_SAID_CLAIM, LANE_SAID_END = range(6)
PROGRESS = Struct("=qqq")  # sequence (odd while it is written), length, job
PROGRESS_MAX = 488  # bytes of JSON
LANE_BYTES = LANE.size + PROGRESS.size + PROGRESS_MAX

OLD_PROGRESS_AT, OLD_JOURNAL_AT, OLD_SIZE = 512, 1024, 1 << 20
"""Of layouts 1 and 2."""

PREFIX = Struct("=II")  # length of the body and what is behind it, crc32 of all that follows
#: owner, claim, job, attempt, kind, verb, lengths of the progress and of what the job said, moment,
#: duration, delay, CPU time, memory
CHECKED = Struct("=4qhhii5q")
#: Of layout 2: the same without what was said, CPU time and memory
CHECKED_2 = Struct("=4qhhi3q")
#: Of layout 1: owner, claim, job, attempt, verb, moment, duration, delay
CHECKED_1 = Struct("=8q")
HALF_BYTES = 1 << 20
"""Of each half of a journal that several lanes write."""
HEAD_SIZE = PREFIX.size + CHECKED.size  # of a record, before its texts
ROOM = INLINE + PROGRESS_MAX + SAID_ONE + HEAD_SIZE + 8
"""What the largest record needs."""

OUTCOME = 1
"""The kind of a record that tells how a run ended; later releases know others."""


class Plan(NamedTuple):
    """What stands where in the file of a worker with so many lanes."""

    lanes: int
    said_bytes: int
    """What one job may have said."""
    journals: tuple[tuple[int, int], ...]
    """Where a journal, or each half of one, begins and ends."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.journals[-1][1]

    def lane_at(self, lane: int) -> int:
        """Where the line of a lane begins; its progress follows."""
        return FIRST_LANE_AT + lane * LANE_BYTES

    def said_at(self, lane: int) -> int:
        """Where what its job said begins."""
        return self.lane_at(self.lanes) + lane * self.said_bytes


def plan(lanes: int) -> Plan:
    """The plan of a file; with one lane it has the size of layout 2, and what a job said.

    >>> plan(1).size, plan(64).size
    (1064960, 2396736)
    """
    said = SAID_ONE if lanes == 1 else SAID_EACH
    at = FIRST_LANE_AT + lanes * (LANE_BYTES + said)
    if lanes == 1:
        return Plan(lanes, said, ((at, OLD_SIZE + said),))
    return Plan(lanes, said, ((at, at + HALF_BYTES), (at + HALF_BYTES, at + 2 * HALF_BYTES)))


def padded(length: int) -> int:
    """Records begin at multiples of eight."""
    return (length + 7) & ~7


def file_name(owner: int, layout: int = LAYOUT) -> str:
    """What the ledger of an owner is called.

    >>> file_name(17), file_name(17, 1)
    ('17.3', '17')
    """
    return str(owner) if layout == 1 else f"{owner}.{layout}"


def parse_name(name: str) -> tuple[int, int] | None:
    """The owner and the layout that a file's name tells; None for a file that is no life's ledger.

    >>> parse_name("17.3"), parse_name("17"), parse_name("spare-17.3")
    ((17, 3), (17, 1), None)
    """
    owner, dot, layout = name.partition(".")
    digits = owner.isdecimal() and (layout.isdecimal() if dot else not layout)
    return (int(owner), int(layout or 1)) if digits and name.isascii() else None


def find_file(folder: str, owner: int) -> str | None:
    """The path of an owner's ledger in a layout that this release reads; None where there is none."""
    for layout in LAYOUTS:
        path = os.path.join(folder, file_name(owner, layout))
        if os.path.exists(path):
            return path
    return None
