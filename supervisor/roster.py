"""The roles of a family in one table, a row for each: how a child is made, told to leave, and judged.

A further role is a further row and the class that it names; nothing else asks what a child is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Told(Enum):
    """How one child is told to leave while its family goes on."""

    BY_SIGNAL = "SIGTERM, on which it finishes what it runs"
    BY_WORD = (
        "the word LEAVE of its slot: systemd sends SIGTERM to everybody, and it must not hear that"
    )


class Check(Enum):
    """What the parent kills a child for, besides a boot that takes too long."""

    BEAT = "it has not moved for a third of `dead_after`"
    TURN = "it has not moved while it was in a transaction of its own"
    JOB = "its job is past its timeout or its memory, or does not react to a cancel"


@dataclass(frozen=True, slots=True)
class RoleRow:
    """One role."""

    number: int
    """On the board."""
    word: str
    """In logs, in the status and in the history of jobs."""
    made_by: str
    """`module:class` of a Role. Loaded by the parent before its first fork, so that all share it, but for a
    template's, the site's and the scheduler's, which few families have."""
    several: bool
    """Whether a family may have more than one, so that a name needs the number of the slot."""
    runs_jobs: bool
    told: Told
    checks: frozenset[Check]
    leaves: int
    """The order in a stop: 0 with the stop flag, each further number when all before it have left."""
    kept_while_stopping: bool
    """Whether it is forked again where it dies in a stop: it has something to finish for the others."""
    renewed: bool = True
    """Whether a reload replaces it in its turn; else by a rule of its own."""
    vital: bool = True
    """Whether a first start comes to nothing where it cannot boot."""

    def name(self, slot: int) -> str:
        """As in logs: `worker 2`, `caretaker`."""
        return f"{self.word} {slot}" if self.several else self.word


WORKER = RoleRow(
    number=1,
    word="worker",
    made_by="jobvisor.supervisor.worker:Worker",
    several=True,
    runs_jobs=True,
    told=Told.BY_SIGNAL,
    checks=frozenset({Check.TURN, Check.JOB}),
    leaves=0,
    kept_while_stopping=False,
)
CARETAKER = RoleRow(
    number=2,
    word="caretaker",
    made_by="jobvisor.supervisor.caretaker.caretaker:Caretaker",
    several=False,
    runs_jobs=False,
    told=Told.BY_WORD,
    checks=frozenset({Check.BEAT}),
    leaves=9,  # last: it settles all the others
    kept_while_stopping=True,
)

TEMPLATE = RoleRow(
    number=3,
    word="template",
    made_by="jobvisor.supervisor.template.template:Template",
    several=False,
    runs_jobs=False,
    told=Told.BY_WORD,
    checks=frozenset(),
    leaves=0,
    kept_while_stopping=False,
    renewed=False,  # the new one is made before the old one leaves
)

QUARANTINE = replace(WORKER, number=4, word="quarantine")
"""A worker for suspects alone, where all others of its pool are busy; it leaves when there are none."""

WEB = RoleRow(
    number=5,
    word="web",
    made_by="jobvisor.supervisor.web.role:WebRole",
    several=False,
    runs_jobs=False,
    told=Told.BY_SIGNAL,
    checks=frozenset({Check.BEAT}),
    leaves=0,
    kept_while_stopping=False,
    renewed=False,  # where its configuration is another, and whenever that suits
    vital=False,  # the jobs go on without it
)

SCHEDULER = RoleRow(
    number=6,
    word="scheduler",
    made_by="jobvisor.supervisor.scheduler.scheduler:Scheduler",
    several=False,
    runs_jobs=False,
    told=Told.BY_SIGNAL,
    checks=frozenset({Check.BEAT}),
    leaves=0,
    kept_while_stopping=False,
    renewed=False,  # where its configuration is another
    vital=False,  # the jobs go on without it
)

ROSTER = {row.number: row for row in (WORKER, CARETAKER, TEMPLATE, QUARANTINE, WEB, SCHEDULER)}


def role_name(number: int, slot: int) -> str:
    """What a child is called, by the words of the board; a number without a row is no role of ours."""
    row = ROSTER.get(number)
    return row.name(slot) if row else f"child {slot}"
