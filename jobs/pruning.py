"""Which finished jobs go, and how far that has come: along those of one state, the oldest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jobvisor.jobs.job import State

__all__ = ["BEGINNING", "Place", "Pruned", "Rule", "rules_of"]


ENDS = (State.SUCCEEDED, State.CANCELLED, State.FAILED)


class Rule(NamedTuple):
    """The finished jobs of one state and some queues that go when they have been so for a while.

    But for those that say themselves how long they are kept, or whose key is held longer.
    """

    state: State
    age_ms: int
    queues: tuple[str, ...] = ()
    within: bool = False
    """Those of these queues; else those of all others."""

    def parameters(self) -> dict[str, Any]:
        """As statements take it."""
        return {"state": self.state.value, "age": self.age_ms, "within": self.within}


class Place(NamedTuple):
    """Where a walk along the ends of jobs has come to."""

    at: int | str | None
    """The end of the last job that was looked at, as the database has it."""
    id: int


BEGINNING = Place(None, 0)


class Pruned(NamedTuple):
    """What one page has come to."""

    gone: int
    after: Place
    """Where the next one begins."""
    more: bool
    """Whether there may be more that go now."""
    held_ns: int = 0
    """For how long the database was held."""


def rules_of(
    by_state: Mapping[State, int | None],
    by_queue: Mapping[str, Mapping[str, int | None]] | None = None,
) -> list[Rule]:
    """What goes by age, in milliseconds, None for ever; what is said of a queue counts before the rest.

    >>> for rule in rules_of({State.FAILED: 9_000}, {"mail": {"failed": 5_000}, "log": {"failed": None}}):
    ...     print(*rule)
    failed 5000 ('mail',) True
    failed 9000 ('log', 'mail') False
    """
    queues = by_queue or {}
    return [rule for state in ENDS for rule in _of_state(state, by_state, queues)]


def _of_state(
    state: State,
    by_state: Mapping[State, int | None],
    by_queue: Mapping[str, Mapping[str, int | None]],
) -> Iterable[Rule]:
    own = {queue: said[state] for queue, said in sorted(by_queue.items()) if state in said}
    for age in sorted({age for age in own.values() if age is not None}):
        yield Rule(state, age, tuple(queue for queue in own if own[queue] == age), within=True)
    rest = by_state.get(state)
    if rest is not None:
        yield Rule(state, rest, tuple(own))
