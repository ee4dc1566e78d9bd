"""A reload: another configuration read, tried and taken up, then the children replaced one by one.

How it ended stands on the board, for whoever asked for it: done, or refused and why.
"""

from __future__ import annotations

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.log import configure, say
from jobvisor.jobs.registry import registry
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
from jobvisor.supervisor.crew import Crew, Post
from jobvisor.supervisor.nursery import Nursery
from jobvisor.supervisor.trial import Trial


class Reload:
    """What is left to be replaced."""

    def __init__(self, crew: Crew, nursery: Nursery, board: Board, clock: Clock) -> None:
        self._crew = crew
        self._nursery = nursery
        self._clock = clock
        self._board = board
        self._waiting: list[Post] = []
        self._going_on = False  # not all are replaced
        self._cannot_start = False  # one of the new children could not
        self._trial: Trial | None = None

    def read(self, old: Config) -> None:
        """Read the configuration as its file has it now, and try its code; `tried` tells the outcome."""
        self.give_up()
        self._board[RELOAD_STATE] = GOING_ON
        self._board[RELOADS] += 1
        path = old.path
        say("reloading", path=path or "without a file: the children alone")
        try:
            new = old if path is None else Config.load(path)
            _check_unchangeable(old, new)
            new.check_tasks(registry)
            self._trial = Trial(new, self._nursery.closed_by(), self._clock)
        except ConfigError as error:
            self._keep_old(str(error))
        except OSError as error:
            self._keep_old(f"the new code cannot be tried now: {error.strerror}; ask again later")

    def tried(self) -> Config | None:
        """The configuration to take up, once; None while it is tried, and where the old one stays."""
        trial = self._trial
        refused = trial.outcome() if trial is not None else None
        if trial is None or refused is None:
            return None
        self.give_up()
        new = trial.config
        try:
            if not refused and new.path is not None:
                configure(new.log.level, new.log.format, file=new.log.file)
        except ConfigError as error:
            refused = str(error)
        if refused:
            self._keep_old(refused)
            return None
        return new

    def give_up(self) -> None:
        """Try no longer: there is an outcome, a later file, or a stop."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _keep_old(self, reason: str) -> None:
        say("reload_refused", error=reason)
        self._cannot_start = False
        self._refuse(reason)

    def begin(self) -> None:
        """Every child that is there is to be replaced; what kept dying may do so no longer."""
        self._going_on, self._cannot_start = True, False
        self._waiting = [post for post in self._crew.living() if not post.leaving]
        for post in self._crew:
            post.spawn_at = 0

    def go_on(self, stop_timeout_ms: int) -> None:
        """Ask the next one to leave, once all the others are there."""
        if not self._going_on:
            return
        for post in self._crew:
            if not post.pid or post.leaving == "reload" or post.slot[STATE] == BOOTING:
                return
        if not self._waiting:
            self._finish()
            return
        post = self._waiting.pop(0)
        if post.pid and not post.leaving:
            self._ask(post, stop_timeout_ms)

    def note_death(self, post: Post, *, ready: bool) -> None:
        """A child of the new configuration that cannot start: the others stay as they are until one can."""
        if ready or post.leaving or not self._going_on:
            return
        self._cannot_start = True
        note = self._board.read_note(post.slot.index)
        self._refuse(
            f"{post.name} cannot start: {note or 'it ended before it was ready; see the log'}"
        )

    def replace_all(self, stop_timeout_ms: int) -> None:
        """Everybody leaves at once, and another family follows."""
        for post in self._crew.living():
            if not post.leaving:
                self._ask(post, stop_timeout_ms)

    def _finish(self) -> None:
        """All are replaced. Where a later file was refused meanwhile, that is the answer that stays."""
        is_last = self._trial is None
        if is_last and (self._board[RELOAD_STATE] == GOING_ON or self._cannot_start):
            self._board[RELOAD_STATE] = DONE
            self._nursery.wake_caretaker()
        self._going_on = self._cannot_start = False

    def _refuse(self, reason: str) -> None:
        """The reason first: it is read by who sees the word."""
        self._board.write_note(PARENT_NOTE, reason)
        self._board[RELOAD_STATE] = REFUSED
        self._nursery.wake_caretaker()

    def _ask(self, post: Post, stop_timeout_ms: int) -> None:
        leave_by = self._clock.monotonic_ns() + stop_timeout_ms * 1_000_000
        self._nursery.ask_to_leave(post, "reload", leave_by)


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
