"""Every page and call that only reads, as the routes name them; lists with each word of a filter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, urlencode

from fastapi.dependencies.models import Dependant
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
    "limit": ("100",),
    "range": ("24h",),
    "counts": ("true",),
}
PLACES: Mapping[str, str] = {"queue": "q3", "name": "caretaker", "process": "caretaker"}
JOBS = ("/jobs", "/api/v1/jobs")
WORDS = ("state", "queue", "task", "error", "error_type", "text", "since")
NARROW = {"state": "failed", "queue": "q7", "task": "app:t7", "error": "no route"}


def calls(job: int) -> Iterator[str]:
    """Their paths; one that is about a job is asked about this."""
    for route in _routes():
        path = _filled(route, job)
        if path is None:
            continue
        yield path
        taken = set(WORDS) if path in JOBS else _names(route.dependant)
        for name in (name for name in FILTERS if name in taken):
            yield from (f"{path}?{urlencode({name: value})}" for value in FILTERS[name])
        if path in JOBS:
            yield f"{path}?{urlencode(NARROW)}"
            yield f"{path}?before={job}"


def _names(dependant: Dependant) -> set[str]:
    """What its query may hold, each by itself or as the members of one form."""
    names: set[str] = set()
    for each in dependant.query_params:
        names |= set(getattr(each.field_info.annotation, "model_fields", None) or (each.alias,))
    return names.union(*(_names(each) for each in dependant.dependencies))


def _routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and _only_reads(route):
                yield route


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
