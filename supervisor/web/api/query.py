"""The query of a call, held against the document of the API: no name it lacks, none twice but in lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from jobvisor.jobs.errors import shown
from jobvisor.jobs.nearest import suggestion
from jobvisor.supervisor.web.problems import Problem

__all__ = ["exact_query"]


def exact_query(request: Request) -> None:
    """The dependency of every call: a filter that is misspelled must not mean more than was meant."""
    given = request.query_params.multi_items()
    if not given:
        return
    known = _known(request)
    seen: set[str] = set()
    for name, _ in given:
        if name not in known:
            near = f"; {suggestion(name, known)}" if known else ""
            raise Problem(422, f"query.{shown(name)} is not known here{near}", error="Request")
        if name in seen and not known[name]:
            raise Problem(422, f"query.{name} is given twice; give one", error="Request")
        seen.add(name)


def _known(request: Request) -> Mapping[str, bool]:
    """The names that this call takes, and whether each may be given several times."""
    paths = request.app.openapi()["paths"]
    told = paths.get(request.scope["route"].path, {}).get(request.method.lower(), {})
    return {
        each["name"]: _is_list(each["schema"])
        for each in told.get("parameters", ())
        if each["in"] == "query"
    }


def _is_list(schema: Mapping[str, Any]) -> bool:
    return any(each.get("type") == "array" for each in (schema, *schema.get("anyOf", ())))
