"""Jobs that wait for a task no module has, as `status`, `health` and `doctor` tell them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobvisor.jobs.store.base import Unknown

__all__ = ["UNKNOWN_MAX", "told_unknown", "unknown_of_status"]

UNKNOWN_MAX = 100
"""More names than this are a broken deployment, and nobody reads them."""


def told_unknown(unknown: Iterable[Unknown]) -> list[str]:
    """A sentence for each task: how many jobs wait, and the nearest task there is.

    >>> told_unknown([Unknown("app:sned", 2, "unknown: no module has it; did you mean app:send?")])
    ["2 jobs wait for 'app:sned': no module has it; did you mean app:send?"]
    """
    return [
        f"{_jobs(each.jobs)} for {each.task!r}: "
        f"{(each.error or 'no module has this task').removeprefix('unknown: ')}"
        for each in unknown
    ]


def unknown_of_status(status: Mapping[str, Any] | None) -> list[Unknown]:
    """What the caretaker last saw of them; none in the status of a release that did not look."""
    told = (status or {}).get("unknown_tasks")
    if not isinstance(told, list):
        return []
    return [
        Unknown(str(each.get("task")), int(each.get("jobs") or 0), each.get("error"))
        for each in told
        if isinstance(each, dict)
    ]


def _jobs(number: int) -> str:
    return "1 job waits" if number == 1 else f"{number} jobs wait"
