"""All pages, for the application: their addresses, and the files that they load."""

from __future__ import annotations

from fastapi import APIRouter

from jobvisor.supervisor.web.pages import (
    actions,
    bulk,
    failures,
    families,
    job,
    jobs,
    limits,
    order,
    overview,
    pauses,
    queues,
    schedules,
    sharing,
    steer,
    tasks,
    theme,
    verbs,
    workers,
)
from jobvisor.supervisor.web.pages.templates import STATIC

__all__ = ["ROUTERS", "STATIC"]

ROUTERS: tuple[APIRouter, ...] = (
    overview.router,
    queues.router,
    jobs.router,
    bulk.router,
    verbs.router,
    order.router,
    job.router,
    failures.router,
    workers.router,
    steer.router,
    families.router,
    tasks.router,
    schedules.router,
    limits.router,
    pauses.router,
    sharing.router,
    actions.router,
    theme.router,
)
