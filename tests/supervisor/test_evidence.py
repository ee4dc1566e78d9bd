"""What is read of a ledger: in each layout, before it is begun, and where it cannot be read."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest

from jobvisor.supervisor.board import Running
from jobvisor.supervisor.ledger.evidence import (
    Read,
    Strange,
    Unread,
    ledger_files,
    read_ledger,
    read_ledger_of,
)
from jobvisor.supervisor.ledger.layout import (
    CHECKED,
    LANES_AT,
    LAYOUT_AT,
    MAGIC,
    MAGIC_AT,
    OLD_PROGRESS_AT,
    OLD_SIZE,
    PREFIX,
    PROGRESS,
    TAIL_AT,
    padded,
    plan,
)
from jobvisor.supervisor.ledger.ledger import Entry, Header, Ledger
from tests.clock import MovableClock

BOOT = "boot-1"


def header(owner: int = 11) -> Header:
    return Header(owner, 4242, 99, 7, 3, BOOT, "database-1", "höst")


def written(folder: Path) -> bytearray:
    """A ledger of owner 11 with two records, as bytes."""
    life = Ledger(str(folder), header(), MovableClock())
    for job in (1, 2):
        life.record(Entry(1, job, 1, 1, 0, 5, 0, b"body"))
    life.close()
    return bytearray((folder / "11.3").read_bytes())


def layout_1(jobs: list[int]) -> bytes:
    """A ledger as releases before 0.3 wrote it."""
    journal = b""
    for job in jobs:
        checked = struct.pack("=8q", 11, 3, job, 2, 1, 0, 17, 250)
        body = b"result"
        crc = zlib.crc32(body, zlib.crc32(checked))
        record = struct.pack("=II", len(body), crc) + checked + body
        journal += record.ljust((len(record) + 7) & ~7, b"\0")
    words = (MAGIC, 1, 11, 3, jobs[-1] + 1, 5, 1024 + len(journal), 4242, 99, 7, 3)
    data = bytearray(OLD_SIZE)
    data[: 11 * 8] = struct.pack("=11q", *words)
    for at, text in ((128, BOOT), (192, "database-1"), (256, "höst")):
        data[at : at + len(text.encode())] = text.encode()
    data[1024 : 1024 + len(journal)] = journal
    return bytes(data)


def layout_2() -> bytes:
    """A ledger as release 0.3 wrote it: two records, of which the first is settled, and a job that tells."""
    journal, heads = b"", []
    for job in (5, 6):
        heads.append(1024 + len(journal))
        body = b"result" + b'{"done": 1}'
        checked = struct.pack("=4qhhi3q", 11, 3, job, 2, 1, 1, 11, 0, 17, 250)
        crc = zlib.crc32(body, zlib.crc32(checked))
        record = PREFIX.pack(len(body), crc) + checked + body
        journal += record.ljust(padded(len(record)), b"\0")
    words = (MAGIC, 2, 11, 3, 7, 5, 1024 + len(journal), 4242, 99, 7, 3, heads[1])
    data = bytearray(OLD_SIZE)
    data[: 12 * 8] = struct.pack("=12q", *words)
    for at, text in ((128, BOOT), (192, "database-1"), (256, "höst")):
        data[at : at + len(text.encode())] = text.encode()
    told = PROGRESS.pack(2, 11, 7) + b'{"done": 4}'
    data[OLD_PROGRESS_AT : OLD_PROGRESS_AT + len(told)] = told
    data[1024 : 1024 + len(journal)] = journal
    return bytes(data)


def test_the_layout_of_the_release_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "11.2").write_bytes(layout_2())
    found = read_ledger_of(str(tmp_path), 11)
    assert found is not None
    assert found.header == header()._replace(claim=3)
    assert found.running == (Running(7, 3, deadline=5, progress='{"done": 4}'),)
    assert [(r.claim, r.job, r.body, r.progress, r.cpu_ms, r.said) for r in found.records] == [
        (3, 6, b"result", '{"done": 1}', None, None)
    ]


def test_the_layout_of_earlier_releases_is_read(tmp_path: Path) -> None:
    (tmp_path / "11").write_bytes(layout_1([5, 6]))
    found = read_ledger_of(str(tmp_path), 11)
    assert found is not None
    assert found.header == header()._replace(claim=3)
    assert found.running == (Running(7, 3, deadline=5),)
    assert [(r.claim, r.job, r.attempt, r.verb, r.body) for r in found.records] == [
        (3, 5, 2, 1, b"result"),
        (3, 6, 2, 1, b"result"),
    ]
    assert {(r.duration_ms, r.delay_ms, r.progress) for r in found.records} == {(17, 250, None)}


def test_each_file_tells_its_owner_and_layout_by_its_name(tmp_path: Path) -> None:
    for name in ("11", "12.3", "13.7", "spare-14.3", "notes", "15.x", ".3", "16."):
        (tmp_path / name).touch()
    found = [(owner, layout) for owner, layout, _ in ledger_files(str(tmp_path))]
    assert found == [(11, 1), (12, 3), (13, 7)]
    assert ledger_files(str(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("content", [b"", b"short", bytes(OLD_SIZE)])
def test_a_file_without_its_header_is_not_begun(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "11.3"
    path.write_bytes(content)
    assert read_ledger(str(path), 11) is Unread.NOT_BEGUN


def test_a_spare_under_a_new_name_is_another_lifes(tmp_path: Path) -> None:
    written(tmp_path)
    os.rename(tmp_path / "11.3", tmp_path / "12.3")
    assert read_ledger(str(tmp_path / "12.3"), 12) is Unread.FOREIGN


@pytest.mark.parametrize(
    ("word", "value"),
    [(MAGIC_AT, 42), (LAYOUT_AT, 4), (LAYOUT_AT, 0), (LANES_AT, 2), (LANES_AT, 1 << 40)],
)
def test_a_layout_that_is_not_known_is_said_to_be_that(
    tmp_path: Path, word: int, value: int
) -> None:
    content = written(tmp_path)
    content[word * 8 : word * 8 + 8] = struct.pack("=q", value)
    path = tmp_path / "11.3"
    path.write_bytes(content)
    assert read_ledger(str(path), 11) is Unread.UNKNOWN


def test_what_a_run_cost_and_said_comes_back_from_its_record(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), header())
    said = "früher, später".encode()
    told = Entry(1, 5, 1, 1, 0, 5, 0, b"body", b'{"done": 1}')
    for entry in (told._replace(cpu_ms=0), told._replace(cpu_ms=7, rss_bytes=9, said=said), told):
        ledger.record(entry)
    expected = [(0, None, None), (7, 9, said.decode()), (None, None, None)]
    found = read_ledger_of(str(tmp_path), 11)
    assert found is not None
    for records in (found.records, ledger.journal().records):
        assert [(r.cpu_ms, r.rss_bytes, r.said) for r in records] == expected
        assert {(r.body, r.progress) for r in records} == {(b"body", '{"done": 1}')}
    assert Entry.record(told._replace(cpu_ms=3, said=b"x"), 11, 0)[-3:] == (3, None, "x")
    ledger.close()


def test_a_file_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    assert read_ledger(str(tmp_path / "11.3"), 11) is None
    assert read_ledger_of(str(tmp_path), 11) is None


def test_a_record_of_an_unknown_kind_is_handed_over_and_hides_no_other(tmp_path: Path) -> None:
    content = written(tmp_path)
    (tail,) = struct.unpack_from("=q", content, TAIL_AT * 8)
    at = plan(1).journals[0][0]
    for kind, job, body in ((2, 7, b"a step"), (1, 8, b"outcome")):
        checked = CHECKED.pack(11, 1, job, 1, kind, 1, 0, 0, 0, 5, 0, -1, 0)
        crc = zlib.crc32(body, zlib.crc32(checked))
        record = PREFIX.pack(len(body), crc) + checked + body
        at = tail
        content[at : at + len(record)] = record
        tail += padded(len(record))
    content[TAIL_AT * 8 : TAIL_AT * 8 + 8] = struct.pack("=q", tail)
    path = tmp_path / "11.3"
    path.write_bytes(content)
    found = read_ledger(str(path), 11, boot=BOOT)
    assert isinstance(found, Read)
    assert [record.job for record in found.records] == [1, 2, 8]
    assert found.strange == (Strange(1, 7, 2, b"a step"),)
