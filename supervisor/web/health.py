"""Whether it lives, whether it is ready, and which release it is: for probes, without a sign-in."""

from __future__ import annotations

from fastapi import APIRouter

from jobvisor.jobs import __version__

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez")
def livez() -> dict[str, bool]:
    """That this process answers; it never asks the database."""
    return {"alive": True}


@router.get("/api/v1/version", operation_id="version")
def version() -> dict[str, str]:
    """The release that answers."""
    return {"version": __version__}
