"""The known name that a misspelled one is closest to: what "did you mean" says."""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["did_you_mean", "nearest", "suggestion"]

WORD_MAX = 200
"""A longer text is no slip of the finger, and comparing it would take long."""


LISTED_MAX = 10
"""More names than this are not listed: nobody would read them."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The closest of the known names, whatever the case of their letters; None if none is close.

    `cutoff` is how alike they must be, of 1.

    >>> nearest("PROCESES", ["processes", "queues"])
    'processes'
    >>> nearest("xyzzy", ["processes", "queues"])
    """
    import difflib  # noqa: PLC0415 - only a misspelled name needs it

    if len(word) > WORD_MAX:
        return None
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=cutoff)
    return by_fold[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error's sentence that names the closest one; nothing where none is close.

    >>> did_you_mean("proceses", ["processes", "queues"])
    "; did you mean 'processes'?"
    """
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def suggestion(word: str, known: Collection[str], otherwise: str = "") -> str:
    """What is offered in place of an unknown name: the closest one, or the names there are.

    `otherwise` is said in place of a list that would be too long.

    >>> suggestion("proceses", ["processes", "queues"])
    'did you mean "processes"?'
    >>> suggestion("x", ["processes", "queues"])
    'known are: processes, queues'
    """
    close = nearest(word, known)
    if close is not None:
        return f'did you mean "{close}"?'
    if len(known) > LISTED_MAX and otherwise:
        return otherwise
    return f"known are: {', '.join(known)}"
