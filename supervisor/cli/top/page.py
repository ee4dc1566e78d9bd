"""The whole screen as lines: who the family is, what waits, the table one moves in, what can be pressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from jobvisor.supervisor.cli import plain
from jobvisor.supervisor.cli.top.columns import fitted
from jobvisor.supervisor.cli.top.rows import Row, Table
from jobvisor.supervisor.cli.top.terminal import Size

__all__ = ["HELP", "Page", "Styled", "frame", "page_lines"]

QUEUES_SHOWN, DEATHS_SHOWN = 6, 3
LEAST_ROWS = 4
"""Lines that the table one moves in has before the others have any."""

HINTS = "q quit  ? help  f failures  Enter show  / filter  p pause"

HELP = """\
j k Up Down   move, with PgUp PgDn
g G Home End  to the first or the last
Enter         show the job, all of it
Tab 1 2 3     workers, jobs, failures
f             failures, and back
/             only rows with these words
c             cancel the job
r             requeue the job, or all of
              the group of failures
s             the stack of the job, or
              of the worker
l             what the job says: its log
p             pause, and go on
Ctrl-L        draw and ask anew
q Ctrl-C      quit; Ctrl-Z suspends
Esc           leave what is open

Cancel and requeue ask first.

A filter of jobs takes the words of
`jobvisor list`: state=failed
queue=mail task=send error=refused
error-type=OSError since=1h until=5m;
other words are looked for in the name,
the error, the key and the arguments.
An empty one shows all again.""".splitlines()


class Styled(NamedTuple):
    """A line, and how it looks."""

    text: str
    style: str = ""


@dataclass(slots=True)
class Page:
    """What there is to show."""

    head: list[Styled]
    """Who the family is and how it goes, then what is wrong, the most important first."""
    queues: Table
    title: str
    table: Table
    chosen: int
    """The row of the table that the cursor is on."""
    deaths: Table
    foot: Styled = field(default=Styled(HINTS, "dim"))


def frame(lines: Sequence[Styled], size: Size) -> Group:
    """Lines as they are drawn: none wider than the screen."""
    shown = [
        Text(_cut(plain(line.text), size.columns), line.style, no_wrap=True, overflow="crop")
        for line in lines[: size.lines]
    ]
    return Group(*shown)


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(0, width - 1))}~"


def page_lines(page: Page, size: Size) -> list[Styled]:
    """The page, exactly as many lines as there are."""
    width, left = size.columns, size.lines - 1  # one is the foot's
    head = [Styled(part, line.style) for line in page.head for part in wrap(line.text, width)]
    lines = head[: max(1, left // 3)]
    left -= len(lines)
    queues = _boxed(page.queues, width, min(QUEUES_SHOWN, left - LEAST_ROWS - 4))
    left -= len(queues)
    deaths = _boxed(page.deaths, width, min(DEATHS_SHOWN, left - LEAST_ROWS - 4))
    left -= len(deaths)
    lines += queues
    lines += _moved_in(page, width, left)
    lines += [Styled("")] * (size.lines - 1 - len(lines) - len(deaths))
    return [*lines, *deaths, page.foot][: size.lines]


def _boxed(table: Table, width: int, most: int) -> list[Styled]:
    """A table that is only looked at: its first rows, and how many there are beyond; an empty line first."""
    if not table.rows or most < 1:
        return []
    rows = table.rows[:most]
    head, lines = fitted(table.columns, [row.cells for row in rows], width)
    more = len(table.rows) - len(rows)
    if more:
        head = f"{head}  (and {more} more)"
    shown = [Styled(line, row.style) for row, line in zip(rows, lines, strict=True)]
    return [Styled(""), Styled(head, "bold"), *shown]


def _moved_in(page: Page, width: int, height: int) -> list[Styled]:
    if height < 3:
        return []
    rows, chosen = page.table.rows, page.chosen
    room = height - 2
    first = max(0, min(chosen - room // 2, len(rows) - room))
    seen: list[Row] = rows[first : first + room]
    head, lines = fitted(page.table.columns, [row.cells for row in seen], width)
    where = f"{page.title}: {chosen + 1} of {len(rows)}" if rows else f"{page.title}: none"
    found = [Styled(_rule(where, width), "dim"), Styled(head, "bold")]
    for number, (row, line) in enumerate(zip(seen, lines, strict=True), first):
        mark = number == chosen
        text = set_cell_size(line, width) if mark else line
        found.append(Styled(text, "reverse" if mark else row.style))
    return found


def _rule(title: str, width: int) -> str:
    return f"-- {title} {'-' * max(0, width - len(title) - 4)}"[:width]
