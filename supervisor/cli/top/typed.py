"""What is typed behind `/`: the words of a Filter as `state=failed`, and others that are looked for."""

from __future__ import annotations

import re

from jobvisor.jobs.errors import InvalidOption
from jobvisor.supervisor.cli.selection import Given

__all__ = ["typed_words"]

NAMES = ("state", "queue", "task", "error", "error-type", "since", "until")

_NAMED = re.compile(rf"({'|'.join(NAMES)})=(\S*)")


def typed_words(typed: str) -> Given:
    """What `filter_options` would have given for it; a value ends at a space.

    >>> typed_words("state=failed you@example.com since=1h")
    {'state': ('failed',), 'since': '1h', 'text': 'you@example.com'}
    >>> typed_words("")
    {}
    """
    words: dict[str, object] = {}
    for name, value in _NAMED.findall(typed):
        if not value:
            raise InvalidOption(f"{name}= wants a value, such as {name}=...")
        if name == "state":
            words["state"] = (*words.get("state", ()), value)  # type: ignore[misc] # a tuple of texts
        else:
            words[name.replace("-", "_")] = value
    text = " ".join(_NAMED.sub("", typed).split())
    return {**words, "text": text} if text else words
