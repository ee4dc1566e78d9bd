"""Limits on PostgreSQL, where several transactions go on at once: the order of locks and looks is not free.

Each race is played twice: as the functions `place` and `admit` are, and in the wrong order, which goes wrong.
A count "in the same statement as the lock" is made by a transaction that reads all its statements from one
snapshot, the one of before the lock; locks that are waited for in both halves of a turn by a `place` without
its SKIP LOCKED.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from jobvisor.jobs.errors import JobsError, RowRefused, StoreUnavailable
from jobvisor.jobs.job import Terms
from jobvisor.jobs.limit import limit_of
from jobvisor.jobs.store import Life, Record
from jobvisor.jobs.store.base import Rest, Whom
from jobvisor.jobs.store.limiting import BACK, PLACED, WAITS, Placed, Seats
from jobvisor.jobs.store.postgres import PostgresStore
from tests.store.database import PostgresDatabase
from tests.store.making import enqueue, life, record
from tests.waiting import eventually

ONE_SNAPSHOT = b"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


def opened(database: PostgresDatabase) -> PostgresStore:
    store = database.open()
    assert isinstance(store, PostgresStore)
    return store


def limited(store: PostgresStore, key: str, queue: str = "default") -> int:
    return enqueue(store, queue=queue, terms=Terms(limit_key=key))


def claim(store: PostgresStore, who: Life, number: int, queue: str = "default") -> list[int]:
    """The claim of a turn, without what follows it."""
    store._open((queue,))
    rows = store._claim(who.owner, number, queue, 1, whom=Whom.ANYBODY, careful=False, tell=False)
    return [row[0] for row in rows]


def place(store: PostgresStore, who: Life, number: int) -> list[int]:
    """And what follows: the fates of what was claimed."""
    return [each.fate for each in store._place(who.owner, number, Seats(1, 1))]


def run_one(store: PostgresStore, key: str, queue: str) -> tuple[Life, Record]:
    """A job of this key that runs, with its record."""
    who = life()
    limited(store, key, queue)
    (job,) = store.turn(who, 1, queues=[queue], limit=1).jobs
    assert job.place == 0
    return who, record(who, 1, job)


class Apart(threading.Thread):
    """What a store does in a thread of its own; its error is told by `ended`."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act
        self._error: JobsError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._act()
        except JobsError as error:
            self._error = error

    def ended(self) -> JobsError | None:
        self.join(30)
        assert not self.is_alive()
        return self._error


# -- count against lock


def claims_and_another_is_quicker(database: PostgresDatabase, second: PostgresStore) -> list[int]:
    """Two claim at once under one place; what the second of them finds when it counts."""
    first = opened(database)
    first.set_limit(limit_of("one", concurrency=1))
    who, ended = run_one(first, "one", "default")
    first.apply([ended], who)
    limited(first, "one")
    limited(first, "one")
    quick, slow = life(), life()
    with second.transaction():
        assert claim(second, slow, 1)
        assert first.turn(quick, 1, queues=["default"], limit=1).jobs[0].place == 0
        return place(second, slow, 1)


def test_a_count_is_made_after_the_lock(database: PostgresDatabase) -> None:
    assert claims_and_another_is_quicker(database, opened(database)) == [WAITS]


def test_a_count_of_before_the_lock_is_wrong_and_refused_by_the_index(
    database: PostgresDatabase,
) -> None:
    second = opened(database)
    second._connected().execute(ONE_SNAPSHOT)
    with pytest.raises(RowRefused, match="jobs_places"):
        claims_and_another_is_quicker(database, second)


GATE = 4711
LOCK = "SELECT array_agg(locked.key) INTO held"
COUNT = 'room := "{schema}".room(asked, me, mine);'


def changed(database: PostgresDatabase, name: str, *changes: tuple[str, str]) -> None:
    """Another text of one of the functions: each of these is replaced, and there once."""
    ((text,),) = database.sql(f"SELECT pg_get_functiondef('{database.schema}.{name}'::regproc)")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    database.sql(text)


def one_is_quicker_before_the_lock(database: PostgresDatabase, slow: Life) -> list[int]:
    """`place` is on its way to the lock when another one takes the last place: what it finds then."""
    first, second = opened(database), opened(database)
    first.set_limit(limit_of("one", concurrency=1))
    who, ended = run_one(first, "one", "default")
    first.apply([ended], who)
    limited(first, "one")
    limited(first, "one")
    found: list[int] = []

    def act() -> None:
        with second.transaction():
            assert claim(second, slow, 1)
            found.extend(place(second, slow, 1))

    with psycopg.connect(database.url, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", [GATE])
        thread = Apart(act)
        eventually(lambda: database.sql(WAITING) != [(0,)], what="it has come to the gate")
        assert first.turn(life(), 1, queues=["default"], limit=1).jobs[0].place == 0
    assert thread.ended() is None
    return found


def gate(slow: Life) -> str:
    return f"IF me = {slow.owner} THEN PERFORM pg_advisory_xact_lock({GATE}); END IF;\n"


def test_who_comes_to_the_lock_after_another_counts_what_that_has_taken(
    database: PostgresDatabase,
) -> None:
    opened(database)
    slow = life()
    changed(database, "place", (LOCK, gate(slow) + LOCK))
    assert one_is_quicker_before_the_lock(database, slow) == [WAITS]


def test_who_counts_before_it_comes_to_the_lock_finds_a_place_that_is_taken(
    database: PostgresDatabase,
) -> None:
    opened(database)
    slow, count = life(), COUNT.format(schema=database.schema)
    early = count.replace("asked", "keys[1]")
    changed(database, "place", (LOCK, early + gate(slow) + LOCK), (count, ""))
    assert one_is_quicker_before_the_lock(database, slow) == [BACK]  # there is no number for it


# -- the keys of both halves of a turn


def turns_cross(database: PostgresDatabase) -> tuple[list[list[int]], list[JobsError | None]]:
    """Each of two settles a job of one key, and claims one of the other's: what it found."""
    stores = [opened(database), opened(database)]
    for key in ("a", "z"):
        stores[0].set_limit(limit_of(key, concurrency=1))
    ran = [run_one(stores[0], key, key) for key in ("a", "z")]
    for key in ("a", "z"):
        limited(stores[0], key, key)
    met, fates = threading.Barrier(2), [[], []]  # type: ignore[var-annotated]

    def act(nth: int) -> None:
        try:
            cross(nth)
        except JobsError:
            met.abort()  # the other one need not wait
            raise

    def cross(nth: int) -> None:
        store, (who, ended), other = stores[nth], ran[nth], "az"[1 - nth]
        with store.transaction():
            store.apply([ended], who)
            store._admit_freed()
            met.wait(30)
            assert claim(store, who, 2, other)
            fates[nth] = place(store, who, 2)
            with suppress(threading.BrokenBarrierError):
                met.wait(30)

    threads = [Apart(lambda nth=nth: act(nth)) for nth in (0, 1)]  # type: ignore[misc]
    return fates, [each.ended() for each in threads]


def test_a_key_that_another_turn_holds_is_passed_over(database: PostgresDatabase) -> None:
    fates, errors = turns_cross(database)
    assert errors == [None, None]
    assert fates == [[BACK], [BACK]]
    store = opened(database)
    assert [job.place for job in store.turn(life(), 1, queues=["a", "z"], limit=9).jobs] == [0, 0]


def test_keys_that_both_halves_of_a_turn_wait_for_are_a_deadlock(
    database: PostgresDatabase,
) -> None:
    changed(database, "place", ("FOR UPDATE SKIP LOCKED", "FOR UPDATE"))
    _fates, errors = turns_cross(database)
    assert any(isinstance(error, StoreUnavailable) for error in errors)


def test_a_recall_waits_for_no_key_of_what_goes_on(database: PostgresDatabase) -> None:
    first, second = opened(database), opened(database)
    first.set_limit(limit_of("one", concurrency=2))
    for _ in range(2):
        limited(first, "one")
    who = life()
    jobs = first.turn(who, 1, queues=["default"], limit=2, lanes=2).jobs
    held = Rest(held=tuple(job.id for job in jobs))
    with second.transaction():
        second._admit(["one"], waits=True)
        first.turn(
            who, 2, queues=["default"], limit=0, rest=held
        )  # else until its patience is over
    assert [first.get(job.id).state for job in jobs] == ["running", "running"]


# -- candidates against admission


def parks_while_another_settles(database: PostgresDatabase, settles: PostgresStore) -> str:
    """The last candidate is being parked while the run ends that holds the place: its state then."""
    claims = opened(database)
    claims.set_limit(limit_of("one", concurrency=1))
    who, ended = run_one(claims, "one", "default")
    candidate = limited(claims, "one")
    other = life()
    with claims.transaction():
        assert claim(claims, other, 1) == [candidate]
        assert place(claims, other, 1) == [WAITS]
        settling = Apart(lambda: settles.apply([ended], who))
        eventually(lambda: database.sql(WAITING) != [(0,)], what="it waits for the key")
    assert settling.ended() is None
    assert claims.get(candidate).parked in (None, "limit:one")
    return claims.get(candidate).state.value


def test_who_are_candidates_is_asked_after_the_lock(database: PostgresDatabase) -> None:
    assert parks_while_another_settles(database, opened(database)) == "pending"


def test_candidates_of_before_the_lock_leave_a_job_behind_which_the_net_finds(
    database: PostgresDatabase,
) -> None:
    settles = opened(database)
    settles._connected().execute(ONE_SNAPSHOT)
    assert parks_while_another_settles(database, settles) == "blocked"
    store = opened(database)
    assert store.admit() is None
    assert store.turn(life(), 1, queues=["default"], limit=1).jobs[0].place == 0


def test_who_asks_before_the_lock_whether_anybody_waits_leaves_a_job_behind(
    database: PostgresDatabase,
) -> None:
    settles = opened(database)
    waits = f"FROM {database.schema}.jobs WHERE state = 'blocked' AND parked = 'limit:' || asked[1]"
    early = f"is_left := EXISTS (SELECT 1 {waits});\n"
    late = "IF NOT is_left THEN RETURN; END IF;\n"
    each = "FOREACH one IN ARRAY"
    changed(database, "admit", ("IF waits THEN", f"{early}IF waits THEN"), (each, late + each))
    assert parks_while_another_settles(database, settles) == "blocked"


# -- the time of a statement that has waited for a key


def test_who_comes_with_an_older_time_gives_nothing_back_of_a_rate(
    database: PostgresDatabase,
) -> None:
    store = opened(database)
    store.set_limit(limit_of("api", rate="10/1s", burst=3))
    for _ in range(9):
        limited(store, "api")

    def starts() -> int:
        return len(store.turn(life(), 1, queues=["default"], limit=9).jobs)

    assert starts() == 3
    database.clock.move(-2_000)  # it has waited since
    store._admit(["api"], waits=True)
    assert starts() == 0
    database.clock.move(2_000)
    assert starts() == 0
    database.clock.move(100)
    assert starts() == 1


# -- two that meet a key for the first time


def test_two_that_make_the_same_keys_wait_for_each_other_and_go_on(
    database: PostgresDatabase,
) -> None:
    first, second = opened(database), opened(database)
    first.set_limit(limit_of("new", concurrency=1))
    limited(first, "new", "a")
    limited(first, "new", "b")
    one, two, found = life(), life(), []
    with first.transaction():
        assert claim(first, one, 1, "a")
        assert place(first, one, 1) == [PLACED]

        def act() -> None:
            with second.transaction():
                assert claim(second, two, 1, "b")
                found.append(place(second, two, 1))

        thread = Apart(act)
        eventually(lambda: database.sql(WAITING) != [(0,)], what="it waits for the row to be made")
    assert thread.ended() is None
    assert found == [[WAITS]]
    assert Placed._fields[-1] == "fate"


# -- a claim behind which no place is given


def places_asked(store: PostgresStore) -> int:
    """How often this session has prepared `place`: a statement that is sent again and again is."""
    asked = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%.place(%'"
    row = store._connected().execute(asked).fetchone()
    assert row is not None
    return int(row[0])


def turns(store: PostgresStore, who: Life, number: int = 10) -> None:
    """Turns that each settle the job of the one before, and claim another."""
    journal: list[Record] = []
    for claimed in range(100, 100 + number):
        enqueue(store)
        turn = store.turn(who, claimed, queues=["default"], limit=1, journal=journal)
        journal = [record(who, claimed, turn.jobs[0])]


def registered(store: PostgresStore) -> Life:
    """A life that has entered, and has settings read."""
    who = life()
    store.turn(who, 0, queues=[], limit=0, register=True)
    return who


def test_turns_of_ordinary_jobs_ask_for_no_places(database: PostgresDatabase) -> None:
    store = opened(database)
    turns(store, registered(store))
    assert places_asked(store) == 0


def test_for_a_while_after_a_job_with_a_limit_turns_ask_for_places(
    database: PostgresDatabase,
) -> None:
    store = opened(database)
    store.set_limit(limit_of("one", concurrency=1))
    who, _ended = run_one(store, "one", "other")
    turns(store, who)
    assert places_asked(store) == 1
    database.clock.move(61_000)
    assert not store._is_placing()


@pytest.mark.parametrize("woken", [False, True])
def test_a_turn_that_meets_a_limit_unawares_is_made_anew_with_all_that_it_does(
    database: PostgresDatabase, woken: bool
) -> None:
    store = opened(database)
    store.set_limit(limit_of("one", concurrency=1))
    who = registered(store)
    ran = enqueue(store, queue="before")
    jobs = store.turn(who, 1, queues=["before"], limit=1).jobs
    plain, first, second = enqueue(store), limited(store, "one"), limited(store, "one")
    database.sql("UPDATE jobs SET special = 0 WHERE id = ?", first)  # whatever a stranger writes
    journal = [] if woken else [record(who, 1, jobs[0])]
    turn = store.turn(who, 2, queues=["default"], limit=3, lanes=3, journal=journal, woken=woken)
    assert [(job.id, job.place) for job in turn.jobs] == [(plain, None), (first, 0)]
    assert (turn.parked, turn.applied.changed) == (1, len(journal))
    assert store.get(ran).state == ("running" if woken else "succeeded")
    assert store.get(second).parked == "limit:one"
    assert [(job.attempt, job.state) for job in store.get_many([plain, first]).values()] == [
        (1, "running"), (1, "running"),
    ]  # fmt: skip


class KilledError(Exception):
    """The process has ended here."""


def test_who_dies_before_a_turn_is_made_anew_has_done_nothing_of_it(
    database: PostgresDatabase,
) -> None:
    store, other = opened(database), opened(database)
    store.set_limit(limit_of("one", concurrency=1))
    who = registered(store)
    ran = enqueue(store)
    journal = [record(who, 1, store.turn(who, 1, queues=["default"], limit=1).jobs[0])]
    plain, first = enqueue(store), limited(store, "one")

    def die() -> None:
        raise KilledError

    store.on_wait = die  # it makes a connection before the second try
    with pytest.raises(KilledError):
        store.turn(who, 2, queues=["default"], limit=3, journal=journal)
    states = [job.state for job in other.get_many([ran, plain, first]).values()]
    assert states == ["running", "pending", "pending"]
    assert other.apply(journal, who).changed == 1  # from its ledger
    jobs = other.turn(life(), 1, queues=["default"], limit=3).jobs
    assert [(job.id, job.place) for job in jobs] == [(plain, None), (first, 0)]


def test_a_turn_within_a_transaction_gives_places_at_once(database: PostgresDatabase) -> None:
    store = opened(database)
    store.set_limit(limit_of("one", concurrency=1))
    with store.transaction():
        first = limited(store, "one")
        jobs = store.turn(life(), 1, queues=["default"], limit=3).jobs
    assert [(job.id, job.place) for job in jobs] == [(first, 0)]
    assert store.get(first).place == 0
