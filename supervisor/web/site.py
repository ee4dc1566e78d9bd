"""What every page and every call has at hand: the database, the family's own word, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from jobvisor.jobs.client import Client
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.web.directory import Directory
from jobvisor.supervisor.web.hiding import Hiding


@dataclass(frozen=True, slots=True)
class Site:
    """One application."""

    client: Client
    settings: Web
    state: StateDir | None
    """The family's folder, for its status and the stacks of its workers; None where there is none here."""
    directory: Directory = field(init=False)
    """The tasks that workers have told of."""
    hiding: Hiding = field(init=False)
    """What of a job is not shown: `[web] hide`."""

    def __post_init__(self) -> None:
        """Make what is its own."""
        directory = Directory(self.client)
        object.__setattr__(self, "directory", directory)
        object.__setattr__(self, "hiding", Hiding(self.settings.hide, directory.parameter_names))


def site_of(connection: HTTPConnection) -> Site:
    """The site that this request, or whatever is open, has come to."""
    found: Site = connection.app.state.site
    return found


Here = Annotated[Site, Depends(site_of)]
"""The type of a parameter that wants the site."""
