"""`/metrics`: what the family counts and says, and what waits in its database, as Prometheus reads it.

Where the application is mounted without a family it tells of the database alone. A database that is away
takes only its own part away, and says so: `jobvisor_database_up` is 0.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.supervisor.counting.counters import Counters
from jobvisor.supervisor.counting.totals import Reader
from jobvisor.supervisor.documents.standing import health_of, standing_of
from jobvisor.supervisor.web.celery_names import in_celerys_words
from jobvisor.supervisor.web.depths import DepthLook
from jobvisor.supervisor.web.measures import (
    of_counters,
    of_depths,
    of_limits,
    of_schedules,
    of_status,
)
from jobvisor.supervisor.web.site import Site

router = APIRouter()

FRESH_NS = SECOND
"""Two who ask within this time are told the same."""


class Metrics:
    """What one application tells. To prometheus_client it is a collector."""

    def __init__(self, site: Site, counters: Counters | None, clock: Clock = SYSTEM) -> None:
        self._site = site
        self._clock = clock
        self._reader = None if counters is None else Reader(counters)
        self._look = DepthLook(site.client, clock)
        self._lock = threading.Lock()
        self._told: dict[str, tuple[int, bytes]] = {}

    def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that is asked for, and the name of that."""
        encode, kind = choose_encoder(accept)
        with self._lock:
            at, text = self._told.get(kind, (0, b""))
            now = self._clock.monotonic_ns()
            if not text or now - at >= FRESH_NS:
                text = encode(self)  # of a registry it asks no more
                self._told = {kind: (self._clock.monotonic_ns(), text)}
        return text, kind

    def collect(self) -> Iterator[Metric]:
        """All of them, as of now."""
        totals = None if self._reader is None else self._reader.read()
        if totals is not None:
            yield from of_counters(totals)
        status = self._status()
        if status is not None:
            healthy = bool(self._site.state and health_of(self._site.state)["healthy"])
            yield from of_status(status, healthy=healthy)
        depths = self._look.see()
        yield GaugeMetricFamily(
            "jobvisor_database_up",
            "Whether the database could be asked.",
            float(depths is not None),
        )
        yield CounterMetricFamily(
            "jobvisor_scrape_errors", "Times that it could not be asked for these metrics.",
            value=self._look.errors,
        )  # fmt: skip
        if depths is not None:
            yield from of_depths(depths, status or {})
            yield from of_schedules(depths.schedules)
            yield from of_limits(depths.limits)
        if self._site.settings.metrics_compat == "celery":
            yield from in_celerys_words(totals, status or {}, depths)

    def _status(self) -> dict[str, Any] | None:
        return None if self._site.state is None else standing_of(self._site.state, "")


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request, accept: Annotated[str, Header()] = "") -> Response:
    """Prometheus' text format, or OpenMetrics where that is asked for."""
    told: Metrics = request.app.state.metrics
    text, kind = told.text(accept)
    return Response(text, headers={"Content-Type": kind, "Cache-Control": "no-store"})
