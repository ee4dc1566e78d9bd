"""Rows of a table cut to the width of a terminal: columns without room are left out, the least first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

__all__ = ["Column", "fitted"]

GAP = "  "


class Column(NamedTuple):
    """One column: its head, how soon it is left out (0: never), and whether it takes what is left."""

    head: str
    seldom: int = 0
    elastic: bool = False
    right: bool = False


LEAST = 8
"""Cells of an elastic column below which another one is left out for it."""


def fitted(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> tuple[str, list[str]]:
    """The line of heads and a line for each row, none wider than this.

    >>> head, lines = fitted([Column("id"), Column("why", 1)], [["7", "lost"]], 20)
    >>> head, lines
    ('id  why', ['7   lost'])
    >>> fitted([Column("id"), Column("why", 1)], [["7", "lost"]], 5)
    ('id', ['7'])
    """
    shown = list(range(len(columns)))
    while True:
        widths = {place: _wanted(columns[place], place, rows) for place in shown}
        free = width - sum(widths.values()) - len(GAP) * (len(shown) - 1)
        optional = [place for place in shown if columns[place].seldom]
        if free >= 0 or not optional:
            break
        shown.remove(max(optional, key=lambda place: (columns[place].seldom, place)))
    _share(widths, {place: _full(columns[place], place, rows) for place in shown}, free)
    heads = [column.head for column in columns]
    return _line(columns, heads, widths, width), [
        _line(columns, row, widths, width) for row in rows
    ]


def _share(widths: dict[int, int], full: dict[int, int], free: int) -> None:
    """Give what is left to those that want more, each the same; what one does not need goes to the others."""
    while free > 0:
        wanting = [place for place, width in widths.items() if width < full[place]]
        if not wanting:
            return
        each = max(1, free // len(wanting))
        for place in wanting[:free]:
            more = min(each, full[place] - widths[place])
            widths[place] += more
            free -= more


def _full(column: Column, place: int, rows: Sequence[Sequence[str]]) -> int:
    return max([len(column.head), *(cell_len(row[place]) for row in rows)])


def _wanted(column: Column, place: int, rows: Sequence[Sequence[str]]) -> int:
    full = _full(column, place, rows)
    return min(full, max(LEAST, len(column.head))) if column.elastic else full


def _line(columns: Sequence[Column], row: Sequence[str], widths: dict[int, int], width: int) -> str:
    cells = []
    for place, wide in widths.items():
        cell = row[place]
        if cell_len(cell) > wide:
            cell = f"{set_cell_size(cell, max(wide - 1, 0))}~"
        pad = " " * (wide - cell_len(cell))
        cells.append(pad + cell if columns[place].right else cell + pad)
    line = GAP.join(cells).rstrip()
    return set_cell_size(line, width) if cell_len(line) > width else line
