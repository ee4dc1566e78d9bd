"""The page of one job: what it is, what happened to it and why, what it says now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.job import FINISHED, Attempt, Job, State
from jobvisor.jobs.uniqueness import KEPT, UNFINISHED, WAITING
from jobvisor.supervisor.documents.said import run_of
from jobvisor.supervisor.documents.words import call
from jobvisor.supervisor.web.pages.asked import known_id
from jobvisor.supervisor.web.pages.templates import show
from jobvisor.supervisor.web.pages.words import between, brief, number, size
from jobvisor.supervisor.web.shown import why_of
from jobvisor.supervisor.web.site import Here, Site

router = APIRouter(include_in_schema=False)

CALL_MAX = 400
TAIL_MAX = 16_384
"""Letters of what a running job says that are shown."""


@router.get("/jobs/{job}", name="pages.job")
def job_page(request: Request, site: Here, job: str) -> Response:
    """All that is known of it."""
    found = site.client.get(known_id(job))
    attempts = site.client.attempts(found)
    told = site.hiding.shown(found.as_json())
    return show(
        request,
        "job.html",
        at="jobs",
        job=found,
        args=_named(site.directory.parameter_names(found.task), told["args"]),
        kwargs=told["kwargs"],
        job_headers=told["headers"] or {},
        result=told["result"],
        call=call(told, CALL_MAX),
        attempts=_attempts(attempts),
        running=_running(site, found),
        progress=_progress(told["progress"]),
        why=why_of(site, found),
        key=_key(site, found),
        waited=_waited(found),
        kept=_kept(found.keep),
        took=between(found.started_at, found.finished_at) if found.finished else None,
    )


_HELD = {
    UNFINISHED: "while it is unfinished",
    WAITING: "until it begins",
    KEPT: "as long as it is kept",
}


def _key(site: Site, job: Job) -> dict[str, Any]:
    """How long its unique key is held, or who else holds it now."""
    holder = None if job.unique is None else site.client.holder(job.unique)
    if holder == job.id:
        return {"held": _HELD.get(job.unique_for or "", "until"), "other": None}
    return {"held": "not any more" if holder is None else "now by", "other": holder}


def _kept(keep: Mapping[str, float | None] | None) -> str:
    """How long it is kept after its end, where it says so itself."""
    told = {
        state: "for ever" if seconds is None else brief(seconds)
        for state, seconds in (keep or {}).items()
    }
    if len(told) == len(FINISHED) and len(set(told.values())) == 1:
        return next(iter(told.values()))
    return ", ".join(f"{time} if {state}" for state, time in told.items())


def _named(names: Sequence[str], args: Any) -> list[tuple[str, Any]]:
    """Arguments by place with what their parameters are called, as far as a worker has told it."""
    given = args if isinstance(args, list) else [args]
    return [
        (names[place] if place < len(names) else str(place), value)
        for place, value in enumerate(given)
    ]


def _attempts(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    """The newest first, each with its cause and its texts."""
    told = [_attempt(place, each) for place, each in enumerate(attempts)]
    if told:
        told[-1]["newest"] = True
    return told[::-1]


def _attempt(place: int, attempt: Attempt) -> dict[str, Any]:
    texts = (
        ("Traceback", attempt.traceback),
        ("Where it stood", attempt.stack),
        ("What it said last", attempt.said),
    )
    return {
        "number": place,
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "error_type": attempt.error_type,
        "message": attempt.message,
        "finished_at": attempt.finished_at,
        "cause": _cause(attempt),
        "facts": list(_facts(attempt)),
        "texts": [(word, text) for word, text in texts if text],
        "newest": False,
    }


def _cause(attempt: Attempt) -> str:
    """What ended it, where that was no exception of its own."""
    parts = []
    if attempt.verdict:
        parts.append(attempt.verdict)
    if attempt.signal:
        parts.append(attempt.signal)
    elif attempt.exit_code is not None and not attempt.verdict:
        parts.append(f"exit code {attempt.exit_code}")
    return ", ".join(parts)


def _facts(attempt: Attempt) -> Iterable[str]:
    took = between(attempt.started_at, attempt.finished_at)
    if took is not None:
        yield f"took {brief(took)}"
    if attempt.cpu_ms is not None:
        yield f"CPU {brief(attempt.cpu_ms / 1000)}"
    if attempt.rss_bytes:
        yield f"memory {size(attempt.rss_bytes)}"
    if attempt.host:
        yield f"on {attempt.host}"
    if attempt.pid:
        yield f"pid {attempt.pid}"


def _running(site: Site, job: Job) -> dict[str, Any] | None:
    """The run that goes on: for how long, and of one on this machine where and what it says."""
    if job.state is not State.RUNNING:
        return None
    began = job.claimed_at or job.run_at
    told: dict[str, Any] = {
        "seconds": max(0.0, (SYSTEM.now_ms() - from_datetime(began)) / 1000),
        "worker": None,
        "pid": None,
        "said": "",
    }
    run = None if site.state is None else run_of(site.state.ledgers, job)
    if run is not None:
        words = run.words()
        told |= {"worker": run.life.name, "pid": run.life.identity.pid}
        told["said"] = words.kept.decode(errors="replace")[-TAIL_MAX:] if words else ""
    return told


def _progress(told: Any) -> dict[str, Any] | None:
    """How far it has come: in words, and as a share where its end is known."""
    if not isinstance(told, Mapping):
        return None
    done, total = told.get("done"), told.get("total")
    words, share = number(done) if _is_number(done) else "", None
    if _is_number(done) and _is_number(total) and total > 0:
        words, share = f"{words} of {number(total)}", min(1.0, max(0.0, done / total))
    return {"told": words, "share": share, "note": told.get("note") or ""}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _waited(job: Job) -> float | None:
    """From when it was due to its last claim; one that is blocked was claimed and waits on."""
    if job.state is State.BLOCKED:
        return None
    waited = between(job.run_at, job.claimed_at)
    return waited if waited is not None and waited >= 0 else None
