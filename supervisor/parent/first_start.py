"""Whether a first start can come to anything, or the family should give up with an exit code.

Only at first: a family that was once whole never gives up, whatever happens to it later.
"""

from __future__ import annotations

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, EX_UNAVAILABLE
from jobvisor.jobs.log import say
from jobvisor.jobs.url import shown_url
from jobvisor.supervisor.board import BOOTING, REACHED, STATE
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.roster import CARETAKER

BOOTS_BEFORE_WRONG = 3


class FirstStart:
    """What has been seen of the first children."""

    def __init__(self, crew: Crew, clock: Clock) -> None:
        self._crew = crew
        self._clock = clock
        self.begin()
        self.ever_ready = False
        """Whether a worker has ever imported its tasks."""
        self._ever_reached = False
        self._failed_boots = 0

    def begin(self) -> None:
        """From now on the database has its time to answer."""
        self._began = self._clock.monotonic_ns()

    def note_death(self, post: Post, *, ready: bool) -> None:
        """A child has ended, before or after it was ready."""
        if not post.role.vital:
            return
        self._ever_reached = self._ever_reached or bool(post.slot[REACHED])
        self.ever_ready = self.ever_ready or (ready and post.role.runs_jobs)
        if not ready and not post.leaving and not self.ever_ready:
            self._failed_boots += 1

    def exit_code(self, config: Config) -> int:
        """What to give up with, 0 where there is still hope; the reason is logged."""
        self._look()
        boots = max(BOOTS_BEFORE_WRONG, len(self._crew.workers()))
        database = config.database
        if not self.ever_ready and self._failed_boots >= boots:
            say("hopeless", boots=self._failed_boots)
            return EX_CONFIG
        if self._ever_reached:
            return EX_OK
        bad_boots = max((post.bad_boots for post in self._crew.of(CARETAKER)), default=0)
        if bad_boots >= BOOTS_BEFORE_WRONG:
            say("hopeless", boots=bad_boots)
            return EX_CONFIG
        if self._clock.monotonic_ns() - self._began > database.connect_timeout_ms * 1_000_000:
            say("unreachable", database=shown_url(database.url))
            return EX_UNAVAILABLE
        return EX_OK

    def _look(self) -> None:
        living = self._crew.living()
        self._ever_reached = self._ever_reached or any(post.slot[REACHED] for post in living)
        self.ever_ready = self.ever_ready or any(
            post.role.runs_jobs and post.slot[STATE] != BOOTING for post in living
        )
