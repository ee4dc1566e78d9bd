"""A reload: another configuration read and taken up, then the children replaced one by one."""

from __future__ import annotations

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.log import configure, say
from jobvisor.jobs.registry import registry
from jobvisor.supervisor.board import BOOTING, STATE
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.crew import Crew, Post
from jobvisor.supervisor.nursery import Nursery


class Reload:
    """What is left to be replaced."""

    def __init__(self, crew: Crew, nursery: Nursery, clock: Clock) -> None:
        self._crew = crew
        self._nursery = nursery
        self._clock = clock
        self._waiting: list[Post] = []

    def read(self, old: Config) -> Config | None:
        """The configuration as its file has it now; None where it is refused and the old one stays."""
        path = old.path
        say("reloading", path=path or "without a file: the children alone")
        if path is None:
            return old
        try:
            new = Config.load(path)
            _check_unchangeable(old, new)
            new.check_tasks(registry)
            configure(new.log.level, new.log.format, file=new.log.file)
        except ConfigError as error:
            say("reload_refused", error=str(error))
            return None
        return new

    def begin(self) -> None:
        """Every child that is there is to be replaced; what kept dying may do so no longer."""
        self._waiting = [post for post in self._crew.living() if not post.leaving]
        for post in self._crew:
            post.spawn_at = 0

    def go_on(self, stop_timeout_ms: int) -> None:
        """Ask the next one to leave, once all the others are there."""
        if not self._waiting:
            return
        for post in self._crew:
            if not post.pid or post.leaving == "reload" or post.slot[STATE] == BOOTING:
                return
        post = self._waiting.pop(0)
        if post.pid and not post.leaving:
            self._ask(post, stop_timeout_ms)

    def replace_all(self, stop_timeout_ms: int) -> None:
        """Everybody leaves at once, and another family follows."""
        for post in self._crew.living():
            if not post.leaving:
                self._ask(post, stop_timeout_ms)

    def _ask(self, post: Post, stop_timeout_ms: int) -> None:
        leave_by = self._clock.monotonic_ns() + stop_timeout_ms * 1_000_000
        self._nursery.ask_to_leave(post, "reload", leave_by)


def _check_unchangeable(old: Config, new: Config) -> None:
    if new.family.state_dir != old.family.state_dir:
        raise ConfigError(
            f"[supervisor] state_dir changed from {old.family.state_dir} to "
            f"{new.family.state_dir}; that needs a stop and a start"
        )
    if (new.database.url, new.database.schema) != (old.database.url, old.database.schema):
        raise ConfigError("[database] url or schema changed; that needs a stop and a start")
