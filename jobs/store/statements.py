"""The named statements of a dialect, read from its file, with the column lists they share put in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from jobvisor.jobs.store.base import Whom
from jobvisor.jobs.store.prefix import prefixed
from jobvisor.jobs.store.shipped import read_statements


def statements(dialect: str, prefix: str = "", *, waits: bool = False) -> dict[str, str]:
    """The statements of one dialect by name, in the order of its file; about tables with this prefix.

    `waits`: a claim tells for how long each of its rows has been due.
    """
    return _read(dialect, prefix, waits)  # however the caller names them, they are kept once


@cache
def _read(dialect: str, prefix: str, waits: bool) -> dict[str, str]:
    """What stands in the file, read once.

    A part that begins with `-- fragment: NAME` is a list of columns, or a condition: it stands
    wherever a statement, or another fragment, says `{NAME}`, so that a new column is written once. `{whom}`
    is no fragment, and `{reach}` stands only in what passes over suspects. A statement that says `{*along}`
    or `{*source}` is one for each fragment whose name begins so.
    """
    head, *parts = read_statements(dialect).split("-- name: ")
    fragments = dict(map(_named, head.split("-- fragment: ")[1:]))
    if not waits:
        fragments["waited"] = "NULL"
    fragments = {word: _filled(each, fragments) for word, each in fragments.items()}
    found = dict(map(_named, parts))
    found = {name: each for part in found.items() for name, each in _of_whom(*part)}
    for group in ("along", "source"):
        kinds = [
            word.removeprefix(f"{group}_") for word in fragments if word.startswith(f"{group}_")
        ]
        found = {name: each for part in found.items() for name, each in _of(group, kinds, *part)}
    return {name: prefixed(_filled(each, fragments), prefix) for name, each in found.items()}


def of(statement: str, kind: str) -> str:
    """The name of a statement that is one for each fragment of a group.

    >>> of("find", "listed")
    'find.listed'
    """
    return f"{statement}.{kind}"


def _filled(text: str, fragments: Mapping[str, str]) -> str:
    for word, columns in fragments.items():
        text = text.replace(f"{{{word}}}", columns)
    return text


def _of(group: str, kinds: Iterable[str], name: str, text: str) -> Iterator[tuple[str, str]]:
    """A statement for each kind in a group: where it says `{*WORD}` the fragment WORD_KIND stands."""
    if f"{{*{group}}}" not in text:
        yield name, text
        return
    for kind in kinds:
        yield of(name, kind), re.sub(r"\{\*(\w+)\}", rf"{{\1_{kind}}}", text)


def _of_whom(name: str, text: str) -> Iterator[tuple[str, str]]:
    """A statement about rows to claim is three: of anybody, and by a suffix of a `Whom`."""
    if "{whom}" not in text:
        yield name, text
        return
    for whom in Whom:
        condition = f" {{{whom.value}}}" if whom.value else ""
        reach = " {reach}" if whom is Whom.UNSUSPECTED else ""
        yield whom.of(name), text.replace(" {whom}", condition).replace(" {reach}", reach)


class Worded(dict[str, bytes]):
    """Statements as a server takes them, made when first asked for: a process needs few."""

    def __init__(self, texts: Mapping[str, str], worded: Callable[[str], str]) -> None:
        """`worded` puts the names of a schema into a text."""
        super().__init__()
        self._texts = texts
        self._worded = worded

    def __missing__(self, name: str) -> bytes:
        made = self[name] = self._worded(self._texts[name]).encode()
        return made


def _named(part: str) -> tuple[str, str]:
    name, _, rest = part.partition("\n")
    lines = [line for line in rest.splitlines() if not line.startswith("--")]
    return name.strip(), "\n".join(lines).strip().rstrip(";")
