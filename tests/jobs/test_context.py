"""What a running task may ask."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from typing import Any

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.context import NOTE_MAX, PROGRESS_MAX, Context, Nobody
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.headers import NONE
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import Cancelled, Release
from jobvisor.jobs.running import Place
from jobvisor.supervisor.ledger.layout import PROGRESS_MAX as LEDGER_MAX
from tests.clock import START_MS, MovableClock


class Family:
    """The port of a worker whose family has asked for something."""

    def __init__(self, *, cancelled: bool = False, stopping: bool = False) -> None:
        self.told: list[Any] = []
        self.asked = (cancelled, stopping)

    def progress(self, _job: int, text: str, /) -> None:
        self.told.append(json.loads(text))

    def cancelled(self, _job: int, /) -> bool:
        return self.asked[0]

    def stopping(self) -> bool:
        return self.asked[1]


def context(port: Family | Nobody | None = None, **values: Any) -> Context:
    job = Claimed(7, "app:f", "[]", "{}", 2, 4, 2, None, 0, 0, None, "mail", 0)
    place = Place("worker 3", values.get("clock", MovableClock()), state=values.get("state", {}))
    return Context(job, NONE, values.get("ends_ns", 0), port or Nobody(), place)


def test_a_context_tells_which_run_of_which_job_it_is() -> None:
    asked = context()
    assert (asked.job, asked.task, asked.queue) == (7, "app:f", "mail")
    assert (asked.attempt, asked.attempts_max, asked.worker) == (2, 4, "worker 3")


def test_a_run_without_timeout_has_no_deadline() -> None:
    assert (context().deadline, context().remaining) == (None, None)


def test_a_deadline_is_told_by_both_clocks() -> None:
    clock = MovableClock()
    asked = context(clock=clock, ends_ns=clock.monotonic_ns() + 30_000_000_000)
    clock.move(10_000)
    assert asked.remaining is not None
    assert asked.deadline is not None
    assert 19 < asked.remaining <= 20
    assert abs((asked.deadline - to_datetime(START_MS + 30_000)).total_seconds()) < 1


def test_a_deadline_that_has_passed_leaves_no_time() -> None:
    clock = MovableClock()
    assert context(clock=clock, ends_ns=clock.monotonic_ns() - 1).remaining == 0.0


@pytest.mark.parametrize("asked", ["cancelled", "stopping"])
def test_a_context_tells_what_its_family_asks(asked: str) -> None:
    other = "stopping" if asked == "cancelled" else "cancelled"
    told = context(Family(**{asked: True}))
    assert getattr(told, asked) is True
    assert getattr(told, other) is False


def test_a_check_without_a_wish_lets_the_task_go_on() -> None:
    context(Family()).check()
    context(Nobody()).check()


def test_a_check_ends_a_cancelled_run_and_releases_a_stopping_one() -> None:
    with pytest.raises(Cancelled, match="asked to end"):
        context(Family(cancelled=True)).check()
    with pytest.raises(Release):
        context(Family(stopping=True)).check()
    with pytest.raises(Cancelled):
        context(Family(cancelled=True, stopping=True)).check()


def test_progress_is_told_with_what_was_given() -> None:
    family = Family()
    asked = context(family)
    asked.progress(3)
    asked.progress(0.5, total=10, note="page 3 “ü”")
    assert family.told == [{"done": 3}, {"done": 0.5, "total": 10, "note": "page 3 “ü”"}]


def test_a_long_note_is_cut() -> None:
    family = Family()
    context(family).progress(1, note="x" * 10_000)
    assert family.told == [{"done": 1, "note": "x" * NOTE_MAX}]


@pytest.mark.parametrize("text", ["ü", "€", "\N{PERFORMING ARTS}", "\n", "\x01", "\ud800"])
def test_a_note_is_cut_until_its_bytes_fit_the_ledger(text: str) -> None:
    class Strict(Family):
        def progress(self, _job: int, text: str, /) -> None:
            assert len(text.encode()) <= PROGRESS_MAX <= LEDGER_MAX
            super().progress(_job, text)

    family = Strict()
    context(family).progress(123456, total=1e300, note=text * NOTE_MAX)
    (told,) = family.told
    assert (told["done"], told["total"]) == (123456, 1e300)
    assert 30 <= len(told["note"]) <= NOTE_MAX
    assert {*told["note"]} == {"?" if text == "\ud800" else text}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_progress_that_is_no_finite_number_is_refused(number: float) -> None:
    family = Family()
    with pytest.raises(InvalidOption, match="not a finite number"):
        context(family).progress(number)
    with pytest.raises(InvalidOption, match="not a finite number"):
        context(family).progress(1, total=number)
    assert family.told == []


@pytest.mark.parametrize(
    "number", [Decimal(1), 10**5_000, object()], ids=["Decimal", "huge", "object"]
)
def test_progress_in_a_number_that_json_has_not_is_refused_with_what_it_takes(number: Any) -> None:
    with pytest.raises(InvalidOption, match="give an int or a float"):
        context(Family()).progress(number)


def test_nobody_is_asked_outside_of_a_family() -> None:
    asked = context(Nobody())
    asked.progress(1)
    assert (asked.cancelled, asked.stopping) == (False, False)


def test_the_log_lines_of_a_task_carry_its_job(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="jobvisor.task"):
        context().log.info("sent to %s", "a@b.c")
    (line,) = caplog.records
    assert line.getMessage() == "sent to a@b.c"
    assert vars(line)["fields"] == {"job": 7, "task": "app:f", "attempt": 2}


def test_the_state_is_the_workers_own() -> None:
    kept: dict[str, Any] = {}
    context(state=kept).state["connection"] = "dear"
    assert context(state=kept).state == {"connection": "dear"}
