"""The file of one life: its last claim, the sheets of its lanes, its journal. It outlives its process.

It does not outlive the machine. Written by its child alone (and by `leave_grave` after its death), through
a mapping of a fully allocated file (a store into a hole of a full disk is SIGBUS, measured); others read it
with pread (evidence.py). A record's body is written first and the tail word last, so what lies below the
tail is whole: no tail, no record. Nothing is ever synced: the page cache survives the death of every
process, and a power cut only makes jobs run again.
"""

from __future__ import annotations

import mmap
import os
import zlib
from typing import NamedTuple

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.store import Record
from jobvisor.supervisor.board import Grave
from jobvisor.supervisor.ledger.layout import (
    BOOT_AT,
    CHECKED,
    CLAIM_AT,
    DATABASE_AT,
    DEATH,
    DEATH_AT,
    FAMILY_AT,
    FIRST_LANE_AT,
    HEAD_AT,
    HEAD_SIZE,
    HOST_AT,
    LANES_AT,
    LAYOUT,
    LAYOUT_AT,
    MAGIC,
    MAGIC_AT,
    NAMESPACE_AT,
    OUTCOME,
    OWNER_AT,
    PID_AT,
    PREFIX,
    ROOM,
    SAID_BYTES_AT,
    SECOND_TAIL_AT,
    TAIL_AT,
    TICKS_AT,
    file_name,
    find_file,
    padded,
    plan,
)
from jobvisor.supervisor.ledger.sheet import Sheet
from jobvisor.supervisor.ledger.spares import allocate, retire


class Entry(NamedTuple):
    """One outcome on its way into the journal; `moment_ns` by CLOCK_BOOTTIME."""

    claim: int
    job: int
    attempt: int
    verb: int
    moment_ns: int
    duration_ms: int
    delay_ms: int
    body: bytes
    progress: bytes = b""
    """How far the job last said that it had come (JSON), at most PROGRESS_MAX bytes."""
    cpu_ms: int = -1
    """CPU time of the run; -1 where it is not known."""
    rss_bytes: int = 0
    """The most memory that its process held in it; 0 where it is not known."""
    said: bytes = b""
    """What it logged or printed last, at most SAID_ONE bytes of text."""
    took_ns: int = 0
    """How long it ran, for who counts that; no journal has it."""

    @property
    def size(self) -> int:
        """What its record takes in a journal."""
        body = len(self.body) + len(self.progress) + len(self.said)
        return padded(HEAD_SIZE + body)

    def record(self, owner: int, now_ns: int) -> Record:
        """As the store takes it."""
        age_ms = max(0, now_ns - self.moment_ns) // 1_000_000
        return Record(
            owner, self.claim, self.job, self.attempt, self.verb, age_ms, self.duration_ms,
            self.delay_ms, self.body, self.progress.decode() or None,
            self.cpu_ms if self.cpu_ms >= 0 else None, self.rss_bytes or None,
            self.said.decode(errors="replace") or None,
        )  # fmt: skip


class Header(NamedTuple):
    """Whose life it was, and what it had claimed last."""

    owner: int
    pid: int
    start_ticks: int
    pid_namespace: int
    family: int
    boot_id: str
    database_id: str
    host: str
    lanes: int = 1
    claim: int = 0


class Journal(NamedTuple):
    """What was recorded up to some moment; more may be recorded while it is being settled."""

    records: list[Record]
    end: int
    """Where it ends in the file."""


class Ledger:
    """The writer's side, in the child. The journal of one lane; that of several is in halves.py."""

    def __init__(self, folder: str, header: Header, clock: Clock = SYSTEM) -> None:
        """Allocate the file; OSError (no space, no rights) leaves nothing behind."""
        self.path = os.path.join(folder, file_name(header.owner))
        self.plan = plan(header.lanes)
        self._clock = clock
        self._owner = header.owner
        self._begin_at, self._end = self.plan.journals[0]
        self._tail = self._written = self._begin_at
        self._tail_at = TAIL_AT
        self._entries: list[Entry] = []
        descriptor = allocate(folder, self.path, self.plan.size)
        try:
            self._memory = mmap.mmap(descriptor, self.plan.size)
        except BaseException:
            os.unlink(self.path)
            raise
        finally:
            os.close(descriptor)  # the mapping stays; one descriptor less that a task could close
        self._words: memoryview[int] = memoryview(self._memory)[:FIRST_LANE_AT].cast("q")
        self._begin(header)

    def _begin(self, header: Header) -> None:
        # A spare holds another life's bytes. The magic goes first and comes last, so that whoever
        # reads in between sees no ledger at all rather than half of two.
        words = self._words
        words[MAGIC_AT] = 0
        words[TAIL_AT] = words[HEAD_AT] = self._begin_at
        words[SECOND_TAIL_AT] = self.plan.journals[-1][0]
        words[LAYOUT_AT] = LAYOUT
        words[LANES_AT], words[SAID_BYTES_AT] = header.lanes, self.plan.said_bytes
        words[CLAIM_AT] = header.claim
        words[OWNER_AT], words[PID_AT] = header.owner, header.pid
        words[TICKS_AT], words[NAMESPACE_AT] = header.start_ticks, header.pid_namespace
        words[FAMILY_AT] = header.family
        for (at, size), text in (
            (BOOT_AT, header.boot_id),
            (DATABASE_AT, header.database_id),
            (HOST_AT, header.host),
        ):
            self._memory[at : at + size] = text.encode()[:size].ljust(size, b"\0")
        self.sheets = [Sheet(self._memory, self.plan, lane) for lane in range(header.lanes)]
        """One for each lane."""
        words[MAGIC_AT] = MAGIC

    # -- what the worker writes

    def claimed(self, claim: int) -> None:
        """After the COMMIT of a turn: its claim."""
        self._words[CLAIM_AT] = claim

    def has_room(self) -> bool:
        """Whether the largest inline record fits; else settle first."""
        return self._end - self._tail >= ROOM

    def record(self, entry: Entry) -> bool:
        """Keep an outcome (body of at most INLINE bytes, room checked): body first, tail last."""
        self.write_body(entry)
        self.write_tail(entry)
        return True

    def write_body(self, entry: Entry) -> None:
        """The record itself, not yet valid."""
        claim, job, attempt, verb, moment, duration, delay, body, progress, cpu, rss, said, _ = (
            entry
        )
        checked = CHECKED.pack(
            self._owner, claim, job, attempt, OUTCOME, verb, len(progress), len(said), moment, duration,
            delay, cpu, rss,
        )  # fmt: skip
        if progress or said:
            body += progress + said
        crc = zlib.crc32(checked)
        at = self._tail
        end = at + HEAD_SIZE
        if body:
            crc = zlib.crc32(body, crc)
            self._memory[end : end + len(body)] = body
        self._memory[at:end] = PREFIX.pack(len(body), crc) + checked
        self._written = padded(end + len(body))

    def write_tail(self, entry: Entry) -> None:
        """From here on the outcome is kept."""
        self._tail = self._words[self._tail_at] = self._written
        self._entries.append(entry)

    # -- settling

    def recorded(self, after: int) -> list[Entry]:
        """What is recorded and not settled, but for so many of the first."""
        return self._entries[after:]

    def journal(self) -> Journal:
        """What is to be settled, with ages as of now."""
        return Journal(self._records(self._entries), self._tail)

    def whole(self) -> Journal:
        """All that is recorded, for a life that ends."""
        return self.journal()

    def _records(self, entries: list[Entry]) -> list[Record]:
        now = self._clock.boottime_ns()
        owner = self._owner
        # Spelled out: a call for each of five hundred costs more than the record itself, and half of a named
        # tuple's time goes into taking its fields one by one.
        made = tuple.__new__
        return [
            made(Record, (
                owner, claim, job, attempt, verb, (now - moment) // 1_000_000 if moment < now else 0,
                duration, delay, body, progress.decode() if progress else None,
                cpu if cpu >= 0 else None, rss or None,
                said.decode(errors="replace") if said else None,
            ))
            for claim, job, attempt, verb, moment, duration, delay, body, progress, cpu, rss, said, _
            in entries
        ]  # fmt: skip

    def settled(self, journal: Journal) -> None:
        """This much is in the database; what was recorded since is kept."""
        del self._entries[: len(journal.records)]
        if self._entries:
            self._words[HEAD_AT] = journal.end
            return
        # The tail first: in between the journal is empty, whichever of the two words is read.
        self._tail = self._words[TAIL_AT] = self._begin_at
        self._words[HEAD_AT] = self._begin_at

    def retire(self) -> None:
        """All is settled: the file may serve the next life. Unmapped first, it is no longer ours."""
        self.close()
        retire(os.path.dirname(self.path), self.path)

    def close(self) -> None:
        """Unmap the file, which stays until it is settled."""
        for sheet in self.sheets:
            sheet.close()
        self._words.release()
        self._memory.close()


def leave_grave(folder: str, grave: Grave) -> None:
    """Write how a life ended into its own ledger, for another family: this one has no time to settle it.

    Raises OSError.
    """
    path = find_file(folder, grave.owner)
    if path is None:
        return
    told = (grave.owner, grave.status, grave.verdict, grave.verdict_job, grave.verdict_claim)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, DEATH.pack(*told), DEATH_AT)
    finally:
        os.close(descriptor)
