"""The names of ours in a database that has others too: each with a prefix, put in where SQL is loaded.

Our files say the plain names. Where a word stands for a table or what belongs to one, it is known by
what stands before or behind it, so that a column or a parameter of the same name stays as it is.
"""

from __future__ import annotations

import re
from functools import cache

TABLES = (
    "jobs", "attempts", "families", "owners", "meta", "changes", "stats", "actions", "tasks",
    "requests", "limits", "limit_keys", "turns", "queues", "schedules", "ticks", "uniques",
)  # fmt: skip
_TABLES = "|".join(TABLES)
#: Views, indexes, triggers and constraints; sequences and functions are only named within a schema.
_BESIDE = (
    "jobs_(?:readable|pending|scheduled|retrying|running|cancelling|finished|unique|deferred|blocked"
    "|unknown|suspects|listed|failures|wake|forget|shares|places|limited|candidates|parked|expiring|deadlines"
    "|kept|resting|timed)|attempts_(?:readable|job_fkey)|owners_family|requests_at|limit_keys_next"
    "|uniques_(?:job|until)|tasks_paused"
)
_NAMES = re.compile(
    rf"""
    (?P<schema>\{{schema\}}\.)                             # all that is in our schema
    | (?P<word>\b(?:FROM|INTO|UPDATE|JOIN|TABLE|ON|REFERENCES)\s+)(?P<table>{_TABLES})\b
    | (?<![\w.:])(?P<own>(?:{_TABLES})(?=\.\w)|(?:{_BESIDE})\b)  # the table of a column, what is beside
    | (?<=name\ =\ ')(?P<looked_for>{_TABLES})(?=')         # in a catalogue
    """,
    re.VERBOSE,
)
#: The header of a file has one number, which is another program's where the file is.
_NUMBERED = re.compile(r"PRAGMA user_version = (\d+)")
_NUMBER = (
    r"INSERT INTO {}meta (key, value) VALUES ('schema', '\1') "
    r"ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


@cache  # of texts in our own files
def prefixed(text: str, prefix: str) -> str:
    """The same SQL about the objects whose names begin with the prefix.

    >>> prefixed("UPDATE jobs SET jobs = :jobs WHERE jobs.id = 1", "shop_")
    'UPDATE shop_jobs SET jobs = :jobs WHERE shop_jobs.id = 1'
    """
    if not prefix:
        return text
    named = _NAMES.sub(rf"\g<schema>\g<word>{prefix}\g<table>\g<own>\g<looked_for>", text)
    return _NUMBERED.sub(_NUMBER.format(prefix), named)
