"""What one reader wants to hear of."""

from __future__ import annotations

from dataclasses import dataclass

from jobvisor.supervisor.web.events.message import Told


@dataclass(frozen=True, slots=True)
class Wanted:
    """Jobs that fit everything that is said here; an empty set says nothing."""

    jobs: frozenset[int] = frozenset()
    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    family: bool = True
    """And the status of the family."""

    def wants(self, told: Told) -> bool:
        """Whether it is told. Of a job that is gone nothing is known but its id."""
        if self.jobs and told.job not in self.jobs:
            return False
        return told.state is None or (
            (not self.queues or told.queue in self.queues)
            and (not self.tasks or told.task in self.tasks)
            and (not self.states or told.state in self.states)
        )
