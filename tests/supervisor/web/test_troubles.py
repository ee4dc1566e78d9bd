"""What the web role says of its errors: a bounded number of lines, however many there are."""

from __future__ import annotations

import logging

import pytest

from jobvisor.supervisor.web.troubles import LINES_MAX, Troubles
from tests.clock import StandingClock


def test_of_many_errors_a_few_are_logged_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = StandingClock()
    troubles = Troubles(clock)
    with caplog.at_level(logging.INFO, "jobvisor"):
        for number in range(1000):
            troubles.note("it failed", ValueError(number))
        assert len(caplog.records) == LINES_MAX
        assert "ValueError: '0'" in caplog.messages[0]
        clock.move(61_000)
        troubles.note("it failed again", None)
    assert "990 further errors" in caplog.messages[-2]
    assert "it failed again" in caplog.messages[-1]


def test_what_is_cut_off_by_the_end_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(StandingClock())
    troubles.is_over = True
    with caplog.at_level(logging.INFO, "jobvisor"):
        troubles.note("cancelled", None)
    assert not caplog.records
