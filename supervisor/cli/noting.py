"""The action log as commands write it: who of this machine did what; it is noted after it was done."""

from __future__ import annotations

import os
import pwd

from jobvisor.jobs.client import Client
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.identity import HOST
from jobvisor.supervisor.cli import say

__all__ = ["note", "who"]


def who() -> str:
    """The operating system's user and machine; of a root who is one by sudo also who that was."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may have no name for it
        name = f"user {os.getuid()}"
    behind = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return f"{behind} as {name}@{HOST}" if behind else f"{name}@{HOST}"


def note(client: Client, verb: str, what: str, number: int | None = None) -> None:
    """Note it; where that cannot be, say so: what was done stays done."""
    try:
        client.note_action(who(), verb, what, number)
    except JobsError as error:
        say(f"warning: it is done, but not in the log of actions: {error}")
