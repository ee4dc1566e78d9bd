"""Sessions of people who signed in: a signed cookie that says who, and until when; nothing is stored.

The key is made of the secrets of `[web]`, so a session outlives the process that began it, is good in
every process that has the same secrets, and ends with them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict

from jobvisor.jobs.clock import Clock

__all__ = ["LIFETIME_S", "Sessions"]

LIFETIME_S = 12 * 3600

ENDED_MAX = 10_000
"""Signed-out sessions that are remembered; each is forgotten with its expiry."""

_COOKIE_MAX = 1000  # characters; a longer one is not ours
_NONCE_BYTES = 12


class Sessions:
    """What signs a session and recognises it."""

    def __init__(self, secret: str, clock: Clock) -> None:
        """`secret` is all that a session must end with: of an empty one nothing is ever accepted."""
        # Slow on purpose: who got hold of a cookie must not find a weak password by trying.
        salt = b"jobvisor sessions"
        self._key = hashlib.scrypt(secret.encode(), salt=salt, n=2**14, r=8, p=1) if secret else b""
        self._clock = clock
        self._ended: OrderedDict[str, int] = OrderedDict()

    def begin(self, name: str) -> str:
        """The cookie of a new session of this person."""
        ends = self._clock.now_ms() // 1000 + LIFETIME_S
        who = base64.urlsafe_b64encode(name.encode()).decode()
        told = f"{ends}.{secrets.token_urlsafe(_NONCE_BYTES)}.{who}"
        return f"{told}.{self._signature(told)}"

    def who(self, cookie: str) -> str | None:
        """Whose session that is; None for one that is over, was ended, or that we did not begin."""
        told, _, signature = cookie.rpartition(".")
        if not self._key or len(cookie) > _COOKIE_MAX or not cookie.isascii():
            return None
        if not hmac.compare_digest(signature, self._signature(told)):
            return None
        ends, nonce, who = told.split(".")
        if int(ends) <= self._clock.now_ms() // 1000 or nonce in self._ended:
            return None
        try:
            return base64.urlsafe_b64decode(who).decode()
        except (binascii.Error, ValueError):
            return None

    def end(self, cookie: str) -> None:
        """Sign out: this session is over, for this process at least."""
        if self.who(cookie) is None:
            return
        ends, nonce, _ = cookie.split(".", 2)
        now = self._clock.now_ms() // 1000
        for old in [key for key, until in self._ended.items() if until <= now]:
            del self._ended[old]
        self._ended[nonce] = int(ends)
        while len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    def _signature(self, told: str) -> str:
        return hmac.new(self._key, told.encode(), hashlib.sha256).hexdigest()
