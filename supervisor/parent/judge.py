"""The judge: whom the parent kills, and for what; the verdict is written before the kill.

A life that hangs cannot say so, thus it is judged by what it wrote on the board: its state, its beat,
its job and the deadline of it.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.autopsy.autopsy import LOOK_NS
from jobvisor.supervisor.board import (
    BEAT,
    BOOTING,
    BORN,
    BUSY,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CLERK,
    CLIENTS_CLERK,
    CURRENT,
    CURRENT_CLAIM,
    DEADLINE,
    LANE_COUNT,
    LOOP_BEAT,
    LOOP_STOOD_STILL,
    MEMORY,
    STATE,
    STOOD_STILL,
    TURN,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_CODES,
    VERDICT_JOB,
    Slot,
    jobs_text,
)
from jobvisor.supervisor.config import Supervision
from jobvisor.supervisor.memory import resident, resident_of
from jobvisor.supervisor.parent import killing
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.notice import Notice, has_neighbours
from jobvisor.supervisor.roster import Check

OVERSLEPT_NS = SECOND  # a judge this late was stopped or suspended, and its children with it
MEMORY_EVERY_NS = 200_000_000
STILL_NS = SECOND  # a worker with several lanes beats every 0.25 s while one is busy
STUCK_NS = 10 * SECOND  # in its own transaction, without a beat
STUCK_BESIDE_NS = 300 * SECOND  # while jobs run beside it
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
        """Condemn whoever has earned it, by the limits of `[supervisor]`; go on killing the condemned."""
        now = self._clock.monotonic_ns()
        for post in self._condemned():
            killing.go_on(post, now)
        if now < self.judges_from:
            return
        for post in self._crew.living():
            if not post.condemned_at:
                self._judge(post, family, now)
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_EVERY_NS
            self._judge_memory()

    def _judge(self, post: Post, family: Supervision, now: int) -> None:
        self._judge_boot(post, family, now)
        if Check.BEAT in post.role.checks:
            self._judge_beat(post, family, now)
        if Check.TURN in post.role.checks:
            self._judge_turn(post, now)
        if Check.JOB in post.role.checks:
            self._judge_job(post, family, now)
        if post.leaving and post.leave_by and now > post.leave_by:
            # One that leaves by itself has as long as one that a reload replaces.
            self._condemn(post, post.leaving if post.leaving in VERDICT_CODES else "reload")

    def condemn(self, post: Post, reason: str, job: int = 0, claim: int = 0) -> None:
        """The verdict first, then the kill: who settles finds out why, and whom it was about.

        The child is asked for its stack in between, for 50 ms at the most; a second verdict kills at once.
        """
        if post.condemned_at:
            if not post.killed:
                killing.kill(post)
        else:
            self._condemn(post, reason, job, claim)

    def _condemn(self, post: Post, reason: str, job: int = 0, claim: int = 0) -> None:
        """The first verdict stands, whatever else it has earned."""
        if post.condemned_at:
            return
        slot = post.slot
        slot[VERDICT_JOB], slot[VERDICT_CLAIM] = job, claim
        slot[VERDICT] = VERDICT_CODES[reason] | _stillness(slot, self._clock.monotonic_ns())
        say(
            "child_verdict", role=post.name, pid=post.pid, reason=reason,
            job=job or jobs_text(slot),
        )  # fmt: skip
        killing.ask(post, self._clock.monotonic_ns())

    def next_look(self, now: int) -> int | None:
        """When the next one is due for those that were asked for their stack; None where there is none."""
        return now + LOOK_NS if any(not post.killed for post in self._condemned()) else None

    def _condemned(self) -> list[Post]:
        return [post for post in self._crew.living() if post.condemned_at]

    def _judge_boot(self, post: Post, family: Supervision, now: int) -> None:
        slot = post.slot
        if slot[STATE] == BOOTING and now - slot[BORN] > family.boot_timeout_ms * 1_000_000:
            self._condemn(post, "boot")

    def _judge_beat(self, post: Post, family: Supervision, now: int) -> None:
        limit = max(family.dead_after_ms * 1_000_000 // 3, BEAT_LEAST_NS)
        if post.slot[BEAT] and now - post.slot[BEAT] > limit:
            self._condemn(post, "stuck")

    def _judge_turn(self, post: Post, now: int) -> None:
        slot = post.slot
        began = slot[TURN]  # read once: it is 0 at the next look where the turn has just ended
        if not began or now - began <= STUCK_NS:
            return
        # One of several jobs may have held the interpreter since the turn began: no fault of the turn.
        beside = slot[LANE_COUNT] > 1 and any(slot.column(CURRENT))
        if not beside or now - began > STUCK_BESIDE_NS:
            self._condemn(post, "stuck")

    def _judge_job(self, post: Post, family: Supervision, now: int) -> None:
        slot = post.slot
        if slot[STATE] != BUSY:
            return
        grace = family.cancel_grace_ms * 1_000_000
        if post.notice is not None:
            self._judge_notice(post, post.notice, now)
            return
        first = slot.first_deadline()
        if first and now >= first:
            self._judge_deadlines(post, grace, now)
        if post.cancels or any(slot.column(CANCEL_JOB)):
            self._judge_cancels(post, grace, now)

    def _judge_notice(self, post: Post, notice: Notice, now: int) -> None:
        if notice.has_helped():
            post.notice = None
        elif notice.is_over(now):
            self._condemn(post, notice.reason, *notice.run)

    def _overdue(self, post: Post, reason: str, run: tuple[int, int], until: int) -> None:
        """A job that runs alone ends with its process; neighbours have until then to end before it."""
        if has_neighbours(post.slot, run):
            post.notice = post.notice or Notice(post.slot, post.name, reason, run, until)
        else:
            self._condemn(post, reason, *run)

    def _judge_deadlines(self, post: Post, grace: int, now: int) -> None:
        for words in post.slot.lanes():
            # The deadline was written before `current`, and the next one comes after it is 0 again:
            # read between two equal looks at `current` it is this job's.
            run = _run_of(words)
            deadline = words[DEADLINE]
            if run[0] and deadline and now >= deadline and _run_of(words) == run:
                self._overdue(post, "timeout", run, now + grace)
                return

    def _judge_cancels(self, post: Post, grace: int, now: int) -> None:
        words = (CURRENT, CURRENT_CLAIM, CANCEL_JOB, CANCEL_CLAIM)
        rows = zip(*(post.slot.column(word) for word in words), strict=False)
        asked = [row[:2] for row in rows if row[0] and row[:2] == row[2:]]
        post.cancels = {run: post.cancels.get(run, now) for run in asked}
        for run, since in post.cancels.items():
            if now - since > grace:
                self._overdue(post, "cancel", run, now + grace)
                return

    def _judge_memory(self) -> None:
        """One look at all processes for all jobs that have a limit."""
        limited = [
            (post, words, run, limit)
            for post in self._crew.living()
            if Check.JOB in post.role.checks and any(post.slot.column(MEMORY))
            for words in post.slot.lanes()
            # As with deadlines: read between two equal looks at `current` the limit is this job's.
            if (run := _run_of(words))[0] and (limit := words[MEMORY])
        ]
        held = resident_of({post.pid for post, *_ in limited}) if limited else {}
        for post, words, run, limit in limited:
            over = held[post.pid] - limit
            if _run_of(words) == run and over > 0 and over > _clerks_of(post):
                self._condemn(post, "memory", *run)


def _stillness(slot: Slot, now: int) -> int:
    """What is added to a verdict where a job kept a worker with several lanes, or its loop, from moving."""
    if slot[LANE_COUNT] <= 1:
        return 0
    for word, told in ((BEAT, STOOD_STILL), (LOOP_BEAT, LOOP_STOOD_STILL)):
        beat = slot[word]
        if beat and now - beat >= STILL_NS:
            return told
    return 0


def _clerks_of(post: Post) -> int:
    """The bytes of its group that are no job's: of the processes that hold its connections."""
    pids = (post.slot[CLERK], post.slot[CLIENTS_CLERK])
    return sum(resident(pid) or 0 for pid in pids if pid)


def _run_of(words: memoryview[int]) -> tuple[int, int]:
    """The job that runs in a lane, and its claim."""
    return words[CURRENT], words[CURRENT_CLAIM]
