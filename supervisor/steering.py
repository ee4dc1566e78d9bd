"""A family that is told what to do: by a signal or a wish, and the answer that its status or the wish has."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any

from jobvisor.jobs import __version__
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import FamilyNotRunning, InvalidOption, JobsError
from jobvisor.supervisor.documents.standing import of_holder
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.parent.wishes import Wishes

__all__ = [
    "ask_to_reload",
    "check_wanted",
    "readable_status",
    "reload_number",
    "scale_pool",
    "wait_pools",
]

ANSWER_WAIT_S = 10.0
"""The status is written on every change; a family that shows none for so long is not answering."""

POLL_S = 0.05


def scale_pool(state: StateDir, pool: str | None, wanted: str) -> dict[str, Any]:
    """Have `4`, `+1` or `-1` workers in a pool until the next reload; the pool and how many it has now.

    Raises InvalidOption with the family's own reason where it refuses, JobsError where it stops.
    """
    check_wanted(wanted)
    pool = _pool(wait_pools(state), pool)
    answer = Wishes(state).ask(pool, wanted, ANSWER_WAIT_S)
    if answer.get("stopping"):
        name = (readable_status(state) or {}).get("family")
        raise JobsError(f"family {name} is stopping; it is not scaled any more")
    if "refused" in answer:
        raise InvalidOption(str(answer["refused"]))
    return {"pool": pool, **{word: answer.get(word) for word in ("workers", "least", "most")}}


def ask_to_reload(state: StateDir) -> tuple[int, int]:
    """Ask for a reload, which goes on by itself; the pid of the parent, and the number of the last one.

    The status shows how the next one ends, with a higher number.
    """
    before = of_holder(readable_status(state), state.holder()) or {}
    _check_release(before, "reload")
    pid = state.signal(signal.SIGHUP)
    return pid, reload_number(before)


def readable_status(state: StateDir) -> dict[str, Any] | None:
    """The status as it is written; None where it is damaged."""
    try:
        return state.status()
    except JobsError:
        return None  # damaged; what is asked for does not need it


def _check_release(found: Mapping[str, Any], key: str) -> None:
    """A family of a release before 0.3 shows no answer that could be waited for."""
    if found and key not in found:
        raise JobsError(
            f"the family (pid {found.get('pid')}) runs release {found.get('version')}, which does not "
            f"answer this command of {__version__}: `jobvisor stop` it and start it again"
        )


def reload_number(status: Mapping[str, Any]) -> int:
    """Of the last reload; they count from 1."""
    told = status.get("reload")
    return int(told["number"]) if isinstance(told, dict) else 0


def _pool(pools: Mapping[str, int], named: str | None) -> str:
    known = ", ".join(pools)
    if named is None and len(pools) == 1:
        return next(iter(pools))
    if named is None:
        raise InvalidOption(f"there are the pools {known}: write `jobvisor scale POOL N`")
    if named not in pools:
        raise InvalidOption(f"there is no pool {named!r}; the family has {known}")
    return named


def check_wanted(wanted: str) -> None:
    """InvalidOption for what is no number of workers."""
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", wanted):
        raise InvalidOption(
            f"{wanted!r} is not a number of workers; write 4 for four, +1 or -1 for more or fewer"
        )


def wait_pools(state: StateDir, *, patience_s: float = ANSWER_WAIT_S) -> dict[str, int]:
    """How many workers each pool is to have, by the status, which a family writes once it is up."""
    deadline = SYSTEM.monotonic_ns() + int(patience_s * 1e9)
    while True:
        pid = state.holder()
        if pid is None:
            raise FamilyNotRunning(
                f"no family runs in {state.path}; start one with `jobvisor start`"
            )
        found = of_holder(state.status(), pid) or {}
        _check_release(found, "pools")
        pools: dict[str, int] = found.get("pools") or {}
        if pools:
            return pools
        if SYSTEM.monotonic_ns() >= deadline:
            raise JobsError(
                f"the family (pid {pid}) has shown no status in {patience_s:g} s; see its log"
            )
        SYSTEM.sleep(POLL_S)
