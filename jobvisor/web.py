"""Pages, API and metrics as an ASGI application of yours: see `create_app`. Needs the extra `web`."""

from __future__ import annotations

from jobvisor.supervisor.web.app import create_app

__all__ = ["create_app"]
