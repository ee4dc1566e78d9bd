"""PostgreSQL: the turn of a worker, and how an idle one is woken; the other verbs are in relational.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from jobvisor.jobs.errors import (
    RowRefused,
    StoreUnavailable,
)
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.audience import listed
from jobvisor.jobs.store.base import (
    NOTHING,
    Applied,
    Life,
    Record,
    Rest,
    Sight,
    Turn,
    Waker,
    Whom,
)
from jobvisor.jobs.store.fairness import RAISED_EACH_MS
from jobvisor.jobs.store.inserts import Inserts
from jobvisor.jobs.store.limiting import (
    BACK,
    KEYS_AT_ONCE,
    KEYS_LOOKED,
    PLACED,
    WAITS,
    Seats,
    fates,
)
from jobvisor.jobs.store.listening import ListenWaker
from jobvisor.jobs.store.pausing import PAUSED_MOST
from jobvisor.jobs.store.relational import PROMOTED_AT_ONCE
from jobvisor.jobs.store.rows import NO_TURNS, Changed, in_order, sight_of, with_places
from jobvisor.jobs.store.server import all_at_once, at_once
from jobvisor.jobs.store.settlement import (
    SUCCEED,
    kept_words,
    last_words,
    resting,
    settling,
    successes,
    summed,
)
from jobvisor.jobs.store.wake import PollWaker

NO_QUEUES: frozenset[str] = frozenset()
NO_SETTLING: dict[str, Any] = {
    "journal": (), "rest": None, "register": False, "forget_succeeded": False,
}  # fmt: skip
PLACES = "JV001"  # what the function `must_place` raises
DEADLOCKS_MAX = 5  # tries of a turn that another transaction stood in the way of
MEASURED_CLAIM = 50  # rows: for fewer the two looks at the clock cost more than they tell


class PostgresStore(Inserts):
    """The queue in one schema of a PostgreSQL database, for any number of machines."""

    def turn(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record] = (),
        rest: Rest | None = None,
        register: bool = False,
        forget_succeeded: bool = False,
        woken: bool = False,
        whom: Whom = Whom.ANYBODY,
        lanes: int = 1,
        batch: int | None = None,
    ) -> Turn:
        asked: dict[str, Any] = {
            "queues": queues, "limit": limit, "journal": journal, "rest": rest, "register": register,
            "forget_succeeded": forget_succeeded, "whom": whom,
            "seats": Seats(lanes, limit if batch is None else batch),
        }  # fmt: skip
        self._turning = life.owner
        if self._keys:
            self._check_keys()
        turn = self._whole_turn(life, claim, woken, asked)
        return self._without_superseded(life, claim, turn)

    def _whole_turn(
        self,
        life: Life,
        claim: int,
        woken: bool,
        asked: dict[str, Any],
    ) -> Turn:
        for left in range(DEADLOCKS_MAX, -1, -1):
            try:
                if self._depth:
                    break
                if (
                    woken
                    and self._entered == life.owner
                    and not (asked["journal"] or asked["rest"])
                ):
                    return self._turn_when_woken(
                        life,
                        claim,
                        asked["queues"],
                        asked["limit"],
                        whom=asked["whom"],
                        seats=asked["seats"],
                    )
                return self._turn_at_once(life, claim, **asked)
            except (RowRefused, OverflowError, UnicodeError) as error:
                # Of what was sent behind the refused statement psycopg may believe that it is prepared.
                self.close()
                if not _is_for_places(error):
                    break  # one row the database refuses must not block the others
                self._expect_limits()
                woken = False  # who was would take no row that was locked and let go
            except StoreUnavailable as error:
                if left == 0 or not isinstance(error.__cause__, _IN_THE_WAY):
                    raise
        with self.transaction():
            self._unlisten()
            hold = "hold_owner_alone" if asked["rest"] is not None else "hold_owner"
            known = self._entered != life.owner or self._rows(hold, {"owner": life.owner})
            asked |= {} if known else {"limit": 0}
            return self._turn(life, claim, careful=True, **asked)

    def _turn_when_woken(
        self, life: Life, claim: int, queues: Sequence[str], limit: int, *, whom: Whom, seats: Seats
    ) -> Turn:
        """A claim without a look before it, and still listening: of all who were woken few find a row.

        Where there is none that others have not taken, nothing is written: the one who has it would
        wait for the disk behind those who have nothing.
        """
        self._refuse_copy()
        self._recall_pauses()
        expected, asked_ns = self._audience.is_expected(), self.clock.boottime_ns()
        told: psycopg.Cursor[TupleRow] | None = None
        open_queues, settings = self._pauses.open(queues), self._pauses.version
        taken: psycopg.Cursor[TupleRow] | None = None
        fair, places = self._fair_among(queues), self._is_placing()
        place: psycopg.Cursor[TupleRow] | None = None
        wanted: dict[str, Any] = {
            "owner": life.owner, "claim": claim, "limit": limit, "entered": True, "woken": True,
            "places": places, "settings": settings,
        }  # fmt: skip
        jobs: list[Claimed] = []
        with self._lock, self._named_errors():
            with self._connected().pipeline():  # one transaction, which ends with it
                hold = whom.of("hold_owner_woken")
                held = self._ask(
                    hold, {"owner": life.owner, "queues": list(open_queues), "settings": settings}
                )
                claims = [
                    self._ask(whom.of("claim"), {**wanted, "queue": queue, "first": number == 0})
                    for number, queue in enumerate(open_queues)
                ]
                if places:
                    place = self._ask("place", self._claimant(life.owner, claim, seats))
                if fair:
                    taken = self._ask_turns(life.owner, claim, whom)
                if expected:
                    told = self._ask("tell_turn", {"jobs": "", "owner": life.owner, "claim": claim})
            turns = NO_TURNS if taken is None else self._told_turns(taken)
            for cursor in claims:
                jobs += in_order(cursor.fetchall(), turns)
            if told is not None:
                self._heard_of(asked_ns, told)
            if whom is not Whom.SUSPECTS:
                self._front.note(jobs, limit, 0, turns)
            parked = returned = 0
            if place is not None:
                jobs, parked, returned = self._of_places(jobs, place)
            self._asks_due = self._asks_due or bool(parked)
        if not jobs and self._is_stale(held, entered=True):
            # It has claimed nothing; what has woken it may be in a queue that was resumed.
            return self._turn_when_woken(life, claim, queues, limit, whom=whom, seats=seats)
        return Turn(self._with_deadlines(jobs), NOTHING, parked, returned)

    def look(self, queues: Sequence[str], owner: int = 0, *, whom: Whom = Whom.ANYBODY) -> Sight:
        self._recall_pauses()
        with self._lock, self._named_errors():
            while True:
                seen = self._once_more(lambda: self._look(queues, owner, whom.of("has_pending")))
                if seen is not None:
                    return seen

    def _look(self, queues: Sequence[str], owner: int, asked: str) -> Sight | None:
        """All that an idle worker asks, in one round trip: it is woken once for it.

        None where the settings were others than it knew; it knows them now.
        """
        with self._connected().pipeline():
            pending = [self._ask(asked, {"queue": queue}) for queue in self._pauses.open(queues)]
            due = self._ask("next_due", {})
            running = self._ask("owned", {"owner": owner}) if owner else None
        owned = running is not None and bool(running.fetchall()[0][0])
        found = any(cursor.fetchall()[0][0] for cursor in pending)
        due_ms, version = due.fetchall()[0]
        if version != self._pauses.version:
            learnt = self._ask("settings", {"limit": PAUSED_MOST}).fetchall()[0]
            self._pauses.learn(*learnt)
            return None
        if found:
            return Sight(True, 0, owned)
        seen = sight_of(self._sooner(due_ms, queues), owned=owned)
        # It may be due by a limit; a turn that follows no such look need not ask.
        self._asks_due = self._asks_due or seen.found
        return seen

    def _turn_at_once(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record],
        rest: Rest | None,
        register: bool,
        forget_succeeded: bool,
        whom: Whom,
        seats: Seats,
    ) -> Turn:
        """The whole turn in one round trip; a second one only where runs failed, for their history."""
        ordered = sorted(journal, key=lambda record: record.job)  # rows are locked in id order
        succeeded = [record for record in ordered if record.verb == SUCCEED]
        others = [(record, *settling(record)) for record in ordered if record.verb != SUCCEED]
        told = last_words(ordered, forget=forget_succeeded)
        # Whose places become free with it, as far as this store has claimed them.
        freed = self._keys_of(ordered) if self._keys else set()
        if rest is not None:
            freed.update(key for job, key in self._keys.items() if job not in rest.held)
        self._refuse_copy()
        if register:
            # Before the first claim, not with it: what arrives late from a life that has died and was
            # settled meanwhile is then a row of `owners`, and never a job that nobody will run.
            with self.transaction():
                self._change("add_owner", life._asdict())
                self._open(())  # or its first claim would find out that it knows too little
            self._entered = life.owner
        if limit:
            self._recall_pauses()
        entered = self._entered == life.owner
        # Told in the same round trip, before it is known what was claimed.
        expected, asked_ns = self._audience.is_expected(), self.clock.boottime_ns()
        heard: psycopg.Cursor[TupleRow] | None = None
        promote, fair, places = "", NO_QUEUES, False
        if limit:
            fair, places = self._all_fair(), self._is_placing()
            promote = _promotion(fair)
            fair = fair.intersection(queues)
        taken: psycopg.Cursor[TupleRow] | None = None
        with self.transaction():
            connection = self._connected()
            settled, released = None, None
            moved: list[psycopg.Cursor[TupleRow]] = []
            claims: list[psycopg.Cursor[TupleRow]] = []
            times: list[psycopg.Cursor[TupleRow]] = []
            version: psycopg.Cursor[TupleRow] | None = None
            place: psycopg.Cursor[TupleRow] | None = None
            with connection.pipeline():
                self._begin(connection)
                if self._listening:
                    # Nobody reads this connection while a job runs; what is not read would pile up.
                    connection.execute(b"UNLISTEN *")
                if entered:
                    hold = "hold_owner_alone" if rest is not None else "hold_owner"
                    version = self._ask(hold, {"owner": life.owner})
                elif limit:
                    version = self._ask("meta", {"key": "settings"})
                if told:
                    self._ask(*at_once("progress", told))
                if succeeded:
                    name, values = successes(succeeded, forget=forget_succeeded)
                    settled = self._ask(*all_at_once(name, values))
                    if said := kept_words(succeeded, life, forget=forget_succeeded):
                        self._ask(*at_once("keep_words", said))
                for _record, name, parameters, _outcome in others:
                    moved.append(self._ask(name, parameters))
                if rest is not None:
                    released = self._ask("release_rest", resting(life.owner, rest))
                if freed:
                    # Before the claim, which may take what it lets begin; its own rows are settled by now.
                    self._ask("admit", {"keys": sorted(freed)[:KEYS_AT_ONCE], "waits": True})
                if limit:
                    promote = f"{promote}_and_tell" if expected else promote
                    self._ask(promote, {"limit": PROMOTED_AT_ONCE})
                    if self._asks_due:
                        self._ask("admit_due", {"limit": KEYS_LOOKED})
                    measured = limit >= MEASURED_CLAIM
                    times += [connection.execute(_TIME)] if measured else []
                    for number, queue in enumerate(self._pauses.open(queues)):
                        wanted = {
                            "owner": life.owner, "claim": claim, "queue": queue, "limit": limit,
                            "first": number == 0, "entered": entered, "woken": False,
                            "places": places, "settings": self._pauses.version,
                        }  # fmt: skip
                        name, where = self._front.start(queue)
                        if whom is Whom.SUSPECTS:  # few, by an index of their own
                            name, where = "claim", {}
                        claims.append(self._ask(whom.of(name), wanted | where))
                    times += [connection.execute(_TIME)] if measured else []
                    if places:
                        place = self._ask("place", self._claimant(life.owner, claim, seats))
                    if fair:
                        taken = self._ask_turns(life.owner, claim, whom)
                ends_here = not others and rest is None
                if expected and ends_here:
                    settled_ids = listed(record.job for record in succeeded)
                    turn = {"jobs": settled_ids, "owner": life.owner, "claim": claim}
                    heard = self._ask("tell_turn", turn)
                # Else the number that its COMMIT is looked up by, should the answer be lost.
                asked = connection.execute(b"COMMIT" if ends_here else self._number)
            if ends_here:
                self._begun = False
                self._check_committed(asked)
            else:
                self._transaction_id = asked.fetchall()[0]
            lost, changed = [], 0
            for (record, _name, _parameters, outcome), cursor in zip(others, moved, strict=True):
                row = cursor.fetchone()
                if row is None:
                    lost.append(record)
                else:
                    changed += 1
                    self._settled(record, life, outcome, Changed._make(row))
            for row in released.fetchall() if released is not None else ():
                self._moved("release", row[0], Changed._make(row[1:]))
            self._freed -= freed
            self._holds_keys = True
            jobs: list[Claimed] = []
            turns = NO_TURNS if taken is None else self._told_turns(taken)
            for cursor in claims:
                jobs += in_order(cursor.fetchall(), turns)
            if heard is not None:
                self._heard_of(asked_ns, heard)
            elif not ends_here:
                self._audience.note_all(record.job for record in succeeded)
                self._audience.note_all(job.id for job in jobs)
            if limit and whom is not Whom.SUSPECTS:
                begun, ended_at = (cursor.fetchall()[0][0] for cursor in times) if times else (0, 0)
                self._front.note(jobs, limit, (ended_at - begun) * 1000, turns)
            parked = returned = 0
            if place is not None:
                jobs, parked, returned = self._of_places(jobs, place)
        self._listening = self._heard = False
        # Who was given a row knows the settings.
        stale = limit > 0 and not jobs and self._is_stale(version, entered=entered)
        if self._keys:
            self._forget_keys(ordered, rest, jobs)
        self._asks_due = bool(self._keys or parked)
        applied = Applied(changed, self._lost(lost) if lost else [], [])
        if settled is not None:
            applied = summed(applied, Applied(settled.rowcount, [], []))
            if settled.rowcount < len(succeeded):
                applied = summed(applied, self._missed(succeeded, life, forget_succeeded))
        if not journal:
            applied = NOTHING
        if stale:
            # It knew other settings than there are, and so was given no row: it may use its number again.
            again = {**NO_SETTLING, "queues": queues, "limit": limit, "whom": whom, "seats": seats}
            return self._turn_at_once(life, claim, **again)._replace(applied=applied)
        return Turn(self._with_deadlines(jobs), applied, parked, returned)

    def _is_stale(self, version: psycopg.Cursor[TupleRow] | None, *, entered: bool) -> bool:
        """Whether the settings were others than it knew; it knows them now.

        One that has entered and gets no row is gone; to another that says that nothing was ever set.
        """
        row = None if version is None else version.fetchone()
        if row is None:
            return not entered and self._note_version(None)
        return self._note_version(row[0])

    def _of_places(
        self, jobs: list[Claimed], place: psycopg.Cursor[TupleRow]
    ) -> tuple[list[Claimed], int, int]:
        """Of what was claimed what may run, with its places; how many wait, and how many are put back."""
        placed = self._note_placed(place.fetchall())
        if not placed:
            return jobs, 0, 0
        out = {each.job for each in placed if each.fate != PLACED}
        kept = with_places([job for job in jobs if job.id not in out], self._noted(placed))
        return kept, fates(placed, WAITS), fates(placed, BACK)

    def _promotion(self) -> str:
        return _promotion(self._all_fair())

    def _ask_turns(self, owner: int, claim: int, whom: Whom) -> psycopg.Cursor[TupleRow]:
        """The turns of what was just claimed, by id; the marks are raised to them."""
        if self._may_raise(whom):
            self._ask("raise_turns", {"owner": owner, "claim": claim, "each": RAISED_EACH_MS})
        return self._ask("take_turns", {"owner": owner, "claim": claim})

    def _told_turns(self, taken: psycopg.Cursor[TupleRow]) -> Mapping[int, int]:
        turns: Mapping[int, int] = dict(taken.fetchall())
        if not turns:
            self._raised_ns = None  # nothing was claimed, and so no mark raised
        return turns

    def _missed(self, succeeded: list[Record], life: Life, forget: bool) -> Applied:
        """What becomes of successes of which some have changed nothing: they came late, or are to be kept."""
        if not forget:
            return Applied(0, self._lost(succeeded), [])
        # In a transaction of its own. Whoever dies before it has the records in the ledger still.
        with self.transaction():
            return self._succeed(succeeded, life, True)

    # -- waking

    def waker(self) -> Waker:
        return ListenWaker(self)

    def watcher(self) -> Waker:
        return PollWaker()  # a NOTIFY tells of rows to claim, not of those that ended

    def listen(self) -> bool:
        """Begin to listen, where that is possible and not yet so; whether it was begun."""
        if self.listens() or not self._notify:
            return False
        with self._lock, self._named_errors():
            self._connected()
            if self.pooled:
                return False
            self._once_more(self._listen)
        return True

    def _listen(self) -> None:
        self._connected().execute(self._worded("LISTEN {listened}").encode())
        self._listening = True

    def _unlisten(self) -> None:
        if self.listens():
            self._bare(b"UNLISTEN *")
            self._listening = self._heard = False

    def heard(self) -> bool:
        """Whether a NOTIFY has come since this was last asked."""
        connection = self._connection
        if connection is not None and not connection.closed:
            try:
                connection.pgconn.consume_input()
                while connection.pgconn.notifies() is not None:
                    self._heard = True
            except psycopg.OperationalError:
                connection.close()
                return True  # the next look finds out what is the matter
        heard, self._heard = self._heard, False
        return heard

    # -- upkeep

    def checkpoint(self) -> None:
        """Autovacuum and the checkpointer are the server's own."""


def _promotion(fair: Collection[str]) -> str:
    return "promote_fair" if fair else "promote"


def _is_for_places(error: Exception) -> bool:
    """Whether a claim was refused because it is to be made with `place`."""
    return isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate == PLACES


_IN_THE_WAY = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

_TIME = b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
