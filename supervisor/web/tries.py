"""Failed tries to get in, by the address they come from: each further one waits longer.

Bounded in memory and in what waits: whoever tries ten thousand times slows down nobody but himself.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from jobvisor.jobs.clock import SECOND, Clock

__all__ = ["ADDRESSES_MAX", "Tries"]

ADDRESSES_MAX = 1000
FREE = 5
"""Failures that cost nothing: a person mistypes."""
REFILL_NS = 6 * SECOND
"""After so long without one, a failure is forgiven."""
WAIT_FIRST_S, WAIT_MOST_S = 0.1, 2.0
WAITING_MAX = 64
"""Tries that wait at a time; a further one is told so at once."""


@dataclass(slots=True)
class _Failures:
    count: float
    at: int


class Tries:
    """What has failed lately."""

    def __init__(self, clock: Clock, *, most_s: float = WAIT_MOST_S) -> None:
        """`most_s` is the longest that an answer is held back."""
        self.most_s = most_s
        self._clock = clock
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()
        self.waiting = 0
        """Answers that are being held back now."""

    def note(self, address: str) -> float:
        """A try of this address has failed: for how many seconds its answer is to be held back."""
        now = self._clock.monotonic_ns()
        place = _place(address)
        found = self._by_address.pop(place, None) or _Failures(0, now)
        found.count = max(0.0, found.count - (now - found.at) / REFILL_NS) + 1
        found.at = now
        self._by_address[place] = found
        while len(self._by_address) > ADDRESSES_MAX:
            self._by_address.popitem(last=False)
        over = found.count - FREE
        return 0.0 if over <= 0 else min(WAIT_FIRST_S * 2 ** min(over, 10), self.most_s)

    def refuses(self, address: str) -> int:
        """Seconds until this address may try a password again; 0 where it may now."""
        found = self._by_address.get(_place(address))
        if found is None:
            return 0
        left = found.count - (self._clock.monotonic_ns() - found.at) / REFILL_NS - 2 * FREE
        return 0 if left <= 0 else int(left * REFILL_NS / SECOND) + 1

    def __len__(self) -> int:
        return len(self._by_address)


def _place(address: str) -> str:
    """An address, of IPv6 the network: whoever has one of its addresses has all.

    >>> _place("2001:db8::1"), _place("10.0.0.1")
    ('2001:db8::/64', '10.0.0.1')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "?"
    return (
        str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
    )
