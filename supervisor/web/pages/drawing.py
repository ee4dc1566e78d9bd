"""Bars and lines as SVG: no script, no inline style, no text; as wide as the place they stand in."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

__all__ = ["bars", "line"]

STEP = 10
"""Width of one value in the drawing's own units."""
HEIGHT = 60
LEAST = 1.5
"""One of a million is still to be seen."""

_FRAME = Markup(
    '<svg viewBox="0 0 {wide} 60" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
    '<line class="grid" x1="0" x2="{wide}" y1="0" y2="0"/>'
    '<line class="grid" x1="0" x2="{wide}" y1="30" y2="30"/>'
    '{inside}<line class="base" x1="0" x2="{wide}" y1="60" y2="60"/></svg>'
)
_BAR = Markup('<rect class="{kind}" x="{left}" y="{top}" width="8" height="{high}"/>')
_LINE = Markup('<path class="area" d="{area}"/><path class="edge" d="{edge}"/>')


def bars(values: Sequence[float | None], kind: str) -> Markup:
    """One bar for each value but nothing and 0; the greatest is as high as the drawing."""
    top = _top(values)
    drawn = [
        _BAR.format(kind=kind, left=place * STEP + 1, top=round(HEIGHT - high, 2), high=high)
        for place, value in enumerate(values)
        if value
        for high in [round(max(LEAST, value / top * HEIGHT), 2)]
    ]
    return _framed(len(values), Markup("").join(drawn))


def line(values: Sequence[float | None]) -> Markup:
    """A line in steps over an area; it has a gap where nothing is known."""
    top = _top(values)
    edge, area, goes_on = "", "", False
    for place, value in enumerate(values):
        if value is None:
            goes_on = False
            continue
        left, right, high = (
            place * STEP,
            (place + 1) * STEP,
            round(HEIGHT - value / top * HEIGHT, 2),
        )
        edge += f"{'L' if goes_on else 'M'}{left} {high}L{right} {high}"
        area += f"M{left} {HEIGHT}V{high}H{right}V{HEIGHT}Z"
        goes_on = True
    return _framed(len(values), _LINE.format(area=area, edge=edge))


def _top(values: Sequence[float | None]) -> float:
    return max((value for value in values if value), default=1)


def _framed(count: int, inside: Markup) -> Markup:
    return _FRAME.format(wide=count * STEP, inside=inside)
