"""A family is silent by our own unbroken watching, never by the age of its heartbeat."""

from __future__ import annotations

from jobvisor.supervisor.deaths.silence import Silence
from tests.clock import MovableClock
from tests.store.making import family

DEAD_AFTER_MS = 30_000


def watch(silence: Silence, clock: MovableClock, *, looks: int, heartbeat: int = 5) -> list[bool]:
    """The answers of looks a second apart."""
    found = []
    for _ in range(looks):
        clock.move(1_000)
        row = family(2, heartbeat_at=heartbeat, dead_after_ms=DEAD_AFTER_MS)
        found.append(silence.stood_still(row))
    return found


def test_a_heartbeat_that_was_watched_standing_still_for_dead_after_is_silence() -> None:
    clock = MovableClock()
    answers = watch(Silence(clock), clock, looks=35)
    assert not any(answers[:30])
    assert answers[-1]


def test_an_old_heartbeat_at_the_first_look_is_none() -> None:
    clock = MovableClock()
    clock.move(86_400_000)
    assert watch(Silence(clock), clock, looks=1, heartbeat=1) == [False]


def test_a_heartbeat_that_moves_begins_the_watching_anew() -> None:
    clock = MovableClock()
    silence = Silence(clock)
    watch(silence, clock, looks=25)
    assert not any(watch(silence, clock, looks=25, heartbeat=6))


def test_a_suspend_is_not_watched() -> None:
    clock = MovableClock()
    silence = Silence(clock)
    watch(silence, clock, looks=2)
    clock.move(3_600_000)
    assert watch(silence, clock, looks=5) == [False] * 5


def test_while_the_database_was_away_nobody_stood_still() -> None:
    clock = MovableClock()
    silence = Silence(clock)
    watch(silence, clock, looks=25)
    silence.forget()
    assert not any(watch(silence, clock, looks=25))
