"""The file of one life: claim, current job, journal. It outlives its process, not the machine.

Written by its child alone, through a mapping of a fully allocated file (a store into a hole of a
full disk is SIGBUS, measured); read with pread. A record's body is written first and the tail word
last, so what lies below the tail is whole: no tail, no record. Nothing is ever synced: the page
cache survives the death of every process, and a power cut only makes jobs run again.

Layout, in bytes: 0 header (magic, version, owner, claim, current, deadline, tail, pid, start ticks,
pid namespace, family: 8 each), 128 boot id and database id (64 each), 256 host (256), 512 progress
(sequence, length, job, 488 bytes of JSON), 1024 the journal.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from typing import NamedTuple

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.identity import boot_id
from jobvisor.jobs.store import Record

SIZE = 1 << 20
INLINE = 64 << 10  # a larger outcome is committed at once instead of being journalled
SPARES = 8

_MAGIC = 0x4A4F425649534F52  # "JOBVISOR"
_LAYOUT = 1
_HEAD = struct.Struct("=11q")
_MAGIC_AT, _LAYOUT_AT, _OWNER_AT, _CLAIM_AT, _CURRENT_AT, _DEADLINE_AT, _TAIL_AT = range(7)
_PID_AT, _TICKS_AT, _NAMESPACE_AT, _FAMILY_AT = range(7, 11)
_BOOT_AT, _DATABASE_AT, _HOST_AT, _PROGRESS_AT, _JOURNAL_AT = 128, 192, 256, 512, 1024
PROGRESS_MAX = _JOURNAL_AT - _PROGRESS_AT - 24  # bytes of JSON
# length, crc32 of all that follows, owner, claim, job, attempt, verb, moment, duration, delay
_RECORD = struct.Struct("=II8q")
_CHECKED = struct.Struct("=8q")
_ROOM = INLINE + _RECORD.size + 8


class Entry(NamedTuple):
    """One outcome on its way into the journal; `moment_ns` by CLOCK_BOOTTIME."""

    job: int
    attempt: int
    verb: int
    moment_ns: int
    duration_ms: int
    delay_ms: int
    body: bytes


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


class Ledger:
    """The writer's side, in the child."""

    def __init__(self, folder: str, header: Header, clock: Clock = SYSTEM) -> None:
        """Allocate the file; OSError (no space, no rights) leaves nothing behind."""
        self.path = os.path.join(folder, str(header.owner))
        self._clock = clock
        self._owner = header.owner
        self._claim = 0
        self._tail = _JOURNAL_AT
        self.entries: list[Entry] = []
        descriptor = _allocate(folder, self.path)
        try:
            self._memory = mmap.mmap(descriptor, SIZE)
        except BaseException:
            os.unlink(self.path)
            raise
        finally:
            os.close(descriptor)  # the mapping stays; one descriptor less that a task could close
        self._words: memoryview[int] = memoryview(self._memory)[:_BOOT_AT].cast("q")
        self._begin(header)

    def _begin(self, header: Header) -> None:
        # A spare holds another life's bytes. The magic goes first and comes last, so that whoever
        # reads in between sees no ledger at all rather than half of two.
        words = self._words
        words[_MAGIC_AT] = 0
        words[_TAIL_AT] = _JOURNAL_AT
        words[_LAYOUT_AT] = _LAYOUT
        words[_CURRENT_AT] = words[_CLAIM_AT] = words[_DEADLINE_AT] = 0
        words[_OWNER_AT], words[_PID_AT] = header.owner, header.pid
        words[_TICKS_AT], words[_NAMESPACE_AT] = header.start_ticks, header.pid_namespace
        words[_FAMILY_AT] = header.family
        for at, text, size in (
            (_BOOT_AT, header.boot_id, 64),
            (_DATABASE_AT, header.database_id, 64),
            (_HOST_AT, header.host, 256),
        ):
            self._memory[at : at + size] = text.encode()[:size].ljust(size, b"\0")
        self._memory[_PROGRESS_AT : _PROGRESS_AT + 24] = bytes(24)
        words[_MAGIC_AT] = _MAGIC

    # -- what the worker writes, in the order of a job

    def claimed(self, claim: int) -> None:
        """After the COMMIT of a turn: the journal is settled, then the new claim begins."""
        self.settled()
        self._claim = claim
        self._words[_CLAIM_AT] = claim

    def settled(self) -> None:
        """The journal is in the database."""
        self._tail = _JOURNAL_AT
        self._words[_TAIL_AT] = _JOURNAL_AT
        self.entries.clear()

    def publish(self, job: int, deadline: int) -> None:
        """This job is about to run; the deadline first, so that no job is seen without its own."""
        words = self._words
        words[_DEADLINE_AT] = deadline
        words[_CURRENT_AT] = job

    def withdraw(self) -> None:
        """Nothing runs."""
        self._words[_CURRENT_AT] = 0

    def has_room(self) -> bool:
        """Whether the largest inline record fits; else settle first."""
        return SIZE - self._tail >= _ROOM

    def record(self, entry: Entry) -> None:
        """Keep an outcome (body of at most INLINE bytes, room checked): body first, tail last."""
        self.write_body(entry)
        self.write_tail(entry)

    def write_body(self, entry: Entry) -> None:
        """The record itself, not yet valid."""
        body = entry.body
        job, attempt, verb, moment, duration, delay, _body = entry
        checked = _CHECKED.pack(
            self._owner, self._claim, job, attempt, verb, moment, duration, delay
        )
        crc = zlib.crc32(body, zlib.crc32(checked))
        at = self._tail
        end = at + _RECORD.size
        self._memory[at:end] = b"%b%b" % (_PREFIX.pack(len(body), crc), checked)
        if body:
            self._memory[end : end + len(body)] = body

    def write_tail(self, entry: Entry) -> None:
        """From here on the outcome is kept."""
        self._tail += (_RECORD.size + len(entry.body) + 7) & ~7
        self._words[_TAIL_AT] = self._tail
        self.entries.append(entry)

    def progress(self, job: int, text: bytes) -> None:
        """How far a job has come: an odd sequence while it is being written; too long a text is not."""
        if len(text) > PROGRESS_MAX:
            return
        sequence, _, _ = _PROGRESS.unpack_from(self._memory, _PROGRESS_AT)
        _PROGRESS.pack_into(self._memory, _PROGRESS_AT, sequence + 1, len(text), job)
        at = _PROGRESS_AT + _PROGRESS.size
        self._memory[at : at + len(text)] = text
        _PROGRESS.pack_into(self._memory, _PROGRESS_AT, sequence + 2, len(text), job)

    def records(self) -> list[Record]:
        """The journal as the store takes it, with ages as of now."""
        now = self._clock.boottime_ns()
        return [
            Record(
                self._owner, self._claim, entry.job, entry.attempt, entry.verb,
                max(0, now - entry.moment_ns) // 1_000_000, entry.duration_ms, entry.delay_ms,
                entry.body,
            )
            for entry in self.entries
        ]  # fmt: skip

    def retire(self) -> None:
        """All is settled: the file may serve the next life. Unmapped first, it is no longer ours."""
        self.close()
        retire(os.path.dirname(self.path), self.path)

    def close(self) -> None:
        """Let go of the mapping; the file stays until it is settled."""
        self._words.release()
        self._memory.close()


_PREFIX = struct.Struct("=II")
_PROGRESS = struct.Struct("=qqq")  # sequence, length, job


class Read(NamedTuple):
    """A ledger as somebody else found it."""

    header: Header
    records: list[Record]


def read(path: str, *, boot_id: str, clock: Clock = SYSTEM) -> Read | None:
    """Read the ledger of another life; None if the file is no ledger (yet).

    `current` is read before the journal: a job that ended in between is then in both, never in
    neither. Records of an earlier boot have no age, since that boot's clock is gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = _read_header(descriptor)
        if header is None:
            return None
        (tail,) = struct.unpack("=q", os.pread(descriptor, 8, _TAIL_AT * 8))
        journal = b""
        if _JOURNAL_AT < tail <= SIZE:
            journal = os.pread(descriptor, tail - _JOURNAL_AT, _JOURNAL_AT)
    finally:
        os.close(descriptor)
    now = clock.boottime_ns() if header.boot_id == boot_id else None
    return Read(header, _parse(journal, header.owner, now))


def _read_header(descriptor: int) -> Header | None:
    data = os.pread(descriptor, _PROGRESS_AT, 0)
    if len(data) < _PROGRESS_AT:
        return None
    magic, layout, owner, claim, current, deadline, _tail, pid, ticks, namespace, family = (
        _HEAD.unpack_from(data)
    )
    if magic != _MAGIC or layout != _LAYOUT:
        return None
    texts = (
        data[at : at + size].rstrip(b"\0").decode(errors="replace")
        for at, size in ((_BOOT_AT, 64), (_DATABASE_AT, 64), (_HOST_AT, 256))
    )
    boot_id, database_id, host = texts
    return Header(
        owner, claim, current, deadline, pid, ticks, namespace, family, boot_id, database_id, host
    )


def _parse(journal: bytes, owner: int, now: int | None) -> list[Record]:
    records: list[Record] = []
    at = 0
    while at + _RECORD.size <= len(journal):
        length, crc, *fields = _RECORD.unpack_from(journal, at)
        body_at = at + _RECORD.size
        body = journal[body_at : body_at + length]
        whole = zlib.crc32(body, zlib.crc32(journal[at + _PREFIX.size : body_at]))
        if len(body) != length or whole != crc or fields[0] != owner:
            break  # bytes of an earlier life of this file, or a disk that lied: stop at what is sure
        _owner, claim, job, attempt, verb, moment, duration, delay = fields
        age = 0 if now is None else max(0, now - moment) // 1_000_000
        records.append(Record(owner, claim, job, attempt, verb, age, duration, delay, body))
        at = body_at + ((_RECORD.size + length + 7) & ~7) - _RECORD.size
    return records


def read_own(path: str, owner: int, clock: Clock) -> Read | None:
    """A ledger under its own name; another's bytes in it mean that its life wrote nothing yet."""
    try:
        found = read(path, boot_id=boot_id(), clock=clock)
    except FileNotFoundError:
        return None
    return found if found is not None and found.header.owner == owner else None


def read_progress(path: str) -> tuple[int, str] | None:
    """The job that last told its progress, and what; None while it is being written or is unset."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, _JOURNAL_AT - _PROGRESS_AT, _PROGRESS_AT)
        sequence, length, job = _PROGRESS.unpack_from(data)
        again, _, _ = _PROGRESS.unpack(os.pread(descriptor, _PROGRESS.size, _PROGRESS_AT))
    finally:
        os.close(descriptor)
    if sequence == 0 or sequence % 2 or sequence != again:
        return None
    return job, data[_PROGRESS.size : _PROGRESS.size + length].decode(errors="replace")


def retire(folder: str, path: str) -> None:
    """A settled ledger becomes a spare, so that a full disk still has room for the next life's."""
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
