"""Every page and call of a site that only reads, as its routes name them, with each filter that they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, urlencode

from fastapi.routing import APIRoute

from jobvisor.supervisor.web.app import ROUTERS
from jobvisor.supervisor.web.events.stream import Stream

#: A common value, and one that few or no rows have.
FILTERS: Mapping[str, Sequence[str]] = {
    "state": ("pending", "scheduled", "running", "succeeded", "failed"),
    "queue": ("q3", "nobody"),
    "task": ("app:t7", "app:nobody"),
    "error": ("no route", "needle"),
    "error_type": ("app.Kind3", "app.Nobody"),
    "text": ("example.org", "needle"),
    "since": ("1h",),
    "within": ("1h",),
    "limit": ("100",),
    "hours": ("24",),
}
PLACES: Mapping[str, str] = {"queue": "q3", "name": "q3", "task": "app:t7"}


def calls(job: int) -> Iterator[str]:
    """Their paths; one that is about a job is asked about this."""
    for route in _routes():
        path = _filled(route, job)
        if path is None:
            continue
        yield path
        taken = set(_taken(route))
        for name in FILTERS.keys() & taken:
            yield from (f"{path}?{urlencode({name: value})}" for value in FILTERS[name])
        if {"state", "task", "queue"} <= taken:
            yield f"{path}?{urlencode({'state': 'failed', 'task': 'app:t7', 'queue': 'q7'})}"


def _routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and _only_reads(route):
                yield route


def _taken(route: APIRoute) -> Iterator[str]:
    """The names in its query, each by itself or as the members of one form."""
    for each in route.dependant.query_params:
        members = getattr(each.field_info.annotation, "model_fields", None)
        yield from members or (each.alias,)


def _only_reads(route: APIRoute) -> bool:
    return "GET" in (route.methods or ()) and route.response_class is not Stream


def _filled(route: APIRoute, job: int) -> str | None:
    """The path with something in each of its places; None where nobody knows what belongs there."""
    path = route.path
    for place in route.param_convertors:
        value = str(job) if place in {"job_id", "job", "id"} else PLACES.get(place)
        if value is None:
            return None
        path = path.replace(f"{{{place}}}", quote(value, safe=""))
    return path
