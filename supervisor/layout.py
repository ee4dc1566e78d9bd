"""The layouts of a ledger: what stands where in its file, and what the file is called.

Layout 2, in bytes: 0 header (words of 8: magic, layout, owner, claim, current, deadline, tail, pid,
start ticks, pid namespace, family, head), 96 a death that its parent saw and nobody has settled (owner,
exit status, verdict, the verdict's job and claim; with another owner it is an earlier life's), 128 boot
id and database id (64 each), 256 host (256), 512 progress (sequence, length, job, 488 bytes of JSON),
1024 the journal, which reaches from `head` to `tail`. Layout 1, of releases before 0.3, has no head, no
death, and records without kind and progress.

The name of a file tells its layout, so that a release leaves alone what it cannot read: `17.2` is the
ledger of owner 17 in layout 2; in layout 1 it was `17`.
"""

from __future__ import annotations

import os
from struct import Struct

SIZE = 1 << 20
INLINE = 64 << 10  # bytes; a larger outcome is committed at once instead of being journalled

MAGIC = 0x4A4F425649534F52  # "JOBVISOR"
LAYOUT = 2
LAYOUTS = (2, 1)
"""Those that this release reads; the first is the one it writes."""

HEAD = Struct("=12q")
MAGIC_AT, LAYOUT_AT, OWNER_AT, CLAIM_AT, CURRENT_AT, DEADLINE_AT, TAIL_AT = range(7)
PID_AT, TICKS_AT, NAMESPACE_AT, FAMILY_AT, HEAD_AT = range(7, 12)
DEATH_AT, DEATH = 96, Struct("=qiiqq")
TEXTS_AT = 128
BOOT_AT, DATABASE_AT, HOST_AT = (128, 64), (192, 64), (256, 256)
PROGRESS_AT, JOURNAL_AT = 512, 1024

PROGRESS = Struct("=qqq")  # sequence (odd while it is written), length, job
PROGRESS_MAX = JOURNAL_AT - PROGRESS_AT - PROGRESS.size  # bytes of JSON

PREFIX = Struct("=II")  # length of the body and the progress behind it, crc32 of all that follows
#: owner, claim, job, attempt, kind, verb, length of the progress, moment, duration, delay
CHECKED = Struct("=4qhhi3q")
#: Of layout 1: owner, claim, job, attempt, verb, moment, duration, delay
CHECKED_1 = Struct("=8q")
ROOM = INLINE + PROGRESS_MAX + PREFIX.size + CHECKED.size + 8
"""What the largest record needs."""

OUTCOME = 1
"""The kind of a record that tells how a run ended; later releases know others."""


def padded(length: int) -> int:
    """Records begin at multiples of eight."""
    return (length + 7) & ~7


def file_name(owner: int, layout: int = LAYOUT) -> str:
    """What the ledger of an owner is called.

    >>> file_name(17), file_name(17, 1)
    ('17.2', '17')
    """
    return str(owner) if layout == 1 else f"{owner}.{layout}"


def parse_name(name: str) -> tuple[int, int] | None:
    """The owner and the layout that a file's name tells; None for a file that is no life's ledger.

    >>> parse_name("17.2"), parse_name("17"), parse_name("spare-17.2")
    ((17, 2), (17, 1), None)
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
