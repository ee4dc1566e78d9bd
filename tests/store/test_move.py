"""Jobs leave one database and stand in another as they stood: every column, every attempt, every byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobvisor.jobs.errors import IllegalMove, PayloadError, UniqueTaken
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import FINISHED, UNFINISHED, State
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import AttemptRow, JobRow
from jobvisor.jobs.store.transfer import IMPORTED_AT_ONCE, IMPORTED_TEXT
from tests.clock import START_MS, MovableClock
from tests.store.database import KINDS, Database, PostgresDatabase, SqliteDatabase
from tests.store.making import (
    CRASH,
    GONE,
    STOPPED,
    claim,
    enqueue,
    held,
    job_in,
    life,
    new,
    record,
    running,
)
from tests.waiting import eventually

WAITING = sorted(UNFINISHED - {State.RUNNING})
AT_REST = [*sorted(FINISHED), *WAITING]  # a finished job is one that was claimed, while none waited


@pytest.fixture(params=KINDS)
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of another database, of each kind."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    made = KINDS[request.param](folder)
    yield made.open()
    made.close()


def exported(store: Store, *, finished: bool = True, limit: int = 3) -> list[JobRow]:
    """All pages of one snapshot."""
    rows: list[JobRow] = []
    with store.snapshot():
        while page := store.export(rows[-1].id if rows else 0, limit, finished=finished):
            rows += page
    return rows


def row(number: int = 1, **values: Any) -> JobRow:
    """A pending job as it is exported."""
    made = JobRow(
        number, "app:f", "[]", "{}", "default", 0, "pending", START_MS, 0, 4, 0, 0, None, 0, 0,
        None, None, None, 0, None, None, START_MS, None, None, None, None, None, None, '{"a": 1}', 3,
        2, 1_234, 1 << 30,
    )  # fmt: skip
    return made._replace(**values)


def run(**values: Any) -> AttemptRow:
    """One run of a job's history as it is exported."""
    made = AttemptRow(
        1, 7, 1, "error", "ValueError", "broken", "Traceback ...", "here", 42, None, None, None,
        START_MS - 20, START_MS, "at line 7", "hello", 1_234, 1 << 30,
    )  # fmt: skip
    return made._replace(**values)


def lived(store: Store, clock: MovableClock) -> None:
    """Jobs in every state that does not run, with every kind of history."""
    for state in AT_REST:
        job_in(
            store, state, queue="mail", priority=-3, unique_key=f"key {state}", policy='{"a" :1}',
            args='[1.0, "\\u0000 \\ud800", 1e400 ]', kwargs='{"a":1,"a":2}', timeout_ms=7,
            memory_bytes=2**40, expires_in_ms=9_000, attempts_max=9,
        )  # fmt: skip
        clock.move(1)
    who, job = running(store)
    store.progress(job.id, who.owner, 1, '{"done": 3, "note": "\\u00e4"}')
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, 0)
    clock.move(5)
    claim(store, who, 2)
    store.vanish(who.owner, GONE)
    claim(store, who, 3)
    store.give_back(job.id, who.owner, held(store, job.id, who, 3), STOPPED)
    (again,) = claim(store, who, 4)
    store.apply([record(who, 4, again, "retry", age_ms=2, duration_ms=1)], who)
    who, job = running(store)
    store.apply([record(who, 1, job, "snooze")], who)
    who, job = running(store)
    store.cancel(job.id)
    store.release_rest(who.owner)


# -- export


def test_pages_follow_each_other_in_the_order_of_the_ids(store: Store) -> None:
    ids = [number for number, _ in store.enqueue([new(priority=n % 3) for n in range(7)])]
    assert [told.id for told in store.export(0, 3, finished=False)] == ids[:3]
    assert [told.id for told in store.export(ids[2], 3, finished=False)] == ids[3:6]
    assert [told.id for told in store.export(ids[5], 3, finished=False)] == ids[6:]
    assert store.export(ids[6], 3, finished=False) == []


def test_finished_jobs_are_exported_where_they_are_asked_for(store: Store) -> None:
    for state in AT_REST:
        job_in(store, state)
    assert {told.state for told in exported(store, finished=False)} == set(WAITING)
    assert {told.state for told in exported(store)} == {*WAITING, *FINISHED}


@pytest.mark.parametrize("asked", [False, True], ids=["", "asked to cancel"])
def test_a_running_job_is_told_as_its_release_would_leave_it(store: Store, asked: bool) -> None:
    who, job = running(store)
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, 0)
    claim(store, who, 2)
    if asked:
        store.cancel(job.id)
    told = exported(store)
    assert (store.running(), store.get(job.id).state) == (1, State.RUNNING)
    store.release_rest(who.owner)
    assert exported(store) == told
    assert [(one.state, one.attempt) for one in told] == [("cancelled" if asked else "pending", 1)]


def test_the_running_are_counted(store: Store) -> None:
    enqueue(store)
    assert store.running() == 0
    store.enqueue([new()] * 3)
    claim(store, life(), limit=2)
    assert store.running() == 2


def test_pages_of_one_snapshot_know_nothing_of_what_others_do_meanwhile(
    database: Database,
) -> None:
    if database.alone:
        pytest.skip("one connection is all there is")
    reader, other = database.open(), database.open()
    other.enqueue([new()] * 4)
    who, job = running(other, queue="mail")
    other.rescue(job.id, who.owner, held(other, job.id, who), CRASH, 0)
    with reader.snapshot():
        first = reader.export(0, 2, finished=True)
        enqueue(other)
        other.cancel(4)
        claim(other, life(), limit=1)
        claim(other, who, 2, queues=["mail"])
        other.rescue(job.id, who.owner, held(other, job.id, who, 2), CRASH, None)
        assert reader.running() == 0
        rest = reader.export(2, 100, finished=True)
    assert [told.id for told in [*first, *rest]] == [1, 2, 3, 4, 5]
    assert {told.state for told in [*first, *rest]} == {"pending"}
    assert [len(told.attempts) for told in rest] == [0, 0, 1]
    assert len(exported(reader)) == 6


def test_a_store_goes_on_after_a_snapshot_that_ended_in_an_error(store: Store) -> None:
    with suppress(KeyError), store.snapshot():
        store.running()
        raise KeyError
    assert store.get(enqueue(store)).state is State.PENDING


# -- import


def test_what_was_imported_stands_as_it_stood(
    store: Store, clock: MovableClock, elsewhere: Store
) -> None:
    lived(store, clock)
    told = exported(store)
    assert {one.state for one in told} == {*WAITING, *FINISHED}
    assert {run.outcome for one in told for run in one.attempts} >= {
        "crash", "vanished", "stopped", "error",
    }  # fmt: skip
    assert elsewhere.import_(told) == (len(told), 0)
    assert exported(elsewhere) == told
    for one in told:
        assert elsewhere.get(one.id) == store.get(one.id)
        assert elsewhere.attempts(one.id) == store.attempts(one.id)


def test_imported_jobs_are_claimed_in_their_order_and_go_on_counting(store: Store) -> None:
    store.import_([row(3, attempt=2, claims=5), row(5, priority=1), row(9, state="blocked")])
    claimed = claim(store, life())
    assert [(job.id, job.attempt, job.claims) for job in claimed] == [(5, 1, 1), (3, 3, 6)]


def test_an_imported_job_keeps_its_moment(store: Store, clock: MovableClock) -> None:
    store.import_([row(1, state="scheduled", run_at=clock.now_ms() + 5_000)])
    clock.move(4_999)
    assert claim(store, life()) == []
    clock.move(1)
    assert [job.id for job in claim(store, life())] == [1]


@pytest.mark.parametrize("greatest", [1, 2, 7, 10**12])
def test_the_next_id_is_greater_than_all_that_were_imported(store: Store, greatest: int) -> None:
    store.import_([row(greatest)])
    assert enqueue(store) > greatest
    assert [number > greatest for number, _ in store.enqueue([new()] * 9)] == [True] * 9


def test_an_import_of_old_ids_brings_no_id_back(store: Store) -> None:
    for number in range(1, 5):
        assert enqueue(store) == number
        store.cancel(number)
    assert store.prune({State.CANCELLED: 0}, limit=10) == 4
    store.import_([row(2)])
    assert enqueue(store) == 5


def test_a_second_import_adds_nothing_and_leaves_what_went_on(
    store: Store, clock: MovableClock
) -> None:
    rows = [row(1, attempts=(run(),)), row(2), row(3)]
    assert store.import_(rows[:2]) == (2, 0)
    clock.move(9)
    who = life()
    (job, _) = claim(store, who)
    store.apply([record(who, 1, job)], who)
    before = exported(store)
    assert store.import_(rows) == (1, 2)
    assert exported(store)[:2] == before
    assert store.get(1).state is State.SUCCEEDED


@pytest.mark.parametrize("other", [{"task": "app:g"}, {"created_at": START_MS - 1}])
def test_an_id_that_another_job_has_is_named_and_nothing_imported(
    store: Store, other: dict[str, Any]
) -> None:
    store.import_([row(7, **other)])
    before = exported(store)
    with pytest.raises(IllegalMove, match=r"job 7 \(app:f\) cannot be imported: here another job"):
        store.import_(row(number) for number in range(1, IMPORTED_AT_ONCE + 10) if number > 5)
    assert exported(store) == before


def test_a_unique_key_that_is_taken_names_its_holder_and_nothing_is_imported(store: Store) -> None:
    holder = enqueue(store, unique_key="a key")
    rows = [row(50), row(60, unique_key="a key"), row(70)]
    with pytest.raises(UniqueTaken, match=f"job 60 .* job {holder} holds .* 'a key'") as caught:
        store.import_(rows)
    assert caught.value.holder == holder
    assert [job.id for job in store.find()] == [holder]
    store.cancel(holder)
    assert store.import_(rows) == (3, 0)


def test_two_jobs_of_one_unique_key_cannot_come_together(store: Store) -> None:
    with pytest.raises(UniqueTaken, match="job 2 cannot be imported: job 1 holds"):
        store.import_([row(1, unique_key="a"), row(2, unique_key="a")])
    assert store.find() == []


def test_a_finished_job_needs_no_unique_key(store: Store) -> None:
    holder = enqueue(store, unique_key="a")
    finished = row(holder + 1, unique_key="a", state="failed", finished_at=START_MS)
    assert store.import_([finished]) == (1, 0)


REFUSED: dict[str, Callable[[], JobRow]] = {
    "no attempt allowed": lambda: row(2, attempts_max=0),
    "no state": lambda: row(2, state="lost"),
    "arguments that are no JSON": lambda: row(2, args="{"),
    "the same run twice": lambda: row(2, attempts=(run(), run())),
    "a history without an end": lambda: row(2, attempts=(run(finished_at=None),)),
    "a number beyond 64 bits": lambda: row(2, owner=2**63),
    "a moment beyond the calendar": lambda: row(2, run_at=2**62),
    "an attempt beyond counting": lambda: row(2, attempt=1_000_000_001),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_a_job_that_the_database_refuses_is_named_and_nothing_imported(
    store: Store, make: Callable[[], JobRow]
) -> None:
    with pytest.raises(PayloadError, match=r"^job 2 cannot be imported: ."):
        store.import_([row(1), make(), row(3)])
    assert store.find() == []
    assert store.import_([row(1)]) == (1, 0)


# What SQLite keeps and PostgreSQL does not: a stranger's INSERT, or an error that a task raised.
FOREIGN: dict[str, Callable[[], JobRow]] = {
    "a NUL in the error": lambda: row(2, error="a\0b"),
    "a NUL in a unique key": lambda: row(2, unique_key="a\0b"),
    "a NUL in the history": lambda: row(2, attempts=(run(message="a\0b"),)),
    "a result that is no JSON": lambda: row(2, result="nothing"),
    "progress that is no JSON": lambda: row(2, progress=""),
    "a priority beyond 32 bits": lambda: row(2, priority=2**40),
    "a key too long for an index": lambda: row(
        2, unique_key="".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(9_000))
    ),
    "JSON too deep for its parser": lambda: row(2, result="[" * 100_000 + "]" * 100_000),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_one_database_keeps_and_the_other_refuses_is_named(
    tmp_path: Path, make: Callable[[], JobRow]
) -> None:
    here, there = SqliteDatabase(tmp_path), PostgresDatabase(tmp_path)
    try:
        file, server = here.open(), there.open()
        file.import_([row(1), make(), row(3)])
        with pytest.raises(PayloadError, match=r"^job 2 cannot be imported: ."):
            server.import_(exported(file))
        assert server.find() == []
        assert server.import_([row(1)]) == (1, 0)
    finally:
        here.close()
        there.close()


def test_an_error_among_the_rows_leaves_nothing_imported(store: Store) -> None:
    def broken() -> Iterator[JobRow]:
        yield from (row(number) for number in range(1, 2 * IMPORTED_AT_ONCE))
        raise KeyError

    with pytest.raises(KeyError):
        store.import_(broken())
    assert store.find() == []


def test_an_import_of_large_rows_is_done_in_parts(store: Store) -> None:
    text = json.dumps(["x" * (IMPORTED_TEXT // 3)])
    rows = [row(number, args=text) for number in range(1, 9)]
    assert store.import_(iter(rows)) == (8, 0)
    assert exported(store) == rows


def test_an_import_makes_no_events(store: Store, told: list[Event]) -> None:
    store.import_([row(1), row(2, state="failed", attempts=(run(),))])
    assert told == []


def test_an_import_wakes_a_sleeper(database: Database) -> None:
    if database.alone:
        pytest.skip("one connection is all there is")
    sleeper, other = database.open(), database.open()
    waker = sleeper.waker()
    while waker.drain() is not None:
        pass  # whoever begins to listen looks first
    assert waker.fileno() is not None
    other.import_([row(1)])
    eventually(lambda: waker.drain() is not None, what="the sleeper is woken")
    waker.close()


# -- any row at all

_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below),
    max_leaves=6,
).flatmap(
    lambda value: st.sampled_from(
        [json.dumps(value), json.dumps(value, indent=1), json.dumps(value, separators=(",", ":"))]
    )
)
_count = st.integers(0, 1_000_000_000)  # as the borders of the table have it
_long = st.integers(-(2**63), 2**63 - 1)
_moment = st.integers(-62_135_596_800_000, 253_402_300_799_999) | st.integers(
    START_MS, START_MS + 10
)
_COST = (st.none() | st.integers(0, 10**12), st.none() | st.integers(0, 2**62))

_word = _text.filter(bool)
_KEEP = st.dictionaries(st.sampled_from([*FINISHED]).map(str), st.integers(0, 10**13 - 1)).map(
    json.dumps
)
_RUN = st.builds(
    AttemptRow, _count, _long, _long, _text, *[st.none() | _text] * 4, st.none() | _long,
    st.none() | _count, st.none() | _text, st.none() | _text, st.none() | _moment, _moment,
    *[st.none() | _text] * 2, *_COST,
)  # fmt: skip
_ROW = st.builds(
    JobRow, st.just(0), _text.filter(bool), _json, _json, _text.filter(lambda t: t not in ("", "*")),
    st.integers(-(2**31), 2**31 - 1), st.sampled_from([*WAITING, *FINISHED]).map(str), _moment,
    _count, st.integers(1, 1_000_000_000), _count, _count, st.none() | _json, st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1), st.none() | _text, st.none() | _moment, st.none() | _text,
    st.integers(0, 1), st.none() | _long, st.none() | _long, _moment, *[st.none() | _moment] * 3,
    st.none() | _json, st.none() | _text, st.none() | _json,
    st.none() | _json.filter(lambda text: text.startswith("{")), st.none() | st.integers(1, 2**62),
    st.none() | st.integers(1, 32_767), *_COST,
    special=st.integers(0, 2**31 - 1), turn=st.integers(0, 2**62), limit_key=st.none() | _word,
    share=st.none() | _word, weight=st.none() | st.integers(1, 1_000), parked=st.none() | _word,
    limit_place=st.none() | st.integers(0, 2**31 - 1), debounce_ms=st.none() | st.integers(0, 10**15),
    deadline_at=st.none() | _moment, keep=st.none() | _KEEP,
    held_key=st.none(), held_until=st.none(),  # it is told only of a key that is held
    attempts=st.lists(_RUN, max_size=3, unique_by=lambda run: (run.owner, run.claim)).map(tuple),
)  # fmt: skip


def test_any_rows_stand_the_same_after_a_way_through_each_database(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("there", "back")]
    for folder in folders:
        folder.mkdir()
    doors = [SqliteDatabase(folders[0]), PostgresDatabase(tmp_path), SqliteDatabase(folders[1])]
    stores = [door.open() for door in doors]

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(rows=st.lists(_ROW, max_size=5), ids=st.permutations(range(1, 6)))
    def travel(rows: list[JobRow], ids: list[int]) -> None:
        keys: set[str | None] = set()
        told = []
        for number, one in zip(sorted(ids[: len(rows)]), rows, strict=True):
            # Only one unfinished job may have a key.
            key = None if one.unique_key in keys and one.state in WAITING else one.unique_key
            keys.add(key)
            told.append(one._replace(id=number, unique_key=key))
        for store, door in zip(stores, doors, strict=True):
            door.sql("DELETE FROM attempts")
            door.sql("DELETE FROM jobs")
            assert store.import_(told) == (len(told), 0)
            # A turn is of its own database: where no queue is fair, there is none.
            assert exported(store) == [one._replace(turn=0) for one in told]

    try:
        travel()
    finally:
        for door in doors:
            door.close()
