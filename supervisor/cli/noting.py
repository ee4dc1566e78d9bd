"""The action log as commands write it: who of this machine did what."""

from __future__ import annotations

import os
import pwd
from contextlib import closing

from jobvisor.jobs.client import Client
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.identity import HOST
from jobvisor.jobs.store import open_store
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.cli import say
from jobvisor.supervisor.config import Config

__all__ = ["note", "note_of_family", "who"]

PATIENCE_S = 2.0
"""What is done to a family needs no database, and does not wait long for one."""


def who() -> str:
    """The operating system's user and machine; of a root who is one by sudo also who that was."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may have no name for it
        name = f"user {os.getuid()}"
    behind = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return f"{behind} as {name}@{HOST}" if behind else f"{name}@{HOST}"


def note(client: Client, verb: str, what: str, number: int | None = None) -> None:
    """Note it; where that cannot be, tell so: what was done stays done."""
    try:
        client.note_action(who(), verb, what, number)
    except JobsError as error:
        say(_not_noted(error))


def note_of_family(config: Config, verb: str, what: str, number: int | None = None) -> None:
    """The same of what was done to a family, whose database may be away, or not yet there."""
    database = config.database
    target = parse_url(database.url)
    if target.kind != "postgresql" and not os.path.exists(target.path):
        return
    try:
        with closing(
            open_store(
                database.url,
                schema=database.schema,
                prefix=database.prefix,
                notify=False,
                patience=PATIENCE_S,
            )
        ) as store:
            store.note_action(who(), verb, what, number)
    except JobsError as error:
        say(_not_noted(error))


def _not_noted(error: JobsError) -> str:
    return f"warning: it is done, but not in the log of actions: {error}"
