"""How long a job is kept after its end: one time for every end, or one for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.job import FINISHED
from jobvisor.jobs.units import DURATION_MAX_MS, Duration, duration_ms, duration_text

__all__ = ["FOREVER", "STATES", "Keep", "check_keep", "encode_keep", "read_keep", "told_keep"]

Keep = Duration | Mapping[str, Duration]
"""A duration or "forever", for every end or by the state: `{"succeeded": "1h", "failed": "forever"}`."""

FOREVER = "forever"

STATES = tuple(sorted(state.value for state in FINISHED))


def check_keep(option: str, value: Any) -> dict[str, int | None]:
    """Milliseconds by state, None for ever; a state of which nothing is said is not in it.

    >>> check_keep("keep", {"failed": "forever", "succeeded": "1h"})
    {'failed': None, 'succeeded': 3600000}
    >>> check_keep("keep", "1h")
    {'cancelled': 3600000, 'failed': 3600000, 'succeeded': 3600000}
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(STATES, _time(option, value))
    for state in value:
        if state not in STATES:
            raise InvalidOption(
                f"{option}: {shown(state)} is no end of a job; write {', '.join(STATES[:-1])} or {STATES[-1]}"
            )
    if not value:
        raise InvalidOption(f"{option}={{}} says nothing; leave it out")
    return {state: _time(f"{option}[{state!r}]", value[state]) for state in sorted(value)}


def _time(option: str, value: Any) -> int | None:
    if value == FOREVER:
        return None
    try:
        found = duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}, or {FOREVER!r}") from error
    # Elsewhere a plain 0 means "no limit", and here it would delete all of them.
    if found == 0 and not (isinstance(value, str) and value.strip()[-1:].isalpha()):
        raise InvalidOption(
            f"{option}={shown(value)} could mean either; write '0s' for not at all, or {FOREVER!r}"
        )
    return found


def encode_keep(option: str, value: Any) -> str:
    """What a person wrote, as the column has it: for ever is a hundred years there.

    >>> encode_keep("keep", {"failed": "forever", "succeeded": "1h"})
    '{"failed": 3153600000000, "succeeded": 3600000}'
    """
    times = check_keep(option, value)
    return json.dumps({k: DURATION_MAX_MS if v is None else v for k, v in times.items()})


def read_keep(stored: str | None) -> dict[str, float | None] | None:
    """What the column has, in seconds; None for ever, and for what nobody can read."""
    try:
        found = None if stored is None else json.loads(stored)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return {
        state: None if ms >= DURATION_MAX_MS else ms / 1000
        for state, ms in found.items()
        if state in STATES and isinstance(ms, int)
    }


def told_keep(stored: str) -> str | dict[str, str]:
    """As a person would write it.

    >>> told_keep(encode_keep("keep", "90s")), told_keep(encode_keep("keep", {"failed": "forever"}))
    ('1m30s', {'failed': 'forever'})
    """
    told = {
        state: FOREVER if seconds is None else duration_text(round(seconds * 1000))
        for state, seconds in (read_keep(stored) or {}).items()
    }
    return told["failed"] if len(told) == len(STATES) and len(set(told.values())) == 1 else told
