"""The power goes: what SQLite had asked the disk to keep is replayed up to many moments, in several ways.

A process enqueues under strace. Of what it wrote, a disk holds for certain what was synced; the rest
may be there, be missing, or be there in part. Every such file must be whole, and hold each job
that was acknowledged by then.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobvisor.jobs.store import open_store

ROOT = Path(__file__).resolve().parents[2]
SECTOR = 512  # bytes: a disk writes one whole or not at all
JOBS = 12
OTHER_MOMENTS = 0.1  # of all calls
FILES = ("jobs.db", "jobs.db-wal")

ENQUEUE = f"""
import os, sys
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.room import Room
from tests.store.making import new

room = Room("jobs.db", first=2, pages=4, between=3)
store = open_store("sqlite:///jobs.db", durable=sys.argv[1] == "full")
store.open()
acks = os.open("acks", os.O_WRONLY | os.O_CREAT)
for number in range({JOBS}):
    ((job, _),) = store.enqueue([new(args="[" + "1," * 3_000 + "1]")])
    os.write(acks, f"{{job}}\\n".encode())
    room.committed(store._connected())
    if number == {JOBS} // 2:
        store._connected().execute("PRAGMA wal_checkpoint(PASSIVE)")
os._exit(0)
"""

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((\d+)<([^>]*)>(?:, (.*))?\) += (\d+)", re.DOTALL)


@dataclass
class Disk:
    """Files as a disk has them: what was synced, and what was written since."""

    kept: dict[str, bytes] = field(default_factory=dict)
    written: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    acknowledged: int = 0

    def note(self, call: str, name: str, rest: str) -> bool:
        """One system call; whether it says anything of the files."""
        if name == "acks" and call == "write":
            self.acknowledged += 1
            return True
        if name not in FILES:
            return False
        pending = self.written.setdefault(name, [])
        if call == "pwrite64":
            text, _length, offset = rest.rsplit(", ", 2)
            pending.append((int(offset), bytes.fromhex(text.strip('"').replace("\\x", ""))))
        elif call in ("fsync", "fdatasync"):
            self.kept[name] = laid(self.kept.get(name, b""), pending)
            pending.clear()
        elif call == "ftruncate":
            pending.append((int(rest), b""))
        else:
            return False
        return True

    def after_a_cut(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """The files that there may be now: with nothing, all, or some of what was not synced."""
        for share in (0.0, 1.0, 0.5, 0.5):
            yield {
                name: laid(self.kept.get(name, b""), some(writes, share, chance))
                for name, writes in self.written.items()
            }


def some(
    writes: list[tuple[int, bytes]], share: float, chance: random.Random
) -> list[tuple[int, bytes]]:
    """A part of the sectors that were written."""
    sectors: list[tuple[int, bytes]] = []
    for offset, data in writes:
        at = 0
        while at < len(data) or not data:
            end = min(len(data), at + SECTOR - (offset + at) % SECTOR)
            sectors.append((offset + at, data[at:end]))
            at = end
            if not data:
                break
    return [sector for sector in sectors if chance.random() < share]


def laid(content: bytes, writes: list[tuple[int, bytes]]) -> bytes:
    """The content with these writes laid over it in order; one without bytes cuts it there."""
    found = bytearray(content)
    for offset, data in writes:
        if not data:
            del found[offset:]
        found.extend(bytes(max(0, offset + len(data) - len(found))))
        found[offset : offset + len(data)] = data
    return bytes(found)


def traced(folder: Path, durability: str) -> list[tuple[str, str, str]]:
    """The calls that changed files: (call, name of the file, the rest of its arguments)."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("there is no strace here")
    calls = "trace=write,pwrite64,fsync,fdatasync,ftruncate"
    words = [strace, "-f", "-y", "-xx", "-s", "1000000", "-o", "trace", "-e", calls]
    done = subprocess.run(
        [*words, sys.executable, "-c", ENQUEUE, durability],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    found = [CALL.match(line) for line in (folder / "trace").read_text().splitlines()]
    return [(told[1], named(told[3]), told[4] or "") for told in found if told]


def named(path: str) -> str:
    """The last part of a path, which strace -xx writes in hexadecimal too."""
    plain = bytes.fromhex(path.replace("\\x", "")).decode() if "\\x" in path else path
    return os.path.basename(plain)


def jobs_in(folder: Path, files: dict[str, bytes]) -> int:
    """How many jobs a database has that stands like this when the machine is up again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with closing(sqlite3.connect(folder / "jobs.db")) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (count,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
        return int(count)


def replay(folder: Path, durability: str) -> list[tuple[int, int]]:
    """(jobs acknowledged, jobs found) after cuts at many moments, in each way."""
    store = open_store(f"sqlite:///{folder}/jobs.db")
    store.open()
    store.close()
    disk = Disk({"jobs.db": (folder / "jobs.db").read_bytes()}, {"jobs.db": []})
    chance = random.Random(5)
    found = []
    for call, name, rest in traced(folder, durability):
        # Behind each acknowledgement, which is where a job could be missing, and here and there.
        if disk.note(call, name, rest) and (name == "acks" or chance.random() < OTHER_MOMENTS):
            found += [
                (disk.acknowledged, jobs_in(folder / "again", files))
                for files in disk.after_a_cut(chance)
            ]
    assert disk.acknowledged == JOBS
    return found


def test_an_acknowledged_job_survives_a_power_cut(tmp_path: Path) -> None:
    found = replay(tmp_path, "full")
    assert [pair for pair in found if pair[1] < pair[0]] == []
    assert max(found) == (JOBS, JOBS)


def test_what_a_turn_writes_may_be_lost_in_a_power_cut_and_nothing_is_torn(tmp_path: Path) -> None:
    found = replay(tmp_path, "normal")
    # Were none lost, the test would not see what a disk does.
    assert [pair for pair in found if pair[1] < pair[0]] != []
