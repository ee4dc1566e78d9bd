"""What a value in config.toml may be: how it is read, and what to write instead of a wrong one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.keep import STATES
from jobvisor.jobs.task import MEMORY_MIN
from jobvisor.jobs.units import duration_ms, size_bytes
from jobvisor.jobs.url import absolute_url

PREFIX_HELP = (
    'at most 20 lower-case letters, digits and _, the first a letter, such as "jobvisor_"; '
    'not beginning with sqlite_; "" for none'
)
_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Form:
    """What one value may be.

    `read` takes the value as TOML has it and the folder its relative paths start from; it raises
    ValueError (or ConfigError, with the whole reason) for a value it will not have. `from_text`
    makes such a value of the text of a variable.
    """

    expects: str
    read: Callable[[Any, str], Any]
    from_text: Callable[[str], Any] = str
    hidden: bool = False
    """Whether it is a secret, that no error may show."""


class Span(NamedTuple):
    """A number, or the least and the most that it may be."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"


def duration(least_ms: int, expects: str) -> Form:
    """Milliseconds from a duration of at most a year."""

    def read(value: Any, _: str) -> int:
        milliseconds = duration_ms(_plain(value, str, int, float))
        if not least_ms <= milliseconds <= _YEAR_MS:
            raise ValueError(value)
        return milliseconds

    return Form(f"{expects}, at most 365 days", read)


def retention() -> Form:
    """Milliseconds that something is kept, None for ever.

    A plain 0 is refused: elsewhere it says "no limit", and here it would delete everything.
    """
    kept = duration(0, "")

    def read(value: Any, folder: str) -> int | None:
        if value == "forever":
            return None
        milliseconds: int = kept.read(value, folder)
        if milliseconds == 0 and not (isinstance(value, str) and value.strip()[-1].isalpha()):
            raise ValueError(value)
        return milliseconds

    return Form(
        'a duration such as "7d", at most 365 days, "forever" to keep it, or "0s" to delete it at '
        'once (a plain "0" could be meant as either)',
        read,
    )


def keeping() -> Form:
    """Milliseconds that jobs are kept by the state of their end (pairs), None for ever; "" says nothing."""
    one = retention()

    def read(value: Any, folder: str) -> tuple[tuple[str, int | None], ...]:
        if value == "":
            return ()
        by_state = value if isinstance(value, dict) else dict.fromkeys(STATES, value)
        if not by_state or not set(by_state) <= set(STATES):
            raise ValueError(value)
        return tuple((state, one.read(by_state[state], folder)) for state in sorted(by_state))

    def from_text(text: str) -> Any:
        if "=" not in text:
            return text
        return dict(re.split(r"\s*=\s*", each.strip(), maxsplit=1) for each in text.split(","))

    states = ", ".join(STATES)
    return Form(
        f'{one.expects}; or one for each of {states}, as {{ succeeded = "1h", failed = "30d" }} '
        "(in a variable succeeded=1h,failed=30d)",
        read,
        from_text,
    )


def size() -> Form:
    """Bytes from a size with its unit; 0 is no limit."""

    def read(value: Any, _: str) -> int:
        number = size_bytes(_plain(value, str, int))
        if number and (_is_number(value) or not MEMORY_MIN <= number < 1 << 62):
            raise ValueError(value)
        return number

    return Form('a size with its unit such as "512MB", at least "1MB", or "0" for no limit', read)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) or value.strip()[-1:].isdigit()


def count(least: int, most: int) -> Form:
    """A whole number in a range."""

    def read(value: Any, _: str) -> int:
        number: int = _plain(value, int)
        if not least <= number <= most:
            raise ValueError(value)
        return number

    return Form(f"a whole number from {least} to {most}", read, int)


def count_or_none(least: int, most: int) -> Form:
    """A whole number in a range; None for ""."""
    number = count(least, most)

    def read(value: Any, folder: str) -> int | None:
        return None if value == "" else int(number.read(value, folder))

    return Form(f'{number.expects}, or "" for none', read, int)


def span(least: int, most: int) -> Form:
    """A whole number in a range, or a range within it."""
    number = count(least, most)

    def read(value: Any, folder: str) -> Span:
        ends = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", value) if isinstance(value, str) else None
        if ends is None:
            return Span(*[number.read(value, folder)] * 2)
        found = Span(*(number.read(int(end), folder) for end in ends.groups()))
        if found.least > found.most:
            raise ValueError(value)
        return found

    def from_text(text: str) -> Any:
        return text if "-" in text else int(text)

    return Form(f'{number.expects}, or the least and the most as "1-8"', read, from_text)


def choice(*words: str) -> Form:
    """One of these words."""

    def read(value: Any, _: str) -> str:
        if value not in words:
            raise ValueError(value)
        return str(value)

    return Form(" or ".join(json.dumps(word) for word in words), read)


def word(check: Callable[[Any], str], expects: str) -> Form:
    """One text that passes a check."""

    def read(value: Any, _: str) -> str:
        return check(value)

    return Form(expects, read)


def words(check: Callable[[Any], str], expects: str, *, least: int = 1) -> Form:
    """Texts that pass a check, each once; with commas between them in a variable."""

    def read(value: Any, _: str) -> tuple[str, ...]:
        found = tuple(check(one) for one in _plain(value, list, tuple))
        if len(found) < least or len(set(found)) < len(found):
            raise ValueError(value)
        return found

    return Form(expects, read, lambda text: [one.strip() for one in text.split(",")])


def secret() -> Form:
    """A text that is sent in a header, and shown nowhere."""
    check = matching(r"[\x21-\x7e]{0,200}")
    expects = "up to 200 visible ASCII characters, without spaces (the value is not shown here)"
    return Form(expects, lambda value, _: check(value), hidden=True)


def matching(pattern: str) -> Callable[[Any], str]:
    """The check of a text that must be matched whole by a pattern."""

    def check(value: Any) -> str:
        if not re.fullmatch(pattern, _plain(value, str)):
            raise ValueError(value)
        return str(value)

    return check


def url() -> Form:
    """A database URL, of SQLite with an absolute path."""

    def read(value: Any, folder: str) -> str:
        return absolute_url(_plain(value, str), folder)

    return Form('a database URL such as "sqlite:///jobs.db" or "postgresql://host/database"', read)


def listed() -> Form:
    """A list of any values; JSON in a variable."""

    def read(value: Any, _: str) -> tuple[Any, ...]:
        return tuple(_plain(value, list, tuple))

    return Form('a list of values, as ["mail", 3]', read, json.loads)


def mapped() -> Form:
    """A table of any values; JSON in a variable."""

    def read(value: Any, _: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(value)  # noqa: TRY004 - one error for every wrong value
        return dict(value)

    return Form("a table of values, as { days = 7 }", read, json.loads)


def flag() -> Form:
    """True or false; in a variable the words true and false, or 1 and 0."""

    def read(value: Any, _: str) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)  # noqa: TRY004 - one error for every wrong value
        return value

    def from_text(text: str) -> bool:
        meant = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
        if meant is None:
            raise ValueError(text)
        return meant

    return Form("true or false", read, from_text)


def flag_or_none() -> Form:
    """The same; None for ""."""
    known = flag()

    def read(value: Any, folder: str) -> bool | None:
        return None if value == "" else bool(known.read(value, folder))

    return Form(f'{known.expects}, or "" for neither', read, known.from_text)


def file_path() -> Form:
    """The path of a file, "" for none."""

    def read(value: Any, folder: str) -> str:
        path: str = _plain(value, str)
        return _absolute(path, folder) if path else ""

    return Form("a path, or an empty text for standard error", read)


def folder_path() -> Form:
    """The path of a folder."""

    def read(value: Any, folder: str) -> str:
        if not _plain(value, str):
            raise ValueError(value)
        return _absolute(value, folder)

    return Form("the path of a folder", read)


def _absolute(path: str, folder: str) -> str:
    if "\0" in path:
        raise ValueError(path)
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def _plain(value: Any, *types: type) -> Any:
    """The value itself when it is of one of these types; `true` is no number here."""
    if isinstance(value, bool) or not isinstance(value, types):
        raise ValueError(value)  # noqa: TRY004 - one error for every wrong value
    return value


def check_prefix(value: Any) -> str:
    """What begins the names of our tables, "" for nothing; InvalidOption where it could not.

    >>> check_prefix("shop_")
    'shop_'
    """
    if (
        not isinstance(value, str)
        or not re.fullmatch("|[a-z][a-z0-9_]{0,19}", value)
        or value.startswith("sqlite_")
    ):
        raise InvalidOption(
            f"prefix={shown(value)} cannot begin the names of tables: write {PREFIX_HELP}"
        )
    return value


def check_schema(value: Any) -> str:
    """The name of a PostgreSQL schema of our own; InvalidOption where it could not be one.

    Lower case only, so that it means the same with and without quotes.

    >>> check_schema("shop")
    'shop'
    """
    if (
        not isinstance(value, str)
        or not re.fullmatch("[a-z_][a-z0-9_]{0,62}", value)
        or value.startswith("pg_")
        or value == "information_schema"
    ):
        raise InvalidOption(
            f"schema={shown(value)} is no schema of ours: write 1 to 63 lower-case letters, "
            "digits and _, not beginning with a digit or pg_"
        )
    return value
