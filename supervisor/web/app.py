"""The application, put together: for the web role of a family, or to be mounted in somebody else's."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from jobvisor.jobs import __version__
from jobvisor.jobs.client import Client
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.web import health, problems
from jobvisor.supervisor.web.site import Site

ROUTERS: tuple[APIRouter, ...] = (health.router,)
"""What a further chapter adds is a further row."""


def create_app(
    client: Client, *, settings: Web | None = None, state_dir: str | None = None
) -> FastAPI:
    """An ASGI application over the database of this client, which stays the caller's to close.

    `state_dir` is the folder of the family on this machine, where there is one.
    """
    app = FastAPI(
        title="jobvisor",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page would load scripts of other hosts
        redoc_url=None,
        redirect_slashes=False,  # one address for each thing
    )
    problems.install(app)
    app.state.site = Site(
        client, settings or Web(), None if state_dir is None else StateDir(state_dir)
    )
    for router in ROUTERS:
        app.include_router(router)
    return app
