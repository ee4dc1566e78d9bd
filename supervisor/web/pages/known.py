"""Names that a page can offer: tasks that workers have told of, queues that are served or waited in."""

from __future__ import annotations

from typing import Any

from jobvisor.supervisor.web.pages.asked import Asked
from jobvisor.supervisor.web.pages.standing import standing
from jobvisor.supervisor.web.site import Site

__all__ = ["meant", "queue_names", "task_names"]

NAMES_MAX = 500


def task_names(site: Site) -> list[str]:
    """Those of the registered tasks."""
    return sorted(site.directory.tasks())[:NAMES_MAX]


def meant(site: Site, asked: Asked) -> dict[str, Any]:
    """The tasks that are meant by the end of a name; nothing where it is whole, or of no known task."""
    known = site.directory.tasks()
    if not asked.task or asked.task in known:
        return {}
    found = [name for name in known if name.endswith((f":{asked.task}", f".{asked.task}"))]
    return {"task": found} if found else {}


def queue_names(site: Site) -> list[str]:
    """Those that the family here serves, and those that have pending jobs."""
    return sorted({*standing(site).queues, *site.client.latencies()})[:NAMES_MAX]
