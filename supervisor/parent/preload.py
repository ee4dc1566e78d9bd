"""The family's template, as its parent sees it: made, asked for workers one at a time, replaced, given up.

A request is a word on the board, and so is its answer: it is there also where the template died after it.
Whoever is forked for a request that was dropped meanwhile finds another owner in its slot and leaves.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import EX_UNFIT
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import (
    ASKED,
    BOOTING,
    FIRST_TEMPLATE,
    FOREVER,
    LIFE,
    MADE,
    MADE_PID,
    NEXT_TEMPLATE,
    NO_TEMPLATE,
    PRELOAD,
    PRELOAD_NOTE,
    RUN,
    STATE,
    STOP,
    TEMPLATE_SERVES,
    UNFIT,
    Board,
)
from jobvisor.supervisor.child import Exit, is_child, kill_group, send
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.candidate import Candidate
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import TEMPLATE, RoleRow
from jobvisor.supervisor.template.subreaper import become_subreaper

ANSWER_NS = 5 * SECOND  # for a fork; handlers of os.register_at_fork may hang
LEAVE_NS = 5 * SECOND  # for a template that is replaced


@dataclass(frozen=True, slots=True)
class Request:
    """A worker that a template was asked for."""

    template: Post
    post: Post
    owner: int
    until: int

    @property
    def is_answered(self) -> bool:
        """Whether the template has told of the worker, or why there is none."""
        return self.template.slot[MADE] == self.owner


class Preload:
    """Who forks the workers: the template, or where there is none the parent."""

    def __init__(
        self,
        crew: Crew,
        nursery: Nursery,
        board: Board,
        clock: Clock,
        *,
        of_our_own: bool,
        row: RoleRow = TEMPLATE,
    ) -> None:
        """`of_our_own` says that this process is nothing but a parent, so that all its children are ours."""
        self._crew = crew
        self._nursery = nursery
        self._board = board
        self._clock = clock
        self._of_our_own = of_our_own
        self._row = row
        self._serving: Post | None = None
        self._candidate: Candidate | None = None
        self._asked: Request | None = None
        self._silent: Post | None = None  # killed for its silence, and not reaped yet
        self._judges_from = 0
        self._rotated = False  # the log, since the request
        self.takes_orphans = False
        """Whether orphans become children of this process, which must reap them."""

    # -- made and replaced

    def furnish(self, config: Config) -> None:
        """A post for the first template, if the configuration wants one; workers wait for it."""
        if self._is_wanted_by(config):
            self._serving = self._crew.add(self._row)
            self._board[PRELOAD] = FIRST_TEMPLATE

    def try_out(self, config: Config, family: int) -> Candidate | None:
        """A template of a new configuration; None where it wants none.

        Raises OSError where the system has no process to give.
        """
        self._candidate = None
        if not self._is_wanted_by(config):
            return None
        if not self._crew.room:
            raise OSError(errno.EAGAIN, "all slots are taken by workers that are leaving")
        post = self._crew.add(self._row)
        post.generation = self._crew.generation + 1
        self._nursery.fork(post, config, family)
        if not post.pid:
            self._crew.remove(post)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._candidate = Candidate(config, post, self._board)
        return self._candidate

    def follow(self) -> None:
        """The configuration that was tried out last is taken up, if there was one, or one that wants none."""
        old, self._serving = self._serving, None
        if old is not None:
            self._retire(old)
        self._board[PRELOAD] = NO_TEMPLATE
        candidate, self._candidate = self._candidate, None
        if candidate is None or candidate.is_dropped:
            return
        if candidate.unfit:
            self._give_up(candidate.unfit)
        elif candidate.pid:
            self._serving = candidate.post
            self._board[PRELOAD] = TEMPLATE_SERVES
        else:  # it has died since
            self._serving = self._crew.add(self._row)
            self._board[PRELOAD] = NEXT_TEMPLATE

    def note_death(self, post: Post, ended: Exit) -> bool:
        """Whether the post is given up: of a template that is replaced, unfit or was tried in vain."""
        if post.role is not self._row:
            return False
        asked = self._asked
        if asked is not None and asked.template is post:
            self._asked = None
            if asked.is_answered:  # before it died
                self._take(asked)
        self._nursery.forget(post)
        self._silent = None if self._silent is post else self._silent
        candidate = self._candidate
        if candidate is not None and post is candidate.post:
            candidate.note_death(ended)
            return True
        if post is not self._serving:
            return True
        if ended.status == EX_UNFIT:
            self._serving = None
            self._give_up(self._board.read_note(post.slot.index))
            return True
        if self._board[STOP] == RUN:
            self._board[PRELOAD] = NEXT_TEMPLATE
        return False

    def _is_wanted_by(self, config: Config) -> bool:
        if not config.tasks.preload:
            return False
        if not self._of_our_own:
            say("preload_unable", reason="this process is a script's, whose children are its own")
            return False
        self.takes_orphans = self.takes_orphans or become_subreaper()
        if not self.takes_orphans:
            say("preload_unable", reason="this system has no subreapers; Linux has")
        return self.takes_orphans

    def _give_up(self, reason: str) -> None:
        """Until the next reload."""
        self._board.write_note(PRELOAD_NOTE, reason)
        self._board[PRELOAD] = UNFIT

    def begin_stop(self) -> None:
        """A template that still imports is ended: it would not hear of a stop before it is through."""
        template = self._serving
        if template is not None and template.pid and template.slot[STATE] == BOOTING:
            template.leaving = "stop"
            kill_group(template.pid)

    def _retire(self, post: Post) -> None:
        if self._asked is not None and self._asked.template is post:
            self._asked = None  # its worker would be an old one: it finds another owner, and leaves
        if post.pid:
            leave_by = self._clock.monotonic_ns() + LEAVE_NS
            self._nursery.ask_to_leave(post, "reload", leave_by, departs=True)
        else:
            self._crew.remove(post)

    # -- asked

    def holds(self, post: Post) -> bool:
        """Whether a vacant post waits: for its worker, for its turn, or for the first template."""
        if not post.role.runs_jobs:
            return False
        return self._asked is not None or self._board[PRELOAD] == FIRST_TEMPLATE

    def fork(self, post: Post, config: Config, family: int) -> None:
        """A child for a vacant post: by the template where that serves and knows how."""
        template = self._template_of(post)
        if template is None or not post.role.runs_jobs or not self._serves(template):
            self._nursery.fork(post, config, family)
            return
        self._nursery.open_slot(post, config, family)
        self._rotated = False
        until = self._clock.monotonic_ns() + ANSWER_NS
        self._asked = Request(template, post, post.owner, until)
        template.slot[ASKED] = post.owner
        self._nursery.wake(template)

    def _template_of(self, post: Post) -> Post | None:
        if not post.on_trial:
            return self._serving
        return self._candidate.post if self._candidate is not None else None

    def go_on(self, judges_from: int) -> None:
        """Hear an answer, and wait for none too long; then see whether there is a template to ask.

        Not before `judges_from`: where this process was stopped, the template was perhaps as well.
        """
        self._judges_from = judges_from
        self.hear()
        asked, now = self._asked, self._clock.monotonic_ns()
        if asked is not None and now > self.until:
            self._asked = None
            self._kill(asked.template, f"no answer in {ANSWER_NS // SECOND} s")
        if self._serving is not None and self._serves(self._serving):
            self._board[PRELOAD] = TEMPLATE_SERVES

    def hear(self) -> None:
        """Take what a template has answered; first of all, since its worker may have died since."""
        asked = self._asked
        if asked is not None and asked.is_answered:
            self._asked = None
            refused = self._take(asked)
            if refused:
                self._kill(asked.template, refused)

    def _take(self, asked: Request) -> str:
        """Let the worker in that a template has forked; or why there is none, else ""."""
        pid = asked.template.slot[MADE_PID]
        if pid < 0:
            return os.strerror(-pid)
        # The word was written by a process with user code in it: what it names is killed one day.
        if pid <= 1 or not is_child(pid) or any(post.pid == pid for post in self._crew):
            return f"what it has forked, pid {pid}, is no child of the parent"
        if asked.post.slot[LIFE] == asked.owner:  # else it was taken away meanwhile
            self._nursery.hand_over(asked.post, pid)
            if self._rotated:
                send(pid, signal.SIGUSR1)
        return ""

    def note_rotation(self) -> None:
        """The log was rotated: a worker that is being forked may have missed it."""
        self._rotated = True

    @property
    def awaits_child(self) -> bool:
        """Whether a child that nobody knows may be the one that was asked for."""
        return self._asked is not None

    @property
    def until(self) -> int:
        """When the patience with a template ends."""
        return FOREVER if self._asked is None else max(self._asked.until, self._judges_from)

    def _serves(self, template: Post) -> bool:
        stays = template.pid and not template.leaving and template is not self._silent
        return bool(stays) and template.slot[STATE] != BOOTING

    def _kill(self, template: Post, reason: str) -> None:
        """With a middle process in its group; the slot is filled without them."""
        say("template_failed", pid=template.pid, reason=reason)
        self._silent = template
        kill_group(template.pid)
