"""The judge: whom the parent kills, and for what; the verdict is written before the kill.

A life that hangs cannot say so, thus it is judged by what it wrote on the board: its state, its beat,
its job and the deadline of it.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import (
    BEAT,
    BOOTING,
    BORN,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CLAIM,
    CURRENT,
    DEADLINE,
    MEMORY,
    STATE,
    TURN,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_CODES,
    VERDICT_JOB,
)
from jobvisor.supervisor.child import kill_group
from jobvisor.supervisor.config import Supervision
from jobvisor.supervisor.crew import Crew, Post
from jobvisor.supervisor.memory import resident_of
from jobvisor.supervisor.roster import Check

OVERSLEPT_NS = SECOND  # a judge this late was stopped or suspended, and its children with it
MEMORY_EVERY_NS = 200_000_000
STUCK_NS = 10 * SECOND  # in its own transaction, without a beat
BEAT_LEAST_NS = 3 * SECOND  # an idle caretaker beats once a second, whatever `dead_after` is


class Judge:
    """One look at all children, several times a second while jobs run."""

    def __init__(self, crew: Crew, clock: Clock) -> None:
        self._crew = crew
        self._clock = clock
        self.judges_from = 0
        """Nobody is judged before this moment."""
        self._memory_at = 0

    def note_lateness(self, late_ns: int) -> None:
        """Where this process was stopped or suspended, its children perhaps were as well."""
        if late_ns > OVERSLEPT_NS:
            self.judges_from = self._clock.monotonic_ns() + SECOND
            say("overslept", seconds=f"{late_ns / SECOND:.1f}")

    def look(self, family: Supervision) -> None:
        """Kill whoever has earned it, by the limits of `[supervisor]`."""
        now = self._clock.monotonic_ns()
        if now < self.judges_from:
            return
        for post in self._crew.living():
            self._judge_boot(post, family, now)
            if Check.BEAT in post.role.checks:
                self._judge_beat(post, family, now)
            if Check.TURN in post.role.checks:
                self._judge_turn(post, now)
            if Check.JOB in post.role.checks:
                self._judge_job(post, family, now)
            if post.leaving and post.leave_by and now > post.leave_by:
                self.condemn(post, post.leaving)
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_EVERY_NS
            self._judge_memory()

    def condemn(self, post: Post, reason: str, job: int = 0, claim: int = 0) -> None:
        """The verdict first, then the kill: who settles finds out why, and whom it was about."""
        if post.killed:
            return
        slot = post.slot
        slot[VERDICT_JOB], slot[VERDICT_CLAIM] = job, claim
        slot[VERDICT] = VERDICT_CODES[reason]
        post.killed = True
        say(
            "child_verdict", role=post.name, pid=post.pid, reason=reason,
            job=job or slot[CURRENT] or "none",
        )  # fmt: skip
        kill_group(post.pid)

    def _judge_boot(self, post: Post, family: Supervision, now: int) -> None:
        slot = post.slot
        if slot[STATE] == BOOTING and now - slot[BORN] > family.boot_timeout_ms * 1_000_000:
            self.condemn(post, "boot")

    def _judge_beat(self, post: Post, family: Supervision, now: int) -> None:
        limit = max(family.dead_after_ms * 1_000_000 // 3, BEAT_LEAST_NS)
        if post.slot[BEAT] and now - post.slot[BEAT] > limit:
            self.condemn(post, "stuck")

    def _judge_turn(self, post: Post, now: int) -> None:
        slot = post.slot
        if slot[STATE] == TURN and slot[BEAT] and now - slot[BEAT] > STUCK_NS:
            self.condemn(post, "stuck")

    def _judge_job(self, post: Post, family: Supervision, now: int) -> None:
        slot = post.slot
        # The deadline was written before `current`, and the next one comes after it is 0 again:
        # read between two equal looks at `current` it is this job's.
        current, claim = slot[CURRENT], slot[CLAIM]
        deadline = slot[DEADLINE]
        if not current or slot[CURRENT] != current or slot[CLAIM] != claim:
            return
        if deadline and now >= deadline:
            self.condemn(post, "timeout", current, claim)
        elif (slot[CANCEL_JOB], slot[CANCEL_CLAIM]) == (current, claim):
            if post.cancel_of != (current, claim):
                post.cancel_of, post.cancel_since = (current, claim), now
            elif now - post.cancel_since > family.cancel_grace_ms * 1_000_000:
                self.condemn(post, "cancel", current, claim)

    def _judge_memory(self) -> None:
        """One look at all processes for all jobs that have a limit."""
        limited = [
            (post, post.slot[CURRENT], post.slot[CLAIM], post.slot[MEMORY])
            for post in self._crew.living()
            if Check.JOB in post.role.checks and post.slot[MEMORY] and post.slot[CURRENT]
        ]
        resident = resident_of({post.pid for post, *_ in limited}) if limited else {}
        for post, current, claim, limit in limited:
            same = (post.slot[CURRENT], post.slot[CLAIM]) == (current, claim)
            if same and resident[post.pid] > limit:
                self.condemn(post, "memory", current, claim)
