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
from struct import Struct
from typing import Any, NamedTuple

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.identity import boot_id
from jobvisor.jobs.store import Record
from jobvisor.supervisor.board import Grave
from jobvisor.supervisor.layout import (
    BOOT_AT,
    CHECKED,
    CHECKED_1,
    DATABASE_AT,
    DEATH,
    DEATH_AT,
    HEAD,
    HOST_AT,
    JOURNAL_AT,
    LAYOUTS,
    MAGIC,
    OUTCOME,
    PREFIX,
    PROGRESS,
    PROGRESS_AT,
    SIZE,
    TAIL_AT,
    find_file,
    padded,
    parse_name,
)
from jobvisor.supervisor.ledger import Header
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


class Progress(NamedTuple):
    """How far a job last said that it had come (JSON)."""

    job: int
    text: str


class Read(NamedTuple):
    """A ledger as somebody else found it."""

    header: Header
    records: list[Record]
    progress: Progress | None = None
    strange: tuple[Strange, ...] = ()
    grave: Grave | None = None
    """How its parent saw it end, where that family left before it was settled."""


def ledger_files(folder: str) -> list[tuple[int, int, str]]:
    """Owner, layout and path of every ledger in a folder, of layouts that are not known, too."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    parsed = ((parse_name(name), os.path.join(folder, name)) for name in names)
    return [(*found, path) for found, path in parsed if found is not None]


def read_ledger_of(folder: str, owner: int, clock: Clock = SYSTEM) -> Read | None:
    """What a life left, None where it left nothing that can be read."""
    path = find_file(folder, owner)
    found = None if path is None else read_ledger(path, owner, clock=clock)
    return found if isinstance(found, Read) else None


def read_ledger(
    path: str, owner: int, *, boot: str | None = None, clock: Clock = SYSTEM
) -> Read | Unread | None:
    """Read the ledger of a life; None if the file is gone.

    `current` is read before the journal: a job that ended in between is then in both, never in
    neither. Records of an earlier boot have no age, since that boot's clock is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        header, layout = _read_header(descriptor)
        if isinstance(header, Unread):
            return header
        if header.owner != owner:
            return Unread.FOREIGN
        words = HEAD.unpack(os.pread(descriptor, HEAD.size, 0))
        tail, head = words[TAIL_AT], words[-1] if layout > 1 else JOURNAL_AT
        journal = b""
        if JOURNAL_AT <= head < tail <= SIZE:
            journal = os.pread(descriptor, tail - head, head)
        progress = _read_progress(descriptor)
        grave = _read_grave(descriptor, header)
    finally:
        os.close(descriptor)
    now = clock.boottime_ns() if header.boot_id == (boot or boot_id()) else None
    records: list[Record] = []
    strange: list[Strange] = []
    for found in _parse(journal, layout, owner, now):
        (records if isinstance(found, Record) else strange).append(found)  # type: ignore[arg-type]
    return Read(header, records, progress, tuple(strange), grave)


def read_progress_of(folder: str, owner: int) -> Progress | None:
    """How far the job of a life last said that it had come."""
    path = find_file(folder, owner)
    try:
        descriptor = os.open(path or "", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # its worker has just left
    try:
        return _read_progress(descriptor)
    finally:
        os.close(descriptor)


def _read_header(descriptor: int) -> tuple[Header | Unread, int]:
    data = os.pread(descriptor, PROGRESS_AT, 0)
    if len(data) < PROGRESS_AT:
        return Unread.NOT_BEGUN, 0
    magic, layout, owner, claim, current, deadline, _tail, pid, ticks, namespace, family, _head = (
        HEAD.unpack_from(data)
    )
    if magic == 0:
        return Unread.NOT_BEGUN, 0
    if magic != MAGIC or layout not in LAYOUTS:
        return Unread.UNKNOWN, 0
    boot, database, host = (
        data[at : at + size].rstrip(b"\0").decode(errors="replace")
        for at, size in (BOOT_AT, DATABASE_AT, HOST_AT)
    )
    header = Header(
        owner, claim, current, deadline, pid, ticks, namespace, family, boot, database, host
    )
    return header, layout


def _read_grave(descriptor: int, header: Header) -> Grave | None:
    owner, status, verdict, job, claim = DEATH.unpack(os.pread(descriptor, DEATH.size, DEATH_AT))
    if owner != header.owner:
        return None
    return Grave(
        owner=owner, pid=header.pid, slot=-1, status=status, verdict_job=job, verdict_claim=claim,
        verdict=verdict, at=0, current=header.current, claim=header.claim, role=WORKER.number,
    )  # fmt: skip


def _read_progress(descriptor: int) -> Progress | None:
    """None while it is being written or is unset, and where it is not what we write."""
    data = os.pread(descriptor, JOURNAL_AT - PROGRESS_AT, PROGRESS_AT)
    if len(data) < PROGRESS.size:
        return None
    sequence, length, job = PROGRESS.unpack_from(data)
    again, _, _ = PROGRESS.unpack(os.pread(descriptor, PROGRESS.size, PROGRESS_AT))
    if sequence == 0 or sequence % 2 or sequence != again:
        return None
    text = _progress_text(data[PROGRESS.size : PROGRESS.size + length])
    return None if text is None else Progress(job, text)


def _progress_text(data: bytes) -> str | None:
    """A JSON object, or nothing: PostgreSQL refuses what is not JSON."""
    try:
        text = data.decode()
        return text if isinstance(json.loads(text), dict) else None
    except ValueError:
        return None


def _parse(journal: bytes, layout: int, owner: int, now: int | None) -> Iterator[Record | Strange]:
    checked = CHECKED if layout > 1 else CHECKED_1
    at = 0
    while at + PREFIX.size + checked.size <= len(journal):
        length, crc = PREFIX.unpack_from(journal, at)
        body_at = at + PREFIX.size + checked.size
        body = journal[body_at : body_at + length]
        whole = zlib.crc32(body, zlib.crc32(journal[at + PREFIX.size : body_at]))
        fields = _fields(checked, journal, at + PREFIX.size)
        if len(body) != length or whole != crc or fields[0] != owner:
            return  # bytes of an earlier life of this file, or a disk that lied: stop at what is sure
        yield _record(fields, body, now)
        at += padded(PREFIX.size + checked.size + length)


def _fields(checked: Struct, journal: bytes, at: int) -> tuple[Any, ...]:
    """The fields of a record, with what layout 1 lacks filled in."""
    fields = checked.unpack_from(journal, at)
    return fields if checked is CHECKED else (*fields[:4], OUTCOME, fields[4], 0, *fields[5:])


def _record(fields: tuple[Any, ...], body: bytes, now: int | None) -> Record | Strange:
    owner, claim, job, attempt, kind, verb, said, moment, duration, delay = fields
    if kind != OUTCOME:
        return Strange(claim, job, kind, body)
    age = 0 if now is None else max(0, now - moment) // 1_000_000
    end = len(body) - said
    progress = _progress_text(body[end:]) if said else None
    return Record(owner, claim, job, attempt, verb, age, duration, delay, body[:end], progress)
