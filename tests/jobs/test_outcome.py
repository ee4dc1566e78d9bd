"""How an attempt ended."""

from __future__ import annotations

import pickle

import pytest

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.outcome import (
    MESSAGE_MAX,
    TRACEBACK_MAX,
    VERB_CODES,
    VERB_NAMES,
    Cancelled,
    Fail,
    Failure,
    Outcome,
    Release,
    Retry,
    Snooze,
)


def caught(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301 -- raised to be caught: only so it has a traceback
    except BaseException as raised:  # noqa: BLE001 -- any error is what is tested
        return raised


@pytest.mark.parametrize(
    "raised", [Retry("5m", "later"), Retry(), Snooze("1h"), Fail("no"), Release(), Cancelled("x")]
)
def test_what_a_task_raises_survives_pickling(raised: Exception) -> None:
    copy = pickle.loads(pickle.dumps(raised))
    assert (type(copy), str(copy), vars(copy)) == (type(raised), str(raised), vars(raised))


def test_a_retry_after_nonsense_is_refused_where_it_is_raised() -> None:
    with pytest.raises(InvalidOption):
        Retry(after="soon")


def test_a_failure_names_type_message_and_traceback() -> None:
    failure = Failure.of(caught(InvalidOption("bad value")))
    assert failure.error_type == "jobvisor.jobs.errors.InvalidOption"
    assert failure.message == "bad value"
    assert "in caught" in failure.traceback


class Hostile(Exception):  # noqa: N818 -- it is the exception that is hostile
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __str__(self) -> str:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    __repr__ = __str__


@pytest.mark.parametrize(
    "answer",
    [RuntimeError(), MemoryError(), RecursionError(), SystemExit(1), KeyboardInterrupt(), 5],
)
def test_an_exception_whose_str_raises_is_described(answer: object) -> None:
    failure = Failure.of(caught(Hostile(answer)))
    assert failure.error_type.endswith("Hostile")
    assert "cannot be read" in failure.message


class Closed(Exception):  # noqa: N818 -- of some library
    @property
    def reason(self) -> str:
        raise RuntimeError("there was no answer")


def test_an_exception_whose_own_reason_raises_is_described() -> None:
    assert Failure.of(caught(Closed("shut"))).message == "shut"


def test_a_huge_message_is_cut_and_its_traceback_keeps_head_and_tail() -> None:
    failure = Failure.of(caught(ValueError("x" * 5_000_000 + "the end")))
    assert len(failure.message) == MESSAGE_MAX
    assert len(failure.traceback.encode()) <= TRACEBACK_MAX
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.endswith("the end\n")


def test_a_traceback_of_wide_characters_is_cut_between_characters() -> None:
    failure = Failure.of(caught(ValueError("\U0001f600" * 20_000)))
    assert len(failure.traceback.encode()) <= TRACEBACK_MAX
    assert "\ufffd" not in failure.traceback


def test_nul_controls_and_lone_surrogates_are_replaced() -> None:
    failure = Failure.of(caught(ValueError("a\0b\x1bc\ud800d\ne")))
    assert failure.message == "a\ufffdb\ufffdc\ufffdd\ne"
    assert "\0" not in failure.traceback
    failure.traceback.encode()


def test_an_endless_recursion_is_described() -> None:
    def down() -> None:
        down()

    try:
        down()
    except RecursionError as error:
        failure = Failure.of(error)
    assert failure.error_type == "RecursionError"
    assert len(failure.traceback.encode()) <= TRACEBACK_MAX


def test_a_cycle_of_exceptions_is_described() -> None:
    first, second = caught(ValueError("first")), caught(ValueError("second"))
    first.__cause__, second.__cause__ = second, first
    assert Failure.of(first).message == "first"


def test_a_chain_of_thousands_of_exceptions_is_described_by_its_last() -> None:
    error = ValueError("root")
    for number in range(5_000):
        later = ValueError(str(number))
        later.__context__ = error
        error = later
    assert "4999" in Failure.of(error).traceback


@pytest.mark.parametrize("result", [None, "null", '"caf\u00e9"', "x" * 100_000])
def test_a_success_is_its_result_and_nothing_else(result: str | None) -> None:
    ended = Outcome("succeed", result=result)
    assert ended.body() == (result or "").encode()
    assert Outcome.from_body("succeed", 0, ended.body()) == ended


@pytest.mark.parametrize("verb", [verb for verb in VERB_CODES if verb != "succeed"])
def test_any_other_outcome_comes_back_from_its_body(verb: str) -> None:
    failure = Failure.of(caught(ValueError("caf\u00e9\n")))
    for ended in (Outcome(verb), Outcome(verb, 500, None, failure, "expired", "retry")):
        assert Outcome.from_body(verb, ended.delay_ms, ended.body()) == ended


def test_a_body_with_keys_of_a_newer_release_is_read() -> None:
    assert Outcome.from_body("fail", 0, b'{"kind":"oom","new":1}') == Outcome("fail", kind="oom")


def test_the_worst_failure_fits_the_inline_record() -> None:
    class Worst(Exception):  # noqa: N818 -- a name for the test
        pass

    Worst.__qualname__ = "\U0001f600" * 300
    failure = Failure.of(caught(Worst('"\n\\' * 10_000)))
    assert len(Outcome("fail", failure=failure).body()) < 64 * 1024


def test_every_verb_has_one_code() -> None:
    assert {VERB_NAMES[code]: code for code in VERB_NAMES} == VERB_CODES


def raised_from(error: BaseException) -> Failure:
    """What is remembered of an error that a task raised `from` another one."""
    error.__cause__ = ConnectionError("no route")
    return Failure.of(error)


@pytest.mark.parametrize("error", [Retry(after="5m"), Retry(), Fail(), Cancelled()])
def test_what_is_raised_without_a_reason_tells_its_cause(error: BaseException) -> None:
    assert raised_from(error).summary == "ConnectionError: no route"
    assert "no route" in raised_from(error).traceback


@pytest.mark.parametrize("error", [Retry(after="5m", reason="later"), Fail("later")])
def test_what_is_raised_with_a_reason_tells_it_and_its_cause(error: BaseException) -> None:
    assert raised_from(error).summary == "later (ConnectionError: no route)"


def test_a_reason_alone_is_told_without_the_name_of_our_class() -> None:
    assert Failure.of(Fail("why")).summary == "why"
    assert Failure.of(Fail("why")).error_type == "jobvisor.Fail"
    assert Failure.of(Fail()).summary == "jobvisor.Fail"
    assert Failure.of(Retry(after=1, reason="why")).summary == "why"
    assert Failure.of(KeyError("k")).summary == "KeyError: 'k'"
