"""The page of the families that share this database."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.annals import Family
from jobvisor.supervisor.web.pages.standing import standing
from jobvisor.supervisor.web.pages.templates import show
from jobvisor.supervisor.web.site import Here

router = APIRouter(include_in_schema=False)


@router.get("/families", name="pages.families")
def families_page(request: Request, site: Here) -> Response:
    """Each with its machine, its release, and when it was last heard of."""
    here = str(standing(site).status.get("family_id", ""))
    told = [_family(each, here) for each in site.client.families()]
    return show(request, "families.html", at="families", families=told)


def _family(family: Family, here: str) -> dict[str, Any]:
    state, kind = "alive", "good"
    if family.died:
        state, kind = "declared dead", "bad"
    elif family.silent > family.dead_after:
        state, kind = "silent", "bad"
    return {
        "name": family.name,
        "here": str(family.id) == here,
        "state": state,
        "kind": kind,
        "host": family.host,
        "pid": family.pid,
        "version": family.version,
        "started": family.started_at,
        "beat": family.heartbeat_at,
        "dead_after": family.dead_after,
        "state_dir": family.state_dir,
    }
