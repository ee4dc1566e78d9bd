"""The file of one life: claim, current job, journal. It outlives its process, not the machine.

Written by its child alone (and by `leave_grave` after its death), through a mapping of a fully allocated
file (a store into a hole of a full disk is SIGBUS, measured); others read it with pread (evidence.py). A
record's body is written first and the tail word last, so what lies below the tail is whole: no tail, no
record. Nothing is ever synced: the page cache survives the death of every process, and a power cut only
makes jobs run again.
"""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from typing import NamedTuple

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.store import Record
from jobvisor.supervisor.board import Grave
from jobvisor.supervisor.layout import (
    BOOT_AT,
    CHECKED,
    CLAIM_AT,
    CURRENT_AT,
    DATABASE_AT,
    DEADLINE_AT,
    DEATH,
    DEATH_AT,
    FAMILY_AT,
    HEAD_AT,
    HOST_AT,
    JOURNAL_AT,
    LAYOUT,
    LAYOUT_AT,
    MAGIC,
    MAGIC_AT,
    NAMESPACE_AT,
    OUTCOME,
    OWNER_AT,
    PID_AT,
    PREFIX,
    PROGRESS,
    PROGRESS_AT,
    PROGRESS_MAX,
    ROOM,
    SIZE,
    TAIL_AT,
    TEXTS_AT,
    TICKS_AT,
    file_name,
    find_file,
    padded,
)

SPARES = 8


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

    def record(self, owner: int, now_ns: int) -> Record:
        """As the store takes it."""
        age_ms = max(0, now_ns - self.moment_ns) // 1_000_000
        return Record(
            owner, self.claim, self.job, self.attempt, self.verb, age_ms, self.duration_ms,
            self.delay_ms, self.body, self.progress.decode() or None,
        )  # fmt: skip


class Header(NamedTuple):
    """Whose life it was, and what it was doing."""

    owner: int
    claim: int
    current: int
    deadline: int
    pid: int
    start_ticks: int
    pid_namespace: int
    family: int
    boot_id: str
    database_id: str
    host: str


class Journal(NamedTuple):
    """What was recorded up to some moment; more may be recorded while it is being settled."""

    records: list[Record]
    end: int
    """Where it ends in the file."""


class Ledger:
    """The writer's side, in the child."""

    def __init__(self, folder: str, header: Header, clock: Clock = SYSTEM) -> None:
        """Allocate the file; OSError (no space, no rights) leaves nothing behind."""
        self.path = os.path.join(folder, file_name(header.owner))
        self._clock = clock
        self._owner = header.owner
        self._pid = os.getpid()
        self._tail = JOURNAL_AT
        self._entries: list[Entry] = []
        self._progress_lock = threading.Lock()
        self._progress_number = 0
        descriptor = _allocate(folder, self.path)
        try:
            self._memory = mmap.mmap(descriptor, SIZE)
        except BaseException:
            os.unlink(self.path)
            raise
        finally:
            os.close(descriptor)  # the mapping stays; one descriptor less that a task could close
        self._words: memoryview[int] = memoryview(self._memory)[:TEXTS_AT].cast("q")
        self._begin(header)

    def _begin(self, header: Header) -> None:
        # A spare holds another life's bytes. The magic goes first and comes last, so that whoever
        # reads in between sees no ledger at all rather than half of two.
        words = self._words
        words[MAGIC_AT] = 0
        words[TAIL_AT] = words[HEAD_AT] = JOURNAL_AT
        words[LAYOUT_AT] = LAYOUT
        words[CURRENT_AT] = words[CLAIM_AT] = words[DEADLINE_AT] = 0
        words[OWNER_AT], words[PID_AT] = header.owner, header.pid
        words[TICKS_AT], words[NAMESPACE_AT] = header.start_ticks, header.pid_namespace
        words[FAMILY_AT] = header.family
        for (at, size), text in (
            (BOOT_AT, header.boot_id),
            (DATABASE_AT, header.database_id),
            (HOST_AT, header.host),
        ):
            self._memory[at : at + size] = text.encode()[:size].ljust(size, b"\0")
        self._memory[PROGRESS_AT : PROGRESS_AT + PROGRESS.size] = bytes(PROGRESS.size)
        words[MAGIC_AT] = MAGIC

    # -- what the worker writes, in the order of a job

    def claimed(self, claim: int) -> None:
        """After the COMMIT of a turn: the claim under which `current` runs from now on."""
        self._words[CLAIM_AT] = claim

    def publish(self, job: int, deadline: int) -> None:
        """This job is about to run; the deadline first, so that no job is seen without its own."""
        words = self._words
        words[DEADLINE_AT] = deadline
        words[CURRENT_AT] = job

    def withdraw(self) -> None:
        """Nothing runs."""
        self._words[CURRENT_AT] = 0

    def has_room(self) -> bool:
        """Whether the largest inline record fits; else settle first."""
        return SIZE - self._tail >= ROOM

    def record(self, entry: Entry) -> None:
        """Keep an outcome (body of at most INLINE bytes, room checked): body first, tail last."""
        self.write_body(entry)
        self.write_tail(entry)

    def write_body(self, entry: Entry) -> None:
        """The record itself, not yet valid."""
        claim, job, attempt, verb, moment, duration, delay, body, progress = entry
        checked = CHECKED.pack(
            self._owner, claim, job, attempt, OUTCOME, verb, len(progress), moment, duration, delay
        )
        if progress:
            body += progress
        crc = zlib.crc32(body, zlib.crc32(checked))
        at = self._tail
        end = at + PREFIX.size + CHECKED.size
        self._memory[at:end] = b"%b%b" % (PREFIX.pack(len(body), crc), checked)
        if body:
            self._memory[end : end + len(body)] = body

    def write_tail(self, entry: Entry) -> None:
        """From here on the outcome is kept."""
        self._tail += padded(PREFIX.size + CHECKED.size + len(entry.body) + len(entry.progress))
        self._words[TAIL_AT] = self._tail
        self._entries.append(entry)

    def progress(self, job: int, text: bytes) -> int:
        """Show how far a job has come, from any thread; the number of this word, 0 if it was not taken.

        Not taken: one from a copy of the process, which is not this life, and too long a text. The
        sequence is odd while the text is being written.
        """
        if len(text) > PROGRESS_MAX or os.getpid() != self._pid:
            return 0
        with self._progress_lock:
            self._progress_number += 2
            number = self._progress_number
            PROGRESS.pack_into(self._memory, PROGRESS_AT, number - 1, len(text), job)
            at = PROGRESS_AT + PROGRESS.size
            self._memory[at : at + len(text)] = text
            PROGRESS.pack_into(self._memory, PROGRESS_AT, number, len(text), job)
        return number

    # -- settling

    def journal(self) -> Journal:
        """What is to be settled, with ages as of now."""
        now = self._clock.boottime_ns()
        owner = self._owner
        # Spelled out: a call for each of five hundred costs more than the record itself.
        records = [
            Record(
                owner, claim, job, attempt, verb, max(0, now - moment) // 1_000_000, duration, delay,
                body, progress.decode() if progress else None,
            )
            for claim, job, attempt, verb, moment, duration, delay, body, progress in self._entries
        ]  # fmt: skip
        return Journal(records, self._tail)

    def settled(self, journal: Journal) -> None:
        """This much is in the database; what was recorded since is kept."""
        del self._entries[: len(journal.records)]
        if self._entries:
            self._words[HEAD_AT] = journal.end
            return
        # The tail first: in between the journal is empty, whichever of the two words is read.
        self._tail = self._words[TAIL_AT] = JOURNAL_AT
        self._words[HEAD_AT] = JOURNAL_AT

    def retire(self) -> None:
        """All is settled: the file may serve the next life. Unmapped first, it is no longer ours."""
        self.close()
        retire(os.path.dirname(self.path), self.path)

    def close(self) -> None:
        """Unmap the file, which stays until it is settled."""
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


def retire(folder: str, path: str) -> None:
    """A settled ledger becomes a spare, so that a full disk still has room for the next life's.

    Only where nobody maps it any more: its life is dead, or has unmapped it.
    """
    spare = os.path.join(folder, f"spare-{os.path.basename(path)}")
    try:
        if len([name for name in os.listdir(folder) if name.startswith("spare-")]) >= SPARES:
            os.unlink(path)
        else:
            os.rename(path, spare)
    except OSError:
        return  # gone already, or cannot be moved: whoever settles a life twice changes nothing


def _allocate(folder: str, path: str) -> int:
    """A fully allocated file under this name: a spare by renaming, else a new one."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in os.listdir(folder):
        if name.startswith("spare-"):
            try:
                os.rename(os.path.join(folder, name), path)
            except FileNotFoundError:
                continue  # a sibling was quicker
            return _filled(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
    return _filled(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _filled(path: str, descriptor: int) -> int:
    """Every block allocated, of a spare too: a life may have died before it had filled its file."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, SIZE)
        else:  # macOS has none; zeros written are blocks allocated
            os.pwrite(descriptor, bytes(SIZE), 0)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor
