"""The chapters of the API: what a further one adds is a further row."""

from __future__ import annotations

from fastapi import APIRouter

from jobvisor.supervisor.web.api import (
    bulk,
    families,
    jobs,
    limits,
    looks,
    pauses,
    schedules,
    sharing,
)

ROUTERS: tuple[APIRouter, ...] = (
    bulk.router,
    jobs.router,
    looks.router,
    schedules.router,
    pauses.router,
    sharing.router,
    limits.router,
    families.router,
)
