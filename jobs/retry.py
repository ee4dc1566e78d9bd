"""When to try again: policies that are functions of the attempt and its error, and nothing else.

A policy is stored in the row as JSON, so that it also decides where the process that knew it has
died. Every answer is capped, whatever the attempt's number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

# The module's own generator is seeded anew in each forked child; a Random() of ours would make all
# workers draw the same jitter.
from random import Random, uniform
from typing import Any, TypeGuard

from jobvisor.jobs.errors import InvalidOption, error_text
from jobvisor.jobs.units import DURATION_MAX_MS, Duration, duration_ms, duration_text

# After so many steps the distribution no longer changes: the cap or the largest double is reached.
_STEPS_MAX = 64

Answer = Callable[[int, BaseException], Duration | None]
"""A user's policy: (attempt, error) to a duration, or None to give up."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """Wait `first`, then `factor` times longer after each attempt, at most `cap`.

    With jitter a delay is drawn between half of it and all of it ("equal jitter"). Jitter spreads
    what failed together; the lower half is kept because a full jitter often retries at once, and
    what has just failed needs a pause.

    >>> policy = Exponential(first="1s", factor=2, cap="10s", jitter=False)
    >>> [policy.delay_ms(attempt) for attempt in (1, 2, 3, 4, 5, 10**9)]
    [1000, 2000, 4000, 8000, 10000, 10000]
    """

    first: Duration = field(default="1s", compare=False)
    factor: float = 2
    cap: Duration = field(default="1h", compare=False)
    jitter: bool = True
    first_ms: int = field(init=False, repr=False)
    cap_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set_range(self, self.first, self.cap)
        if not (_is_number(self.factor) and 1 <= self.factor <= 1_000):
            raise InvalidOption(f"retry: factor={self.factor!r} must be a number from 1 to 1000")

    def delay_ms(
        self, attempt: int, error: BaseException | None = None, random: Random | None = None
    ) -> int:
        """The wait after this attempt, counted from 1."""
        del error
        delay = min(_power(self.first_ms, self.factor, attempt - 1), self.cap_ms)
        return round(_drawn(random, delay / 2, delay)) if self.jitter else round(delay)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Wait the same after each attempt.

    >>> Fixed("5s").delay_ms(7)
    5000
    """

    delay: Duration = field(compare=False)
    fixed_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixed_ms", duration_ms(self.delay))

    def delay_ms(
        self, attempt: int, error: BaseException | None = None, random: Random | None = None
    ) -> int:
        """The wait after any attempt."""
        del attempt, error, random
        return self.fixed_ms


@dataclass(frozen=True, slots=True)
class DecorrelatedJitter:
    """Wait a time drawn between `first` and three times the wait before, at most `cap`.

    Spreads a herd better than Exponential and grows less evenly. The waits before are drawn anew
    each time, because a row does not remember them: each attempt has the distribution it should
    have. (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
    """

    first: Duration = field(default="1s", compare=False)
    cap: Duration = field(default="1h", compare=False)
    first_ms: int = field(init=False, repr=False)
    cap_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set_range(self, self.first, self.cap)

    def delay_ms(
        self, attempt: int, error: BaseException | None = None, random: Random | None = None
    ) -> int:
        """The wait after this attempt, counted from 1."""
        del error
        delay: float = self.first_ms
        for _ in range(min(max(attempt, 1), _STEPS_MAX)):
            delay = min(_drawn(random, self.first_ms, delay * 3), self.cap_ms)
        return round(delay)


@dataclass(frozen=True, slots=True)
class Asked:
    """Ask a function of the user; where it cannot be asked or answers badly, `fallback` decides.

    It cannot be asked when the process died (there is no exception), and where only the row is
    known: a stored Asked comes back with `function=None`.
    """

    function: Answer | None
    fallback: Exponential | Fixed | DecorrelatedJitter = field(default_factory=Exponential)

    def delay_ms(
        self, attempt: int, error: BaseException | None = None, random: Random | None = None
    ) -> int | None:
        """The wait the function asks for; None to give up.

        A function that raises, or answers what is no duration, leaves a note on the error that is
        seen in its traceback.
        """
        if self.function is None or error is None:
            return self.fallback.delay_ms(attempt, error, random)
        try:
            answer = self.function(attempt, error)
            return None if answer is None else duration_ms(answer)
        except Exception as broken:  # noqa: BLE001 -- a broken policy must not lose the job
            name = getattr(self.function, "__qualname__", type(self.function).__name__)
            error.add_note(
                f"the retry policy {name} failed, so the fallback decided: {error_text(broken)}"
            )
            return self.fallback.delay_ms(attempt, error, random)


Policy = Exponential | Fixed | DecorrelatedJitter | Asked


def as_policy(value: Policy | Duration | Answer | None) -> Policy:
    """What `retry=` means: a policy, a duration (Fixed), a callable (Asked), or None (the default).

    >>> as_policy("5s")
    Fixed(delay='5s')
    """
    if value is None:
        return DEFAULT
    if isinstance(value, Policy):
        return value
    if callable(value):
        return Asked(value)
    try:
        return Fixed(value)
    except InvalidOption as error:
        raise InvalidOption(
            f"retry={value!r} is no policy: give Exponential(...), Fixed(...), "
            f"DecorrelatedJitter(...), a duration, or a callable (attempt, error)"
        ) from error


def policy_json(policy: Policy) -> str:
    """The text that is stored in the row; a callable is stored as its fallback, marked as asked.

    >>> policy_json(Fixed("5s"))
    '{"kind":"fixed","delay":5000}'
    """
    return json.dumps(_parts(policy), separators=(",", ":"))


def _parts(policy: Policy) -> dict[str, Any]:
    if isinstance(policy, Asked):
        return _parts(policy.fallback) | {"asked": True}
    if isinstance(policy, Fixed):
        return {"kind": "fixed", "delay": policy.fixed_ms}
    span = {"first": policy.first_ms, "cap": policy.cap_ms}
    if isinstance(policy, DecorrelatedJitter):
        return {"kind": "decorrelated", **span}
    return {"kind": "exponential", **span, "factor": policy.factor, "jitter": policy.jitter}


@lru_cache(maxsize=256)  # a family runs a few dozen policies, and asks at each failure
def policy_from_json(text: str | None) -> Policy:
    """The stored policy. Text that this release does not understand gives the default: no crash.

    >>> policy_from_json('{"kind":"fixed","delay":5000}')
    Fixed(delay='5s')
    >>> policy_from_json('{"kind":"of a newer release"}') is DEFAULT
    True
    """
    if text is None:
        return DEFAULT
    try:
        parts = json.loads(text)
        policy = _from_parts(parts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return DEFAULT
    return Asked(None, policy) if parts.get("asked") is True else policy


def _from_parts(parts: dict[str, Any]) -> Exponential | Fixed | DecorrelatedJitter:
    def span(name: str) -> str:
        return duration_text(parts[name])

    kind = parts["kind"]
    if kind == "fixed":
        return Fixed(span("delay"))
    if kind == "decorrelated":
        return DecorrelatedJitter(span("first"), span("cap"))
    if kind == "exponential":
        return Exponential(span("first"), parts["factor"], span("cap"), jitter=parts["jitter"])
    return DEFAULT


def policy_for(stored: str | None, own: Policy | None) -> Policy:
    """The policy of a claimed row, with the task's own callable where the row says to ask it."""
    policy = policy_from_json(stored)
    if isinstance(policy, Asked) and isinstance(own, Asked):
        return own
    return policy


def _set_range(policy: Exponential | DecorrelatedJitter, first: Duration, cap: Duration) -> None:
    first_ms, cap_ms = duration_ms(first), duration_ms(cap)
    if first_ms > cap_ms:
        raise InvalidOption(f"retry: first={first!r} is longer than cap={cap!r}; raise the cap")
    object.__setattr__(policy, "first_ms", first_ms)
    object.__setattr__(policy, "cap_ms", cap_ms)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _power(first: int, factor: float, exponent: int) -> float:
    """`first * factor ** exponent`, at most the longest duration."""
    if first == 0 or factor == 1 or exponent <= 0:
        return first
    # By logarithms, because the power itself is too large for a float after a thousand attempts.
    if exponent >= math.log(DURATION_MAX_MS / first, factor):
        return DURATION_MAX_MS
    return float(first * factor**exponent)


def _drawn(random: Random | None, low: float, high: float) -> float:
    return uniform(low, high) if random is None else random.uniform(low, high)


DEFAULT = Exponential()
"""The policy of a task that names none: 1 s, 2 s, 4 s, ... up to an hour, with jitter."""
