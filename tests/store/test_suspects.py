"""Claims of workers that run several jobs: suspects run among no others, and nobody else among them."""

from __future__ import annotations

import pytest

from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import Sight, Whom
from tests.store.making import STOPPED, claim, enqueue, held, life, new, record


def suspect(store: Store, company: int = 2, **values: object) -> int:
    """A job that was given back marked."""
    number = enqueue(store, **values)
    who = life()
    ids = [job.id for job in claim(store, who, queues=[str(values.get("queue", "default"))])]
    for each in ids:
        mark = STOPPED._replace(company=company if each == number else None)
        store.give_back(each, who.owner, held(store, each, who), mark)
    assert store.get(number).company == company
    return number


def taken(
    store: Store, whom: Whom, limit: int = 100, queues: tuple[str, ...] = ("default",)
) -> list[int]:
    turn = store.turn(life(), 1, queues=queues, limit=limit, whom=whom)
    return [job.id for job in turn.jobs]


def test_a_claim_of_anybody_takes_suspects_in_their_order(store: Store) -> None:
    ids = [enqueue(store), suspect(store), enqueue(store, memory_bytes=1 << 20), enqueue(store)]
    assert taken(store, Whom.ANYBODY) == ids


def test_a_claim_of_the_unsuspected_passes_over_suspects(store: Store) -> None:
    marked = [suspect(store), enqueue(store, memory_bytes=1 << 20)]
    plain = [enqueue(store) for _ in range(3)]
    assert taken(store, Whom.UNSUSPECTED, limit=2) == plain[:2]
    assert taken(store, Whom.UNSUSPECTED) == plain[2:]
    assert [store.get(job).state for job in marked] == [State.PENDING] * 2


def test_a_claim_passes_over_ten_thousand_suspects_of_a_queue_and_no_more(store: Store) -> None:
    store.enqueue([new(memory_bytes=1 << 20)] * 10_000)
    plain = [enqueue(store), enqueue(store), enqueue(store, queue="other")]
    queues = ("default", "other")
    assert taken(store, Whom.UNSUSPECTED, limit=1) == plain[:1]
    enqueue(store, memory_bytes=1 << 20)
    assert not store.look(["default"], whom=Whom.UNSUSPECTED).found
    assert taken(store, Whom.UNSUSPECTED, queues=queues) == plain[2:]
    urgent = enqueue(store, priority=1)
    assert store.look(["default"], whom=Whom.UNSUSPECTED).found
    assert taken(store, Whom.UNSUSPECTED) == [urgent]
    taken(store, Whom.SUSPECTS, limit=1)
    assert taken(store, Whom.UNSUSPECTED) == plain[1:2]


def test_a_claim_of_suspects_takes_nobody_else_and_keeps_their_order(store: Store) -> None:
    plain = enqueue(store, priority=9)
    later = suspect(store)
    first = enqueue(store, priority=5, memory_bytes=1 << 20)
    other = suspect(store, queue="other")
    assert taken(store, Whom.SUSPECTS, queues=("default", "other")) == [first, later, other]
    assert taken(store, Whom.SUSPECTS) == []
    assert store.get(plain).state is State.PENDING


def test_a_claim_of_suspects_brings_their_company(store: Store) -> None:
    suspect(store, 7)
    (job,) = store.turn(life(), 1, queues=["default"], limit=9, whom=Whom.SUSPECTS).jobs
    assert job.company == 7


@pytest.mark.parametrize("register", [True, False])
def test_a_turn_that_settles_claims_by_the_same_rule(store: Store, register: bool) -> None:
    who = life()
    enqueue(store)
    (job,) = store.turn(who, 1, queues=["default"], limit=1, register=True).jobs
    marked, plain = suspect(store), enqueue(store)
    turn = store.turn(
        who if not register else life(), 2, queues=["default"], limit=9, register=register,
        journal=[record(who, 1, job)], whom=Whom.UNSUSPECTED,
    )  # fmt: skip
    assert ([each.id for each in turn.jobs], turn.applied.changed) == ([plain], 1)
    assert store.get(marked).state is State.PENDING


@pytest.mark.parametrize(
    ("plain", "marked", "sees"),
    [
        (False, False, (False, False, False)),
        (True, False, (True, True, False)),
        (False, True, (True, False, True)),
        (True, True, (True, True, True)),
    ],
)
def test_a_look_sees_what_the_claim_of_the_same_rule_would_take(
    store: Store, plain: bool, marked: bool, sees: tuple[bool, ...]
) -> None:
    if marked:
        suspect(store)
    if plain:
        enqueue(store)
    rules = (Whom.ANYBODY, Whom.UNSUSPECTED, Whom.SUSPECTS)
    assert tuple(store.look(["default"], whom=whom).found for whom in rules) == sees
    if not sees[1]:
        assert store.look(["default"], whom=Whom.UNSUSPECTED) == Sight(False, None, False)
    assert tuple(bool(taken(store, whom, limit=1)) for whom in rules[1:]) == sees[1:]


def test_a_woken_worker_claims_by_the_same_rule(store: Store) -> None:
    who = life()
    store.turn(who, 1, queues=["default"], limit=0, register=True)

    def woken(number: int, whom: Whom) -> list[int]:
        turn = store.turn(who, number, queues=["default"], limit=9, woken=True, whom=whom)
        return [job.id for job in turn.jobs]

    marked = suspect(store)
    assert woken(2, Whom.UNSUSPECTED) == []
    plain = enqueue(store)
    assert woken(3, Whom.UNSUSPECTED) == [plain]
    assert woken(4, Whom.SUSPECTS) == [marked]


def test_the_suspects_that_wait_are_told_in_the_order_of_claims(store: Store) -> None:
    enqueue(store)
    later, first = suspect(store), suspect(store, priority=3)
    limited = enqueue(store, memory_bytes=1 << 20, queue="other")
    assert store.suspects(["default", "other"]) == [first, later, limited]
    taken(store, Whom.SUSPECTS)
    assert store.suspects(["default"]) == []
