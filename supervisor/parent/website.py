"""The post of the web role: there where `[web]` wants it, renewed where a reload changes what it was told.

Whatever happens to it, the family goes on, and nothing ends with it; a stop waits for it some seconds.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import SLOTS
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import WEB

LEAVE_NS = 5 * SECOND  # for a child that is replaced; it needs one at the most


class Website:
    """One post, or none."""

    def __init__(self, crew: Crew, nursery: Nursery, clock: Clock) -> None:
        self._crew = crew
        self._nursery = nursery
        self._clock = clock

    def furnish(self, config: Config) -> None:
        """A post, if the configuration wants one and the workers have left a slot."""
        if config.web.enabled and self._crew.room:
            self._crew.add(WEB)
        elif config.web.enabled:
            say("no_room_for_web", count=SLOTS)

    def follow(self, old: Config, config: Config) -> None:
        """Another configuration is taken up."""
        post = next(iter(self._crew.of(WEB)), None)
        if post is None:
            self.furnish(config)
        elif not config.web.enabled:
            self._leave(post, departs=True)
        elif post.departs or config != old:
            self._leave(post, departs=False)

    def _leave(self, post: Post, *, departs: bool) -> None:
        if post.pid:
            leave_by = self._clock.monotonic_ns() + LEAVE_NS
            self._nursery.ask_to_leave(post, "reload", leave_by, departs=departs)
        elif departs:
            self._crew.remove(post)
