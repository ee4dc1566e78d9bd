"""How a family stands: its status, by its lock and its file, and whether it is well."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.documents.limits import told_unknown_limits, unknown_limits_of_status
from jobvisor.supervisor.documents.unknown import told_unknown, unknown_of_status
from jobvisor.supervisor.family import StateDir

__all__ = ["health_of", "is_serving", "of_holder", "standing_of", "trouble"]

FRESH_S = 10.0
"""The status is written every five seconds at the least: one older than this has no caretaker behind it."""


def standing_of(state: StateDir, name: str) -> dict[str, Any]:
    """The status that the family wrote itself; of one that does not run, or has just begun, that alone."""
    pid = state.holder()
    found = of_holder(state.status(), pid) if pid is not None else None
    return found or {
        "family": name,
        "pid": pid or None,
        "state": "stopped" if pid is None else "starting",
        "workers": [],
    }


def health_of(state: StateDir) -> dict[str, Any]:
    """Whether the family is well, and if not why, without asking a database.

    Jobs whose task no module has are a warning: the family is well, its modules are not.
    """
    pid = state.holder()
    found = state.status()
    reason = trouble(found, pid)
    living = of_holder(found, pid) if pid is not None else None
    return {
        "healthy": reason is None,
        "reason": reason,
        "pid": pid or None,
        "warnings": told_unknown(unknown_of_status(living))
        + told_unknown_limits(unknown_limits_of_status(living)),
    }


def of_holder(found: dict[str, Any] | None, pid: int | None) -> dict[str, Any] | None:
    """The status, unless an earlier family left it behind; pid 0 is a holder not visible here."""
    if found is None or (pid and found.get("pid") != pid):
        return None
    return found


def is_serving(status: dict[str, Any] | None, pid: int | None) -> bool:
    """Whether the family is there and runs jobs, well or not so well."""
    found = of_holder(status, pid) if pid is not None else None
    if found is None or found.get("state") in ("stopping", "stopped"):
        return False
    age = _age_s(found.get("written_at"))
    return age is not None and age <= FRESH_S and _has_ready_worker(found)


def trouble(status: dict[str, Any] | None, pid: int | None) -> str | None:
    """Why the family whose lock `pid` holds is not well, in one line; None when it is."""
    if pid is None:
        return "not running"
    found = of_holder(status, pid)
    if found is None:
        return "starting: no status yet"
    age = _age_s(found.get("written_at"))
    if age is None or age > FRESH_S:
        return f"its status is {'of unknown age' if age is None else f'{age:.0f} s old'}"
    degraded = found.get("degraded") or []
    if degraded or found.get("state") == "degraded":
        return f"degraded: {'; '.join(map(str, degraded)) or 'no reason given'}"
    if found.get("state") == "stopping":
        return "stopping"
    if found.get("waiting_for_database"):
        return "waiting for the database"
    return None if _has_ready_worker(found) else "no worker is ready"


def _has_ready_worker(found: dict[str, Any]) -> bool:
    ready = {"waiting", "idle", "turn", "busy"}
    return any(worker.get("state") in ready for worker in found.get("workers", []))


def _age_s(written_at: Any) -> float | None:
    """Seconds since an ISO time; a clock that went back makes it 0, not negative."""
    if isinstance(written_at, (int, float)):
        return max(0.0, (SYSTEM.now_ms() - written_at) / 1000)
    try:
        written = datetime.fromisoformat(str(written_at))
        return max(0.0, SYSTEM.now_ms() / 1000 - written.timestamp())
    except (ValueError, OverflowError):
        return None
