"""The application, put together: for the web role of a family, or to be mounted in somebody else's."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from jobvisor.jobs import __version__
from jobvisor.jobs.client import Client
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.counting.counters import Counters
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.web import health, metrics, problems, sign_in
from jobvisor.supervisor.web.api import openapi, table
from jobvisor.supervisor.web.body import BODY_SECONDS
from jobvisor.supervisor.web.doorkeeper import AuthenticatedBy, Doorkeeper
from jobvisor.supervisor.web.events import routes as events
from jobvisor.supervisor.web.events.live import Live
from jobvisor.supervisor.web.gate import Gate
from jobvisor.supervisor.web.pages import all_pages as pages
from jobvisor.supervisor.web.pages.errors import error_page
from jobvisor.supervisor.web.pages.paths import Paths
from jobvisor.supervisor.web.problems import Page
from jobvisor.supervisor.web.site import Site

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    sign_in.router,
    metrics.router,
    *table.ROUTERS,
    events.router,
    *pages.ROUTERS,
)
"""What a further chapter adds is a further row."""


class Application(FastAPI):
    """FastAPI with our gate before all of it: also before what answers an unforeseen error."""

    def guard(self, keeper: Doorkeeper, page: Page, *, body_s: float = BODY_SECONDS) -> None:
        """Judge every request by this one; what is refused is shown to people by this page."""
        self._body_s = body_s
        self.state.keeper = keeper
        self._page = page

    def build_middleware_stack(self) -> ASGIApp:
        """Called by the framework, once, with the first request."""
        return Gate(super().build_middleware_stack(), self.state.keeper, self._page, self._body_s)


def create_app(
    client: Client,
    *,
    settings: Web | None = None,
    state_dir: str | None = None,
    authenticated_by: AuthenticatedBy | None = None,
    counters: Counters | None = None,
) -> FastAPI:
    """An ASGI application over the database of this client, which stays the caller's to close.

    `state_dir` is the folder of the family on this machine, where there is one. Whoever asks is judged by
    `settings`: by their token or a sign-in, and where they have none only this machine is let in. In an
    application that has users of its own `authenticated_by` takes their place: called with the connection,
    it answers with the name of whoever asks, or None for nobody who may. `counters` is what the family
    counts, which its own web role alone has.
    """
    known = settings or Web()
    app = Application(
        title="jobvisor",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page would load scripts of other hosts
        redoc_url=None,
        redirect_slashes=False,  # one address for each thing
    )
    problems.install(app, error_page)
    app.guard(Doorkeeper(known, home=client.home, authenticated_by=authenticated_by), error_page)
    app.state.site = site = Site(client, known, None if state_dir is None else StateDir(state_dir))
    app.state.live = Live(site, site.hiding.shown)
    app.state.metrics = metrics.Metrics(site, counters)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", pages.STATIC, name="pages.static")
    app.state.paths = Paths(app)
    openapi.describe(app)
    return app
