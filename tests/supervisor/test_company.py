"""Who runs beside whom in a worker with several lanes: decided by what is held and what a claim brings."""

from __future__ import annotations

import random

import pytest

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.base import Whom
from jobvisor.supervisor.running.company import Company, company_of
from tests.supervisor.yard import job

LANES = 50


def jobs(*companies: int | None) -> list[Claimed]:
    """A claim of jobs, numbered from 1, each with this company; 0 is a memory limit."""
    return [
        job(number, "f")._replace(
            company=company or None, memory_bytes=1 << 20 if company == 0 else 0
        )
        for number, company in enumerate(companies, 1)
    ]


def back(company: Company, held: int, *claimed: int | None) -> list[int]:
    """Whom of a claim that is made now the worker gives back."""
    company.ask(held)
    return [each.id for each in company.misfits(jobs(*claimed))]


def test_a_worker_that_holds_none_takes_anybody_and_one_that_holds_some_no_suspect() -> None:
    company = Company(LANES)
    assert company.ask(0) is Whom.ANYBODY
    assert company.misfits(jobs(None, None)) == []
    assert company.ask(2) is Whom.UNSUSPECTED
    assert company.limit(80, 48, 2) == 80
    assert company.misfits(jobs(None, None)) == []


def test_suspects_behind_others_are_given_back() -> None:
    assert back(Company(LANES), 0, None, 25, None, 0, None) == [2, 4]


def test_a_suspect_that_comes_first_makes_a_quarantine_until_the_worker_holds_none() -> None:
    company = Company(LANES)
    assert back(company, 0, 3, None, 5, None) == [2, 4]
    assert company.ask(2) is Whom.SUSPECTS
    assert company.limit(80, 48, 2) == 1, "none ahead, and no more than may be together"
    assert company.misfits(jobs(9)) == []
    assert company.limit(80, 47, 3) == 0
    assert company.must_look_again()
    assert company.ask(0) is Whom.ANYBODY
    assert not company.must_look_again()


def test_the_least_company_counts_and_whom_it_keeps_out_is_not_overtaken() -> None:
    company = Company(LANES)
    assert back(company, 0, 25, 25, 2, 25) == [3, 4]
    assert company.ask(2) is Whom.SUSPECTS
    assert company.limit(80, 48, 2) == 0
    assert back(company, 0, 2, 25, 25, 25) == [3, 4]


@pytest.mark.parametrize("alone", [0, 1])
def test_a_memory_limit_or_a_company_of_one_is_alone(alone: int) -> None:
    company = Company(LANES)
    assert back(company, 0, alone, 25, None) == [2, 3]
    assert company.limit(80, 49, 1) == 0


def test_an_added_quarantine_claims_suspects_alone() -> None:
    company = Company(LANES, quarantine=True)
    assert company.ask(0) is Whom.SUSPECTS
    assert company.limit(80, LANES, 0) == LANES
    assert company.misfits(jobs(25, 1)) == jobs(25, 1)[1:]
    assert company.ask(1) is Whom.SUSPECTS
    assert company.ask(0) is Whom.SUSPECTS


@pytest.mark.parametrize("added", [False, True])
def test_of_a_row_of_suspects_no_more_are_claimed_than_may_be_together(added: bool) -> None:
    company = Company(LANES, quarantine=added)
    assert company.limit(80, LANES, 0) >= LANES
    assert back(company, 0, 25, *[0] * 49) == list(range(2, 51))
    assert company.limit(80, LANES, 0) == 25
    assert back(company, 0, *[0] * 25) == list(range(2, 26))
    assert company.limit(80, LANES, 0) == 1
    assert back(company, 0, 2) == []
    assert company.limit(80, 49, 1) == 1, "another of them beside it"
    assert company.limit(80, LANES, 0) == 2


def test_what_comes_first_and_is_no_suspect_ends_that() -> None:
    company = Company(LANES)
    assert back(company, 0, 0) == []
    assert company.limit(80, LANES, 0) == 1
    assert back(company, 0, None) == []
    assert (company.limit(80, 49, 1), company.limit(80, LANES, 0)) == (80, 80)


def test_whatever_is_claimed_and_ends_no_suspect_meets_another_kind_or_too_many() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        company, held = Company(LANES), dict[int, int | None]()
        for _ in range(60):
            for ended in chance.sample(sorted(held), chance.randint(0, len(held))):
                del held[ended]
            limit = company.limit(60, LANES - len(held), len(held))
            whom = company.ask(len(held))
            kinds: list[int | None] = [None] if whom is Whom.UNSUSPECTED else [1, 2, 5, 25]
            kinds += [None] if whom is Whom.ANYBODY else []
            claimed = jobs(*chance.choices(kinds, k=chance.randint(0, max(limit, 0))))
            out = company.misfits(claimed)
            assert not claimed or held or len(out) < len(claimed), "somebody begins"
            fit = [each for each in claimed if each not in out]
            held |= {chance.getrandbits(60): company_of(each) for each in fit}
            least = min((each for each in held.values() if each), default=None)
            assert least is None or (None not in held.values() and len(held) <= least)
