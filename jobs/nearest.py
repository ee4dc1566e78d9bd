"""The known name that a misspelled one is closest to: what "did you mean" says."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]

WORD_MAX = 200
"""A longer text is no slip of the finger, and comparing it would take long."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The closest of the known names, whatever the case of their letters; None if none is close.

    >>> nearest("PROCESES", ["processes", "queues"])
    'processes'
    >>> nearest("xyzzy", ["processes", "queues"])
    """
    import difflib  # noqa: PLC0415 - only a misspelled name needs it

    if len(word) > WORD_MAX:
        return None
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=1)
    return by_fold[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error's sentence that names the closest one; nothing where none is close.

    >>> did_you_mean("proceses", ["processes", "queues"])
    "; did you mean 'processes'?"
    """
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""
