"""A reload: another configuration is read, its code tried, first workers started; then it is taken up.

Until those first workers are ready all stays as it was. How it ended stands on the board, for whoever
asked for it: done, or refused and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import ConfigError, MissingExtra
from jobvisor.jobs.log import configure, say
from jobvisor.jobs.registry import registry
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.board import (
    BOOTING,
    DONE,
    GOING_ON,
    PARENT_NOTE,
    REFUSED,
    RELOAD_STATE,
    RELOADS,
    STATE,
    Board,
)
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.parent.succession import Succession


class Attempt(Protocol):
    """New code that is tried, in a process of its own."""

    @property
    def config(self) -> Config:
        """Whose code it is."""

    @property
    def pid(self) -> int:
        """The process, 0 when it has ended."""

    def outcome(self) -> str | None:
        """Why it cannot be had, "" where it can; None while that is not known."""

    def close(self) -> None:
        """Give it up."""


class Reload:
    """What a reload has come to."""

    def __init__(
        self,
        crew: Crew,
        nursery: Nursery,
        board: Board,
        clock: Clock,
        succession: Succession,
        *,
        try_out: Callable[[Config], Attempt],
    ) -> None:
        self._crew = crew
        self._nursery = nursery
        self._clock = clock
        self._board = board
        self._succession = succession
        self._try_out = try_out
        self._going_on = False  # not all are replaced
        self._cannot_start = False  # one of the new children could not
        self._trial: Attempt | None = None
        self._next: Config | None = None  # its code can be imported
        self._next_code: Attempt | None = None  # and where it is
        self._old: Config | None = None

    def read(self, old: Config) -> None:
        """Read the configuration as its file has it now, and try its code; `tried` tells the outcome."""
        self.give_up()
        self._old = old
        self._board[RELOAD_STATE] = GOING_ON
        self._board[RELOADS] += 1
        path = old.path
        say("reloading", path=path or "without a file: the children alone")
        try:
            new = old if path is None else Config.load(path)
            _check_unchangeable(old, new)
            new.check_tasks(registry)
            new.check_extras()
            self._trial = self._try_out(new)
        except (ConfigError, MissingExtra) as error:
            self._keep_old(str(error))
        except OSError as error:
            self._keep_old(f"the new code cannot be tried now: {error.strerror}; ask again later")

    def tried(self) -> Config | None:
        """The configuration to take up, once; None while it is tried, and where the old one stays."""
        self._look_at_trial()
        new = self._next
        if new is None:
            return None
        posts = [post for post in self._crew if post.on_trial]
        if not posts and any(pool.overlap for pool in new.workers):
            posts = self._succession.try_out(new)
            if not posts:
                return None  # as many leave as may: the next reload waits for one of them
        if not all(post.pid and post.slot[STATE] != BOOTING for post in posts):
            return None
        self._next = self._next_code = None
        return new

    def config_of(self, post: Post) -> Config | None:
        """The configuration that a post on trial is for; None for all others."""
        return self._next if post.on_trial else None

    @property
    def trial_pid(self) -> int:
        """The process that tries new code, which may be no post's; 0 while there is none."""
        return self._trial.pid if self._trial is not None else 0

    def give_up(self) -> None:
        """Try no longer: there is an outcome, a later file, or a stop."""
        for tried in (self._trial, self._next_code):
            if tried is not None:
                tried.close()
        self._trial = self._next_code = None
        if self._next is not None and self._old is not None:
            self._next = None
            self._succession.give_up_trials(self._old.family.reload_timeout_ms)
            self._log_as(self._old)

    def begin(self, config: Config) -> None:
        """The configuration is taken up: every child that has the old one is to be replaced."""
        self._going_on, self._cannot_start = True, False
        self._succession.begin(config)

    def go_on(self, config: Config) -> None:
        """Tell the next ones to leave; done when nobody is left that could be told."""
        self._succession.go_on(config)
        if self._going_on and self._next is None and self._succession.is_done():
            self._finish()

    def note_death(self, post: Post, config: Config, *, ready: bool) -> None:
        """A child of the new configuration that cannot start: those that are there stay."""
        if ready or post.leaving or not post.role.renewed:
            return
        reason = f"{post.name} cannot start: {self._why(post, config)}"
        if post.on_trial:
            post.on_trial, post.departs = False, True  # it has ended: nobody else is to be told
            self._keep_old(reason)
        elif self._going_on:
            self._cannot_start = True
            self._refuse(reason)

    def _look_at_trial(self) -> None:
        trial = self._trial
        refused = trial.outcome() if trial is not None else None
        if trial is None or refused is None:
            return
        refused = refused or self._log_as(trial.config)
        if refused:
            self._keep_old(refused)
        else:
            self._next, self._next_code, self._trial = trial.config, trial, None

    def _log_as(self, config: Config) -> str:
        """Log as a configuration wants it; why that cannot be, else ""."""
        try:
            if config.path is not None:
                configure(config.log.level, config.log.format, file=config.log.file)
        except ConfigError as error:
            return str(error)
        return ""

    def _why(self, post: Post, config: Config) -> str:
        note = self._board.read_note(post.slot.index)
        if post.killed:
            limit = duration_text(config.family.boot_timeout_ms)
            return f"it was not ready after {limit}"
        return note or "it ended before it was ready; see the log"

    def _keep_old(self, reason: str) -> None:
        self.give_up()
        say("reload_refused", error=reason)
        self._cannot_start = False
        self._refuse(reason)

    def _finish(self) -> None:
        """All are replaced. Where a later file was refused meanwhile, that is the answer that stays."""
        is_last = self._trial is None
        if is_last and (self._board[RELOAD_STATE] == GOING_ON or self._cannot_start):
            self._board[RELOAD_STATE] = DONE
            say("reloaded", count=sum(post.departs for post in self._crew))
            self._nursery.wake_caretaker()
        self._going_on = self._cannot_start = False

    def _refuse(self, reason: str) -> None:
        """The reason first: it is read by who sees the word."""
        self._board.write_note(PARENT_NOTE, reason)
        self._board[RELOAD_STATE] = REFUSED
        self._nursery.wake_caretaker()


def _check_unchangeable(old: Config, new: Config) -> None:
    if new.family.state_dir != old.family.state_dir:
        raise ConfigError(
            f"[supervisor] state_dir changed from {old.family.state_dir} to "
            f"{new.family.state_dir}; that needs a stop and a start"
        )
    if _tables_of(new) != _tables_of(old):
        raise ConfigError("[database] url, schema or prefix changed; that needs a stop and a start")


def _tables_of(config: Config) -> tuple[str, str, str]:
    database = config.database
    return database.url, database.schema, database.prefix
