"""When to try again."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.retry import (
    DEFAULT,
    Asked,
    DecorrelatedJitter,
    Exponential,
    Fixed,
    Policy,
    as_policy,
    policy_for,
    policy_from_json,
    policy_json,
)

SPANS = st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)).map(sorted)
ATTEMPTS = st.one_of(st.integers(1, 100), st.integers(1, 10**9))


def stored(ms: int) -> str:
    return f"{ms}ms"


POLICIES = st.one_of(
    SPANS.flatmap(
        lambda span: st.builds(
            Exponential,
            st.just(stored(span[0])),
            st.floats(1, 1_000),
            st.just(stored(span[1])),
            jitter=st.booleans(),
        )
    ),
    SPANS.map(lambda span: DecorrelatedJitter(stored(span[0]), stored(span[1]))),
    st.integers(0, 10**9).map(lambda ms: Fixed(stored(ms))),
)


@given(POLICIES, ATTEMPTS, st.integers())
def test_a_delay_is_never_negative_and_never_above_the_cap(
    policy: Exponential | Fixed | DecorrelatedJitter, attempt: int, seed: int
) -> None:
    delay = policy.delay_ms(attempt, None, Random(seed))
    cap = policy.fixed_ms if isinstance(policy, Fixed) else policy.cap_ms
    assert 0 <= delay <= cap


@given(POLICIES)
def test_a_policy_comes_back_from_its_json(policy: Policy) -> None:
    assert policy_from_json(policy_json(policy)) == policy


@given(ATTEMPTS, st.integers())
def test_equal_jitter_keeps_at_least_half_of_the_delay(attempt: int, seed: int) -> None:
    full = Exponential(jitter=False).delay_ms(attempt)
    assert full / 2 - 1 <= Exponential().delay_ms(attempt, None, Random(seed)) <= full


@given(ATTEMPTS)
def test_without_jitter_a_later_attempt_never_waits_less(attempt: int) -> None:
    policy = Exponential(first="10ms", factor=1.5, jitter=False)
    assert policy.delay_ms(attempt) <= policy.delay_ms(attempt + 1)


def test_decorrelated_jitter_stays_above_its_first_delay() -> None:
    policy = DecorrelatedJitter("1s", "1m")
    assert all(policy.delay_ms(n, None, Random(n)) >= 1_000 for n in range(1, 200))


@given(st.text())
def test_any_stored_text_gives_a_policy(text: str) -> None:
    assert policy_from_json(text).delay_ms(1, None) is not None


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "{}",
        '{"kind":"fixed"}',
        '{"kind":"fixed","delay":"x"}',
        '{"kind":"fixed","delay":NaN}',
        '{"kind":"exponential","first":5,"cap":1,"factor":2,"jitter":true}',
        "[" * 100_000,
    ],
)
def test_a_stored_policy_that_cannot_be_read_is_the_default(text: str) -> None:
    assert policy_from_json(text) == DEFAULT


@pytest.mark.parametrize(
    ("answer", "wanted"), [(5, 5_000), ("2m", 120_000), (0.25, 250), (None, None), (0, 0)]
)
def test_a_callable_decides(answer: Any, wanted: int | None) -> None:
    assert Asked(lambda _attempt, _error: answer).delay_ms(1, ValueError()) == wanted


@pytest.mark.parametrize("answer", [-1, float("nan"), "soon", [], 10**30, True])
def test_a_callable_with_a_bad_answer_leaves_it_to_the_fallback_with_a_note(answer: Any) -> None:
    error = ValueError()
    assert Asked(lambda _attempt, _error: answer, Fixed(7)).delay_ms(1, error) == 7_000
    assert "fallback" in error.__notes__[0]


def test_a_callable_that_raises_leaves_it_to_the_fallback() -> None:
    def policy(attempt: int, error: BaseException) -> float:
        raise ZeroDivisionError

    assert Asked(policy, Fixed(7)).delay_ms(1, ValueError()) == 7_000


def test_a_callable_is_not_asked_where_there_is_no_exception() -> None:
    assert Asked(lambda _attempt, _error: 1, Fixed(7)).delay_ms(1, None) == 7_000


def test_a_stored_callable_is_its_fallback_until_the_task_brings_the_function() -> None:
    own = Asked(lambda _attempt, _error: 1, Fixed(7))
    text = policy_json(own)
    assert policy_for(text, None).delay_ms(1, ValueError()) == 7_000
    assert policy_for(text, own) is own


def test_a_policy_given_for_one_call_wins_over_the_callable_of_the_task() -> None:
    own = Asked(lambda _attempt, _error: 1)
    assert policy_for(policy_json(Fixed(9)), own) == Fixed(9)


def test_none_stands_for_the_default() -> None:
    assert as_policy(None) is DEFAULT
    assert policy_from_json(None) is DEFAULT


@pytest.mark.parametrize("value", ["soon", -1, True, object()])
def test_what_is_no_policy_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="retry="):
        as_policy(value)


@pytest.mark.parametrize("factor", [0, 0.5, -2, float("nan"), 1_001, 10**400, "2", True])
def test_a_factor_outside_its_range_is_refused(factor: Any) -> None:
    with pytest.raises(InvalidOption, match="factor"):
        Exponential(factor=factor)


def test_a_first_delay_above_the_cap_is_refused() -> None:
    with pytest.raises(InvalidOption, match="cap"):
        DecorrelatedJitter(first="2h")
