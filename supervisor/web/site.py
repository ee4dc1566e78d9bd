"""What every page and every call has at hand: the database, the family's own word, and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from jobvisor.jobs.client import Client
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.family import StateDir


@dataclass(frozen=True, slots=True)
class Site:
    """One application."""

    client: Client
    settings: Web
    state: StateDir | None
    """The family's folder, for its status and the stacks of its workers; None where there is none here."""


def site_of(connection: HTTPConnection) -> Site:
    """The site that this request, or whatever is open, has come to."""
    found: Site = connection.app.state.site
    return found


Here = Annotated[Site, Depends(site_of)]
"""The type of a parameter that wants the site."""
