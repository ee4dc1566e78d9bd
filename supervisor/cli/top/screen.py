"""The loop of `top`, and what each key does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import InvalidOption, JobsError
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.found import Count, Group
from jobvisor.jobs.job import Job
from jobvisor.supervisor.cli.selection import words_of
from jobvisor.supervisor.cli.top.cursor import Cursor
from jobvisor.supervisor.cli.top.database import Database
from jobvisor.supervisor.cli.top.desk import Answer, Desk
from jobvisor.supervisor.cli.top.page import HELP, HINTS, Page, Styled, frame, page_lines
from jobvisor.supervisor.cli.top.pager import Pager
from jobvisor.supervisor.cli.top.prompt import Line, Yes
from jobvisor.supervisor.cli.top.rows import FAILURES, JOBS, TABS, WORKERS, Row, cell, key_of
from jobvisor.supervisor.cli.top.seen import Seen
from jobvisor.supervisor.cli.top.terminal import Size, Terminal
from jobvisor.supervisor.cli.top.texts import Texts
from jobvisor.supervisor.cli.top.typed import typed_words

__all__ = ["Screen"]

EVERY_NS = 1_000_000_000

LOOK, READ, TEXT, COUNTED, DONE = "look", "read", "text", "counted", "done"
"""What an answer is about."""

PAGED = 10
"""Rows that a page key moves by."""

LEAVE_S = 0.5
"""How long the end waits for an answer that is under way: a database that is away must not hold anybody."""

END_S = 10.0
"""And for the page of a long deed to be done and noted."""

BUSY = "still busy with what was asked before; try again in a moment"

PAGER_HINTS = "Esc back  j k Space g G scroll  c cancel  r requeue  s stack  l log  Enter show"


class Screen:
    """What the person sees and has chosen."""

    def __init__(self, terminal: Terminal, database: Database, seen: Seen, texts: Texts) -> None:
        self._terminal = terminal
        self._database = database
        self._seen = seen
        self._texts = texts
        self._asked, self._here = Desk("database", database.close), Desk("here")
        self._waits: set[str] = set()
        self._again = False
        self._tab = WORKERS if seen.local is not None else JOBS
        self._cursors = {tab: Cursor() for tab in TABS}
        self._narrowed = dict.fromkeys(TABS, "")
        self._paused = False
        self._said = ""
        self._pager: Pager | None = None
        self._prompt: Line | Yes | None = None
        self._over = False
        self._due = 0
        self._keys: dict[str, Callable[[], None]] = {
            "q": self._quit, "?": self._help, "p": self._pause, "/": self._filter, "f": self._failures,
            "tab": self._next_tab, "enter": self._show_job, "l": self._show_log, "s": self._show_stack,
            "c": self._cancel, "r": self._requeue, "redraw": self._refresh,
            **{str(number): partial(self._to, tab) for number, tab in enumerate(TABS, 1)},
        }  # fmt: skip

    def run(self) -> int | None:
        """Until somebody quits; the signal that ended it, where it was one."""
        try:
            return self._run()
        finally:
            self._asked.close(END_S if self._database.leave() else LEAVE_S)
            self._here.close(LEAVE_S)

    def _run(self) -> int | None:
        while not self._over:
            now = SYSTEM.monotonic_ns()
            if now >= self._due:
                self._due = now + EVERY_NS
                if not self._paused:
                    self._look()
            self._draw()
            seconds = (self._due - SYSTEM.monotonic_ns()) / 1e9
            waited = self._terminal.wait(seconds, [self._asked.news, self._here.news])
            if waited.leaving is not None:
                return waited.leaving
            # Keys first: they mean what was on the screen when they were pressed.
            for key in waited.keys:
                self._press(key)
            for answer in self._asked.take() + self._here.take():
                self._hear(answer)
        return None

    # -- what is asked, and what is answered

    def _look(self) -> None:
        """Ask for all that is shown; what is still being answered is not asked again."""
        if self._seen.local is not None:
            self._ask(self._here, READ, self._seen.local.read)
        tab, narrowed = self._tab, self._narrowed[self._tab]
        self._ask(self._asked, LOOK, lambda: self._database.look(tab, narrowed))
        if self._pager is not None and self._pager.live:
            self._fill(self._pager)

    def _ask(self, desk: Desk, about: str, question: Callable[[], Any]) -> None:
        if about in self._waits:
            if about in (COUNTED, DONE):
                self._said = BUSY
            return
        if desk.ask(about, question):
            self._waits.add(about)
        else:
            self._said = BUSY

    def _hear(self, answer: Answer) -> None:
        self._waits.discard(answer.about)
        if answer.about == READ and self._seen.local is not None:
            self._seen.local.note(answer.value, answer.error)
        elif answer.about == LOOK:
            self._seen.note(answer.value, answer.error)
            if self._again:
                self._again = False
                self._look()
        elif answer.about == TEXT:
            pager, lines = answer.value
            pager.fill(lines)
        elif answer.error is not None:
            self._said = str(answer.error)
        elif answer.about == COUNTED:
            self._ask_about(*answer.value)
        else:
            self._said = str(answer.value)
            self._due = 0  # what has been done is to be seen

    # -- what is drawn

    def _draw(self) -> None:
        size = self._terminal.size
        lines = self._pager_lines(self._pager, size) if self._pager else self._lines(size)
        self._terminal.draw(frame(lines, size))

    def _lines(self, size: Size) -> list[Styled]:
        narrowed = self._narrowed[self._tab]
        table = self._seen.table(self._tab, narrowed)
        title = f"{self._tab} with {cell(narrowed)}" if narrowed else self._tab
        if self._tab == JOBS and (looked := self._seen.looked.looked) is not None:
            title += f", among the newest {looked}"
        page = Page(
            head=self._seen.head(0.0 if self._database.course else self._asked.silent_s),
            queues=self._seen.queues(),
            title=title,
            table=table,
            chosen=self._cursors[self._tab].at(table.rows),
            deaths=self._seen.deaths(),
            foot=self._foot(size, HINTS),
        )
        return page_lines(page, size)

    def _pager_lines(self, pager: Pager, size: Size) -> list[Styled]:
        shown = pager.shown(size.columns, max(1, size.lines - 2))
        head = Styled(f"{pager.title} ({pager.where})", "bold")
        rest = [Styled("")] * (size.lines - 2 - len(shown))
        return [head, *map(Styled, shown), *rest, self._foot(size, PAGER_HINTS)]

    def _foot(self, size: Size, hints: str) -> Styled:
        if self._prompt is not None:
            return Styled(self._prompt.shown(size.columns), "bold")
        if (course := self._database.course) is not None:
            return Styled(str(course), "bold")
        if self._said:
            return Styled(cell(self._said), "bold yellow")
        return Styled("paused; p goes on" if self._paused else hints, "dim")

    # -- keys

    def _press(self, key: str) -> None:
        self._said = ""
        if self._prompt is not None:
            prompt = self._prompt
            if prompt.press(key) and self._prompt is prompt:
                self._prompt = None
        elif self._pager is not None and key in ("q", "escape", "left"):
            self._pager = None
        elif not self._moved(key) and key in self._keys:
            self._keys[key]()

    def _moved(self, key: str) -> bool:
        if self._pager is not None:
            return self._pager.move(key)
        rows = self._seen.table(self._tab, self._narrowed[self._tab]).rows
        return self._cursors[self._tab].move(key, rows, PAGED)

    def _quit(self) -> None:
        self._over = True

    def _pause(self) -> None:
        self._paused = not self._paused
        self._due = 0

    def _help(self) -> None:
        self._open(Pager("help", lines=HELP))

    def _to(self, tab: str) -> None:
        self._pager = None
        self._tab = tab
        self._refresh()

    def _next_tab(self) -> None:
        self._to(TABS[(TABS.index(self._tab) + 1) % len(TABS)])

    def _failures(self) -> None:
        self._to(WORKERS if self._tab == FAILURES else FAILURES)

    def _refresh(self) -> None:
        """Ask for another table at once, also while the refresh is paused."""
        self._again = LOOK in self._waits
        self._look()

    def _filter(self) -> None:
        self._pager = None
        self._prompt = Line("filter: ", self._narrowed[self._tab], self._narrow)

    def _narrow(self, text: str) -> None:
        if self._tab == JOBS:
            try:
                Filter(**words_of(typed_words(text)))
            except InvalidOption as error:
                self._said = str(error)
                return
        self._narrowed[self._tab] = text
        self._refresh()

    # -- the job that is meant

    def _row(self) -> Row | None:
        rows = self._seen.table(self._tab, self._narrowed[self._tab]).rows
        return rows[self._cursors[self._tab].at(rows)] if rows else None

    def _job(self) -> int | None:
        """The one whose text is open, else that of the chosen row."""
        if self._pager is not None:
            return self._pager.job
        row = self._row()
        found = row and _job_of(row)
        if found is None:
            self._said = "no job is chosen"
        return found

    def _open(self, pager: Pager) -> None:
        self._pager = pager
        self._waits.discard(TEXT)
        self._fill(pager)

    def _fill(self, pager: Pager) -> None:
        question = pager.question
        if question is not None:
            # A live text is the database's; the others are asked of processes, which may take a second.
            desk = self._asked if pager.live else self._here
            self._ask(desk, TEXT, lambda: (pager, _lines_of(question)))

    def _show_job(self) -> None:
        if (job := self._job()) is not None:
            self._open(Pager(f"job {job}", job=job, question=lambda: self._texts.job(job)))

    def _show_log(self) -> None:
        if (job := self._job()) is not None:
            said = Pager(f"log of job {job}", job=job, question=lambda: self._texts.said(job))
            said.follow()
            self._open(said)

    def _show_stack(self) -> None:
        row = self._row() if self._pager is None and self._tab == WORKERS else None
        job = self._job()
        who: int | str | None = job
        if row is not None and job is None:
            who, self._said = f"worker {row.key}", ""
        if who is not None:
            title = f"stack of {who if isinstance(who, str) else f'job {who}'}"
            stack = Pager(title, job=job, question=lambda: self._texts.stack(who), live=False)
            self._open(stack)

    # -- what changes something

    def _cancel(self) -> None:
        if self._is_group():
            self._said = "no single job is chosen: Enter shows one of the group"
        elif (job := self._job()) is not None:
            self._prompt = Yes(f"cancel job {job}", lambda: self._do(self._database.cancel, job))

    def _requeue(self) -> None:
        row = self._row()
        if self._is_group() and row is not None:
            group: Group = row.about
            self._ask(self._asked, COUNTED, lambda: (group, self._database.count(group)))
        elif (job := self._job()) is not None:
            self._prompt = Yes(f"requeue job {job}", lambda: self._do(self._database.requeue, job))

    def _is_group(self) -> bool:
        return self._pager is None and self._tab == FAILURES

    def _ask_about(self, group: Group, count: Count) -> None:
        row = self._row()
        if (
            self._prompt is not None
            or not self._is_group()
            or row is None
            or row.key != key_of(group)
        ):
            return  # the person has gone on meanwhile: a question must not take a key that is not for it
        question = (
            f"requeue {count} failed jobs of {cell(group.task)} with {cell(group.error_type)}"
        )
        self._prompt = Yes(question, lambda: self._do(self._database.requeue_group, group))

    def _do(self, deed: Callable[[Any], str], what: Any) -> None:
        self._ask(self._asked, DONE, lambda: deed(what))


def _lines_of(question: Callable[[], list[str]]) -> list[str]:
    try:
        return question()
    except (JobsError, OSError) as error:
        return [str(error)]


def _job_of(row: Row) -> int | None:
    if isinstance(row.about, Job):
        return row.about.id
    if isinstance(row.about, Group):
        return row.about.example
    found = row.about.get("job")
    return found if isinstance(found, int) else None
