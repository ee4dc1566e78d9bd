"""What the threads and the loop of one worker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobvisor.jobs.execution import Execution
from jobvisor.supervisor.several.backlog import Backlog
from jobvisor.supervisor.several.bell import Bell
from jobvisor.supervisor.several.lanes import Lanes
from jobvisor.supervisor.several.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class Shared:
    """Given to both when the worker boots."""

    lanes: Lanes
    backlog: Backlog
    outcomes: Outcomes
    bell: Bell
    execution: Execution
    broken: Callable[[BaseException], None]
    """Told where code of ours has failed in a thread: the conductor ends the process."""
