"""What a life has left in its ledger, read by another process.

Three answers besides a ledger that was read, because each wants something else: a file that is not
begun yet is waited for, another life's bytes under a new name say that the new one wrote nothing,
and what this release cannot read is kept for one that can.
"""

from __future__ import annotations

import enum
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.identity import boot_id
from jobvisor.jobs.keys import CONCURRENCY_MAX
from jobvisor.jobs.store import Record
from jobvisor.supervisor.board import Grave, Running
from jobvisor.supervisor.ledger.layout import (
    BOOT_AT,
    CHECKED,
    CHECKED_1,
    CHECKED_2,
    CURRENT_AT,
    DATABASE_AT,
    DEADLINE_AT,
    DEATH,
    DEATH_AT,
    FIRST_LANE_AT,
    HEAD,
    HEAD_AT,
    HOST_AT,
    LANE,
    LANE_BYTES,
    LANE_CLAIM,
    LANE_CURRENT,
    LANE_DEADLINE,
    LANE_SAID_CLAIM,
    LANE_SAID_END,
    LANE_SAID_JOB,
    LAYOUTS,
    MAGIC,
    OLD_JOURNAL_AT,
    OLD_PROGRESS_AT,
    OLD_SIZE,
    OUTCOME,
    PREFIX,
    PROGRESS,
    PROGRESS_MAX,
    SECOND_TAIL_AT,
    TAIL_AT,
    Plan,
    find_file,
    padded,
    parse_name,
    plan,
)
from jobvisor.supervisor.ledger.ledger import Header
from jobvisor.supervisor.ledger.said import unrolled
from jobvisor.supervisor.roster import WORKER


class Unread(enum.Enum):
    """Why a file told nothing."""

    NOT_BEGUN = "its life has not begun it"
    FOREIGN = "it holds another life's bytes: its own has not begun it"
    UNKNOWN = "this release does not know its layout"


class Strange(NamedTuple):
    """A whole record of a kind that this release does not know: another one wrote it."""

    claim: int
    job: int
    kind: int
    body: bytes


class Words(NamedTuple):
    """The end of what a job has said."""

    claim: int
    end: int
    """How many bytes it has said in all."""
    kept: bytes
    """The last of them."""


class Read(NamedTuple):
    """A ledger as somebody else found it."""

    header: Header
    records: list[Record]
    running: tuple[Running, ...] = ()
    """The jobs that its lanes were in."""
    strange: tuple[Strange, ...] = ()
    grave: Grave | None = None
    """How its parent saw it end, where that family left before it was settled."""


def ledger_files(folder: str) -> list[tuple[int, int, str]]:
    """Owner, layout and path of every ledger in a folder, of layouts that are not known, too."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    parsed = ((parse_name(name), os.path.join(folder, name)) for name in names)
    return [(*found, path) for found, path in parsed if found is not None]


def read_ledger_of(
    folder: str, owner: int, clock: Clock = SYSTEM, *, said: bool = False
) -> Read | None:
    """What a life left, None where it left nothing that can be read; see `read_ledger`."""
    path = find_file(folder, owner)
    found = None if path is None else read_ledger(path, owner, clock=clock, said=said)
    return found if isinstance(found, Read) else None


def read_ledger(
    path: str,
    owner: int,
    *,
    boot: str | None = None,
    clock: Clock = SYSTEM,
    said: bool = False,
) -> Read | Unread | None:
    """Read the ledger of a life; None if the file is gone. `said`: with what its jobs said last.

    What runs is read before the journal: a job that ended in between is then in both, never in
    neither. Records of an earlier boot have no age, since that boot's clock is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        file = _opened(descriptor)
        if isinstance(file, Unread):
            return file
        header = file.header
        if header.owner != owner:
            return Unread.FOREIGN
        running = tuple(file.running(said=said))
        journals = file.journals()
        grave = _read_grave(descriptor, header, running)
    finally:
        os.close(descriptor)
    now = clock.boottime_ns() if header.boot_id == (boot or boot_id()) else None
    records: list[Record] = []
    strange: list[Strange] = []
    for journal in journals:
        for found in _parse(journal, file.layout, owner, now):
            (records if isinstance(found, Record) else strange).append(found)  # type: ignore[arg-type]
    return Read(header, records, running, tuple(strange), grave)


def read_words(path: str, owner: int, job: int) -> Words | None:
    """What a job has said in a life that runs or ran it; None where it has said nothing there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        file = _opened(descriptor)
        return (
            None if isinstance(file, Unread) or file.header.owner != owner else file.words_of(job)
        )
    finally:
        os.close(descriptor)


def read_running(path: str, owner: int) -> list[Running]:
    """The jobs that a life is in, with how far each last said that it had come."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []  # its worker has just left
    try:
        file = _opened(descriptor)
        return [] if isinstance(file, Unread) or file.header.owner != owner else file.running()
    finally:
        os.close(descriptor)


def _opened(descriptor: int) -> _File | Unread:
    data = os.pread(descriptor, FIRST_LANE_AT, 0)
    if len(data) < FIRST_LANE_AT:
        return Unread.NOT_BEGUN
    magic, layout, owner, claim, lanes, _, _, pid, ticks, namespace, family, _ = HEAD.unpack_from(
        data
    )
    if magic == 0:
        return Unread.NOT_BEGUN
    if magic != MAGIC or layout not in LAYOUTS:
        return Unread.UNKNOWN
    boot, database, host = (
        data[at : at + size].rstrip(b"\0").decode(errors="replace")
        for at, size in (BOOT_AT, DATABASE_AT, HOST_AT)
    )
    if layout < _WITH_LANES:
        lanes = 1
    elif not 0 < lanes <= CONCURRENCY_MAX or os.fstat(descriptor).st_size != plan(lanes).size:
        return Unread.UNKNOWN  # nothing that this release writes
    header = Header(
        owner, pid, ticks, namespace, family, boot, database, host, lanes=lanes, claim=claim
    )
    return (_File if layout == _WITH_LANES else _OldFile)(descriptor, header, layout)


_WITH_LANES = 3
_TRIES = 100  # to read what a job says between two words of it


class _File:
    """An open ledger of the layout that this release writes."""

    def __init__(self, descriptor: int, header: Header, layout: int) -> None:
        self._descriptor = descriptor
        self.header = header
        self.layout = layout
        self._plan: Plan = plan(header.lanes)

    def running(self, *, said: bool = False) -> list[Running]:
        """What stands on the sheets of its lanes."""
        data = os.pread(self._descriptor, self.header.lanes * LANE_BYTES, FIRST_LANE_AT)
        found = []
        for lane, at in enumerate(range(0, len(data), LANE_BYTES)):
            words = LANE.unpack_from(data, at)
            job = words[LANE_CURRENT]
            if job:
                told = data[at + LANE.size : at + LANE_BYTES]
                text = _progress_of(job, told, self._descriptor, FIRST_LANE_AT + at + LANE.size)
                run = Running(job, words[LANE_CLAIM], lane, words[LANE_DEADLINE], text)
                found.append(run._replace(said=self._said(lane, words)) if said else run)
        return found

    def words_of(self, job: int) -> Words | None:
        """What this job has said, of whichever lane it is or was."""
        for lane in range(self.header.lanes):
            at = self._plan.lane_at(lane)
            for _ in range(_TRIES):
                words = LANE.unpack(os.pread(self._descriptor, LANE.size, at))
                if words[LANE_SAID_JOB] != job:
                    break
                end, area = words[LANE_SAID_END], self._area(lane)
                if LANE.unpack(os.pread(self._descriptor, LANE.size, at)) == words:
                    return Words(words[LANE_SAID_CLAIM], end, unrolled(area, end))
        return None

    def _area(self, lane: int) -> bytes:
        return os.pread(self._descriptor, self._plan.said_bytes, self._plan.said_at(lane))

    def _said(self, lane: int, words: tuple[int, ...]) -> str | None:
        """What the job of a lane has said last."""
        whose = words[LANE_SAID_JOB], words[LANE_SAID_CLAIM]
        if whose != (words[LANE_CURRENT], words[LANE_CLAIM]):
            return None
        return unrolled(self._area(lane), words[LANE_SAID_END]).decode(errors="replace") or None

    def journals(self) -> list[bytes]:
        """What is recorded: with several lanes in two halves, of which the second has no head."""
        words = self._words(SECOND_TAIL_AT + 1)
        (begin, end), *second = self._plan.journals
        found = [(max(begin, words[HEAD_AT]), words[TAIL_AT], end)]
        found += [(begin, words[SECOND_TAIL_AT], end) for begin, end in second]
        return [self._between(*each) for each in found]

    def _words(self, count: int) -> list[int]:
        return memoryview(os.pread(self._descriptor, count * 8, 0)).cast("q").tolist()

    def _between(self, head: int, tail: int, end: int) -> bytes:
        return os.pread(self._descriptor, tail - head, head) if head < tail <= end else b""


class _OldFile(_File):
    """One of a release before 0.4."""

    def running(self, *, said: bool = False) -> list[Running]:
        """The one job that its header tells; what it said nobody kept."""
        del said
        words = self._words(HEAD_AT + 1)
        job = words[CURRENT_AT]
        if not job:
            return []
        size = PROGRESS.size + PROGRESS_MAX
        told = os.pread(self._descriptor, size, OLD_PROGRESS_AT)
        text = _progress_of(job, told, self._descriptor, OLD_PROGRESS_AT)
        return [Running(job, self.header.claim, 0, words[DEADLINE_AT], text)]

    def words_of(self, job: int) -> Words | None:
        """Nobody kept them."""
        del job
        return None

    def journals(self) -> list[bytes]:
        """One, which in layout 1 has no head."""
        words = self._words(HEAD_AT + 1)
        head = words[HEAD_AT] if self.layout > 1 else OLD_JOURNAL_AT
        return [self._between(max(head, OLD_JOURNAL_AT), words[TAIL_AT], OLD_SIZE)]


def _read_grave(descriptor: int, header: Header, running: tuple[Running, ...]) -> Grave | None:
    owner, status, verdict, job, claim = DEATH.unpack(os.pread(descriptor, DEATH.size, DEATH_AT))
    if owner != header.owner:
        return None
    current = running[0] if running else Running(0, header.claim)
    return Grave(
        owner=owner, pid=header.pid, slot=-1, status=status, verdict_job=job, verdict_claim=claim,
        verdict=verdict, at=0, current=current.job, claim=current.claim, role=WORKER.number,
    )  # fmt: skip


def _progress_of(job: int, told: bytes, descriptor: int, at: int) -> str | None:
    """What a job said; None while it is being written, of another job, or not what we write."""
    sequence, length, of = PROGRESS.unpack_from(told)
    if of != job or sequence == 0 or sequence % 2:
        return None
    again, _, _ = PROGRESS.unpack(os.pread(descriptor, PROGRESS.size, at))
    if sequence != again:
        return None
    return _progress_text(told[PROGRESS.size : PROGRESS.size + length])


def _progress_text(data: bytes) -> str | None:
    """A JSON object, or nothing: PostgreSQL refuses what is not JSON."""
    try:
        text = data.decode()
        return text if isinstance(json.loads(text), dict) else None
    except ValueError:
        return None


def _parse(journal: bytes, layout: int, owner: int, now: int | None) -> Iterator[Record | Strange]:
    checked = _CHECKED[layout]
    at = 0
    while at + PREFIX.size + checked.size <= len(journal):
        length, crc = PREFIX.unpack_from(journal, at)
        body_at = at + PREFIX.size + checked.size
        body = journal[body_at : body_at + length]
        whole = zlib.crc32(body, zlib.crc32(journal[at + PREFIX.size : body_at]))
        fields = _fields(layout, checked.unpack_from(journal, at + PREFIX.size))
        if len(body) != length or whole != crc or fields[0] != owner:
            return  # bytes of an earlier life of this file, or a disk that lied: stop at what is sure
        yield _record(fields, body, now)
        at += padded(PREFIX.size + checked.size + length)


_CHECKED = {3: CHECKED, 2: CHECKED_2, 1: CHECKED_1}


def _fields(layout: int, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """The fields of a record, with what older layouts lack filled in."""
    if layout == _WITH_LANES:
        return fields
    if layout == 1:
        fields = (*fields[:4], OUTCOME, fields[4], 0, *fields[5:])
    return (*fields[:7], 0, *fields[7:], -1, 0)


def _record(fields: tuple[Any, ...], body: bytes, now: int | None) -> Record | Strange:
    owner, claim, job, attempt, kind, verb, told, said, moment, duration, delay, cpu, rss = fields
    if kind != OUTCOME:
        return Strange(claim, job, kind, body)
    age = 0 if now is None else max(0, now - moment) // 1_000_000
    said_at = len(body) - said
    end = said_at - told
    progress = _progress_text(body[end:said_at]) if told else None
    return Record(
        owner, claim, job, attempt, verb, age, duration, delay, body[:end], progress,
        cpu if cpu >= 0 else None, rss or None, body[said_at:].decode(errors="replace") or None,
    )  # fmt: skip
