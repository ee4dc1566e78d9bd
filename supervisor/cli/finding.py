"""One line of `doctor`: what a check found, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Finding"]


class Finding(NamedTuple):
    """What one check of `doctor` found; `status` is ok, warn or fail."""

    check: str
    status: str
    text: str
