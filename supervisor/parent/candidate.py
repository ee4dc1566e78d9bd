"""The template of a configuration that is not taken up yet; as a trial it tells if its code can be had."""

from __future__ import annotations

from jobvisor.jobs.errors import EX_UNFIT
from jobvisor.supervisor.board import BOOTING, STATE, Board
from jobvisor.supervisor.child import Exit, kill_group
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.parent.trial import why_it_ended


class Candidate:
    """The template of a new configuration, from its fork until that is taken up or given up."""

    def __init__(self, config: Config, post: Post, board: Board) -> None:
        self.config = config
        self.post = post
        self.is_dropped = False
        """Whether nobody waits for it any more."""
        self.unfit = ""
        """Why it could be imported and cannot be copied."""
        self._board = board
        self._outcome: str | None = None

    @property
    def pid(self) -> int:
        """The process, 0 when it has ended."""
        return self.post.pid

    def outcome(self) -> str | None:
        """Why the new code cannot be had, "" where it can; None while that is not known."""
        if self._outcome is None and self.post.pid and self.post.slot[STATE] != BOOTING:
            self._outcome = ""
        return self._outcome

    def close(self) -> None:
        """Give it up."""
        self.is_dropped = True
        if self.post.pid:
            self.post.leaving, self.post.departs = "reload", True
            kill_group(self.post.pid)

    def note_death(self, ended: Exit) -> None:
        """It has ended before it was taken up: without an answer, or unfit, or the next one is made then."""
        note = self._board.read_note(self.post.slot.index)
        self.post.departs = True
        if ended.status == EX_UNFIT:
            self.unfit, self._outcome = note, ""
        elif self._outcome is None:
            late = self.post.killed
            self._outcome = note or why_it_ended(self.config, ended.cause, late=late)
