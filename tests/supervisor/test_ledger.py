"""The ledger: what a life wrote is what another reads, however the life ended."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobvisor.supervisor.board import Running
from jobvisor.supervisor.ledger.evidence import Read, read_ledger, read_running
from jobvisor.supervisor.ledger.layout import INLINE, OLD_SIZE, PROGRESS_MAX, SAID_ONE, plan
from jobvisor.supervisor.ledger.ledger import Entry, Header, Ledger
from jobvisor.supervisor.ledger.spares import SPARES, retire
from tests.clock import MovableClock

BOOT = "boot-1"


SIZE = plan(1).size


def header(owner: int = 11, lanes: int = 1) -> Header:
    return Header(owner, 4242, 99, 7, 3, BOOT, "database-1", "höst", lanes)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


def entry(job: int, clock: MovableClock, body: bytes = b"") -> Entry:
    return Entry(1, job, 1, 1, clock.boottime_ns(), 5, 0, body)


def found(path: str, clock: MovableClock, boot: str = BOOT, owner: int = 11) -> Read:
    told = read_ledger(path, owner, boot=boot, clock=clock)
    assert isinstance(told, Read)
    return told


def said(folder: str, owner: int = 11) -> tuple[int, str] | None:
    """The progress that a ledger shows."""
    told = read_running(os.path.join(folder, f"{owner}.3"), owner)
    return None if not told or told[0].progress is None else (told[0].job, told[0].progress)


def test_the_header_tells_whose_life_it_was(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.claimed(5)
    life.sheets[0].claimed(5)
    life.sheets[0].publish(77, 123)
    told = found(life.path, clock)
    assert told.header == header()._replace(claim=5)
    assert told.running == (Running(77, 5, deadline=123),)
    life.sheets[0].outlast()
    assert found(life.path, clock).running == (Running(77, 5),)
    life.sheets[0].withdraw()
    assert found(life.path, clock).running == ()
    life.close()


def test_a_ledger_with_one_lane_costs_no_more_than_before_and_what_its_job_says() -> None:
    assert plan(1).size == OLD_SIZE + SAID_ONE


def test_no_two_lanes_share_a_byte_of_a_ledger() -> None:
    for lanes in (1, 2, 64, 1000):
        made = plan(lanes)
        pieces = [(0, made.lane_at(0))]
        pieces += [(made.lane_at(lane), made.lane_at(lane + 1)) for lane in range(lanes)]
        pieces += [(at, at + made.said_bytes) for at in map(made.said_at, range(lanes))]
        pieces += made.journals
        assert all(end == begin for (_, end), (begin, _) in pairwise(pieces))
        assert pieces[-1][1] == made.size
        assert all(begin % 8 == 0 for begin, _ in pieces)


def test_each_lane_tells_its_own_job_claim_deadline_and_progress(
    folder: str, clock: MovableClock
) -> None:
    life = Ledger(folder, header(lanes=3), clock)
    for lane, claim in ((0, 4), (2, 5)):
        sheet = life.sheets[lane]
        sheet.claimed(claim)
        sheet.publish(70 + lane, 100 + lane)
        sheet.progress(70 + lane, b'{"done": %d}' % lane)
    assert found(life.path, clock).running == (
        Running(70, 4, 0, 100, '{"done": 0}'),
        Running(72, 5, 2, 102, '{"done": 2}'),
    )
    life.sheets[2].publish(80, 0)  # which has said nothing
    assert found(life.path, clock).running[1] == Running(80, 5, 2)
    life.close()


def test_the_file_is_this_users_alone_and_wholly_allocated(
    folder: str, clock: MovableClock
) -> None:
    life = Ledger(folder, header(), clock)
    told = os.stat(life.path)
    assert (told.st_mode & 0o777, told.st_size) == (0o600, SIZE)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert told.st_blocks * 512 >= SIZE
    life.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bodies=st.lists(st.binary(max_size=3000), max_size=20))
def test_every_record_is_read_as_it_was_written(tmp_path: Path, bodies: list[bytes]) -> None:
    clock = MovableClock()
    life = Ledger(str(tmp_path / "ledger"), header(), clock)
    life.claimed(3)
    for number, body in enumerate(bodies, 1):
        life.record(Entry(3, number, 2, 4, clock.boottime_ns(), 17, 250, body))
    records = found(life.path, clock).records
    assert [(r.owner, r.claim, r.job, r.attempt, r.verb) for r in records] == [
        (11, 3, number, 2, 4) for number in range(1, len(bodies) + 1)
    ]
    assert [r.body for r in records] == bodies
    assert {(r.duration_ms, r.delay_ms) for r in records} <= {(17, 250)}
    assert [r[:5] + r[6:] for r in records] == [r[:5] + r[6:] for r in life.journal().records]
    life.retire()


def test_a_record_without_its_tail_is_no_record(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.record(entry(1, clock, b"first"))
    life.write_body(entry(2, clock, b"second"))
    assert [record.job for record in found(life.path, clock).records] == [1]
    life.write_tail(entry(2, clock, b"second"))
    assert [record.job for record in found(life.path, clock).records] == [1, 2]
    life.close()


def test_a_damaged_record_ends_the_reading_at_what_is_sure(
    folder: str, clock: MovableClock
) -> None:
    life = Ledger(folder, header(), clock)
    for number in (1, 2, 3):
        life.record(entry(number, clock, b"0123456789"))
    life.close()
    content = bytearray(Path(life.path).read_bytes())
    second = content.index(b"0123456789", content.index(b"0123456789") + 10)
    content[second] ^= 0xFF
    Path(life.path).write_bytes(content)
    assert [record.job for record in found(life.path, clock).records] == [1]


def test_the_age_of_a_record_grows_with_time(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.record(entry(1, clock))
    clock.move(60_000)
    (record,) = found(life.path, clock).records
    assert 60_000 <= record.age_ms < 70_000
    (mine,) = life.journal().records
    assert 60_000 <= mine.age_ms < 70_000
    life.close()


def test_records_of_another_boot_have_no_age(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.record(entry(1, clock))
    clock.move(60_000)
    (record,) = found(life.path, clock, boot="boot-2").records
    assert record.age_ms == 0
    life.close()


def test_settling_empties_the_journal(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.claimed(1)
    life.record(entry(1, clock, b"a longer body than the next one"))
    life.settled(life.journal())
    life.claimed(2)
    assert (found(life.path, clock).records, life.journal().records) == ([], [])
    life.record(entry(2, clock, b"short")._replace(claim=2))
    assert [(r.claim, r.job) for r in found(life.path, clock).records] == [(2, 2)]
    life.close()


def test_what_is_recorded_while_the_journal_is_settled_is_kept(
    folder: str, clock: MovableClock
) -> None:
    life = Ledger(folder, header(), clock)
    life.record(entry(1, clock, b"before"))
    settling = life.journal()
    life.record(entry(2, clock, b"during"))
    life.settled(settling)
    assert [r.job for r in found(life.path, clock).records] == [2]
    life.record(entry(3, clock, b"after")._replace(claim=2))
    assert [(r.claim, r.job) for r in found(life.path, clock).records] == [(1, 2), (2, 3)]
    life.settled(life.journal())
    assert found(life.path, clock).records == []
    life.record(entry(4, clock, b"again from the start"))
    assert [r.job for r in found(life.path, clock).records] == [4]
    life.close()


def test_there_is_room_until_the_largest_inline_record_would_not_fit(
    folder: str, clock: MovableClock
) -> None:
    life = Ledger(folder, header(), clock)
    written = 0
    while life.has_room():
        written += 1
        life.record(entry(written, clock, b"x" * INLINE))
    assert written == OLD_SIZE // INLINE - 1
    assert len(found(life.path, clock).records) == written
    life.close()


def test_a_spare_shows_nothing_of_the_life_before(folder: str, clock: MovableClock) -> None:
    before = Ledger(folder, header(11), clock)
    before.claimed(9)
    before.sheets[0].publish(5, 6)
    before.sheets[0].progress(5, b"{}")
    for number in range(1, 50):
        before.record(entry(number, clock, b"of the life before"))
    before.retire()
    assert os.listdir(folder) == ["spare-11.3"]
    after = Ledger(folder, header(12), clock)
    assert os.listdir(folder) == ["12.3"]
    told = found(after.path, clock, owner=12)
    assert (told.header, told.records, told.running) == (header(12), [], ())
    after.sheets[0].publish(5, 0)
    assert said(folder, 12) is None
    # The journal grows over the old bytes, and no old record shows behind the new ones.
    after.record(entry(1, clock, b"short"))
    assert [(r.owner, r.job) for r in found(after.path, clock, owner=12).records] == [(12, 1)]
    after.close()


def test_spares_are_few(folder: str, clock: MovableClock) -> None:
    lives = [Ledger(folder, header(owner), clock) for owner in range(1, SPARES + 5)]
    for life in lives:
        life.retire()
    assert len(os.listdir(folder)) == SPARES


def test_retiring_a_ledger_twice_is_quiet(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.close()
    retire(folder, life.path)
    retire(folder, life.path)
    assert os.listdir(folder) == ["spare-11.3"]


def test_a_ledger_that_cannot_be_allocated_leaves_nothing_behind(
    tmp_path: Path, clock: MovableClock
) -> None:
    (tmp_path / "ledger").write_text("no folder")
    with pytest.raises(OSError, match="ledger"):
        Ledger(str(tmp_path / "ledger"), header(), clock)
    assert os.listdir(tmp_path) == ["ledger"]


def test_progress_is_the_last_one_said_and_bounded(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    assert said(folder) is None
    sheet = life.sheets[0]
    sheet.publish(7, 0)
    sheet.progress(7, b'{"done": 1}')
    assert said(folder) == (7, '{"done": 1}')
    sheet.publish(8, 0)
    assert said(folder) is None
    sheet.progress(8, b'{"done": 2}')
    assert said(folder) == (8, '{"done": 2}')
    life.record(entry(1, clock, b"body"))
    longest = '{"note": "%s"}' % ("x" * (PROGRESS_MAX - 12))
    sheet.progress(8, longest.encode() + b" ")
    assert said(folder) == (8, '{"done": 2}')
    sheet.progress(8, longest.encode())
    assert said(folder) == (8, longest)
    assert [record.body for record in found(life.path, clock).records] == [b"body"]
    life.close()


def test_threads_that_tell_progress_at_once_tear_nothing(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    sheet = life.sheets[0]
    sheet.publish(7, 0)
    texts = [b'{"done": %d}' % 10**n for n in range(1, 60, 7)]
    stop = threading.Event()

    def tell(text: bytes) -> None:
        while not stop.is_set():
            sheet.progress(7, text)

    threads = [threading.Thread(target=tell, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    whole = [told for _ in range(2000) if (told := said(folder)) is not None]
    stop.set()
    for thread in threads:
        thread.join()
    assert {text.encode() for _, text in whole} <= set(texts)
    assert said(folder) is not None
    life.close()


def test_a_copy_of_the_process_tells_no_progress(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    sheet = life.sheets[0]
    sheet.publish(7, 0)
    assert sheet.progress(7, b'{"done": 1}') == 2
    pid = os.fork()
    if pid == 0:
        os._exit(sheet.progress(7, b'{"done": 2}'))
    assert os.waitpid(pid, 0)[1] == 0
    assert said(folder) == (7, '{"done": 1}')
    assert sheet.progress(7, b'{"done": 3}') == 4
    life.close()


@pytest.mark.parametrize("text", [b"", b'{"done": 1', b"[1]", b'{"done": "\xff"}'])
def test_progress_that_is_no_json_object_is_not_told(
    folder: str, clock: MovableClock, text: bytes
) -> None:
    life = Ledger(folder, header(), clock)
    life.sheets[0].publish(7, 0)
    life.sheets[0].progress(7, text)
    assert said(folder) is None
    life.record(entry(1, clock, b"body")._replace(progress=text))
    (record,) = found(life.path, clock).records
    assert (record.body, record.progress) == (b"body", None)
    life.close()


def test_a_record_carries_the_last_progress_of_its_job(folder: str, clock: MovableClock) -> None:
    life = Ledger(folder, header(), clock)
    life.record(entry(1, clock, b"body")._replace(progress=b'{"done": 20}'))
    life.record(entry(2, clock)._replace(progress=b'{"done": 3}'))
    told = [(b"body", '{"done": 20}'), (b"", '{"done": 3}')]
    assert [(r.body, r.progress) for r in found(life.path, clock).records] == told
    assert [(r.body, r.progress) for r in life.journal().records] == told
    life.close()


def test_what_was_recorded_survives_a_kill_of_the_writer(folder: str, clock: MovableClock) -> None:
    pid = os.fork()
    if pid == 0:
        life = Ledger(folder, header(), clock)
        life.claimed(2)
        life.record(entry(1, clock, b"kept"))
        life.sheets[0].publish(2, 0)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    told = found(os.path.join(folder, "11.3"), clock)
    assert (told.header.claim, told.running) == (2, (Running(2, 0),))
    assert [record.body for record in told.records] == [b"kept"]


@pytest.mark.parametrize("size", [0, 100, SIZE, 3 * SIZE])
def test_a_spare_that_was_never_filled_is_filled_before_its_use(
    folder: str, clock: MovableClock, size: int
) -> None:
    os.mkdir(folder)
    spare = os.path.join(folder, "spare-5")
    with open(spare, "wb") as file:
        file.truncate(size)  # of holes alone: to store into one on a full disk is a SIGBUS
    life = Ledger(folder, header(), clock)
    assert os.listdir(folder) == ["11.3"]
    told = os.stat(life.path)
    assert told.st_size == SIZE
    assert told.st_blocks * 512 >= SIZE
    life.record(entry(1, clock, b"body"))
    assert [record.body for record in found(life.path, clock).records] == [b"body"]
    life.close()


def test_a_spare_of_the_right_size_is_taken_first_then_a_larger_one(
    folder: str, clock: MovableClock
) -> None:
    os.mkdir(folder)
    for name, size in (("spare-1", 100), ("spare-2", plan(64).size), ("spare-3", SIZE)):
        with open(os.path.join(folder, name), "wb") as file:
            file.truncate(size)
    left = []
    for owner in (11, 12, 13):
        Ledger(folder, header(owner), clock).close()
        left.append({name for name in os.listdir(folder) if name.startswith("spare-")})
    assert left == [{"spare-1", "spare-2"}, {"spare-1"}, set()]
    assert {os.stat(os.path.join(folder, name)).st_size for name in os.listdir(folder)} == {SIZE}
