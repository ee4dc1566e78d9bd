"""What a worker with several lanes holds, and what it gives back: named, never all of it."""

from __future__ import annotations

from collections.abc import Iterable

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store import Record, Rest
from jobvisor.jobs.store.base import ALL
from jobvisor.supervisor.several.backlog import Backlog, Claim
from tests.supervisor.yard import job


def claimed(backlog: Backlog, number: int, ids: Iterable[int]) -> tuple[Claim, list[Claimed]]:
    jobs = [job(each, "f") for each in ids]
    claim = Claim(number, 0, jobs)
    backlog.asked(number)
    backlog.add(claim, [(each, claim, False) for each in jobs])
    return claim, jobs


def record(claim: int, number: int) -> Record:
    return Record(1, claim, number, 1, 1, 0, 0, 0, b"")


def test_a_claim_that_is_held_owes_nothing() -> None:
    backlog = Backlog()
    claimed(backlog, 1, [1, 2])
    assert (backlog.owes(), backlog.rest(), backlog.holds()) == (False, None, True)


def test_a_turn_whose_answer_was_lost_gives_back_its_claim_alone() -> None:
    backlog = Backlog()
    claimed(backlog, 1, [1, 2])
    backlog.asked(2)
    rest = backlog.rest()
    assert rest == Rest((2,), ())
    backlog.asked(3)  # the turn that gives it back is lost, too
    assert backlog.rest() == Rest((2, 3), ())
    claimed(backlog, 4, [7])
    backlog.released(Rest((2, 3), ()))
    assert (backlog.owes(), backlog.holds()) == (False, True)


def test_a_withdrawal_gives_back_the_rows_it_names_and_keeps_the_others_of_their_claim() -> None:
    backlog = Backlog()
    first, jobs = claimed(backlog, 1, [1, 2, 3, 4])
    claimed(backlog, 2, [5, 6])
    backlog.withdrew(jobs[1], first)
    backlog.settled([record(1, 3)])
    rest = backlog.rest()
    assert rest is not None
    assert (rest.claims, set(rest.held)) == ((1,), {1, 4})
    backlog.withdrew(jobs[0], first)  # while that turn goes on
    backlog.released(rest)
    rest = backlog.rest()
    assert rest is not None
    assert (rest.claims, rest.held) == ((1,), (4,))


def test_what_has_not_begun_is_given_back_in_one_go_and_taken_counts_the_rest() -> None:
    backlog = Backlog()
    claimed(backlog, 1, range(1, 6))
    backlog.waiting.popleft()
    backlog.give_back()
    rest = backlog.rest()
    assert rest is not None
    assert (rest.claims, rest.held, backlog.taken, len(backlog.waiting)) == ((1,), (1,), 1, 0)


def test_a_claim_is_forgotten_when_its_last_job_is_settled() -> None:
    backlog = Backlog()
    claimed(backlog, 1, [1, 2])
    backlog.settled([record(1, 1)])
    assert backlog.holds()
    backlog.settled([record(1, 2), record(9, 9)])
    assert not backlog.holds()


def test_who_holds_nothing_may_give_back_all() -> None:
    backlog = Backlog()
    backlog.release_all()
    rest = backlog.rest()
    assert rest is ALL
    backlog.released(rest)
    assert not backlog.owes()
