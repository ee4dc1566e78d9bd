"""Signatures of what is sent, after the Standard Webhooks specification: by a secret that no row holds.

https://github.com/standard-webhooks/standard-webhooks, version 1: HMAC-SHA256 of id, moment and body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re

from jobvisor.jobs.errors import InvalidOption, shown

_NAME = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_PREFIX = "whsec_"


def key_of(secret: object) -> bytes:
    """The key that a reference means: "env:NAME" is the environment variable of that name in the worker.

    That holds `whsec_` and base64, or base64 alone. InvalidOption never shows it.
    """
    found = _NAME.fullmatch(secret) if isinstance(secret, str) else None
    if found is None:
        raise InvalidOption('secret= must name a variable of the worker, as "env:WEBHOOK_SECRET"')
    name = found[1]
    value = os.environ.get(name, "")
    if not value:
        raise InvalidOption(f"secret={shown(secret)}: the worker has no variable {name}; set it")
    try:
        key = base64.b64decode(value.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise InvalidOption(f"secret={shown(secret)}: {name} is no base64 behind {_PREFIX}")
    return key


def signed(key: bytes, number: str, seconds: int, body: bytes) -> dict[str, str]:
    """The three headers for a body that is sent at this moment.

    >>> signed(b"key", "7", 1_700_000_000, b"{}")["webhook-signature"]
    'v1,62dQWDJBmyLQbjKuSALG1nK/Tac7x1bCtR9xrmxJtDc='
    """
    told = f"{number}.{seconds}.".encode() + body
    digest = hmac.new(key, told, hashlib.sha256).digest()
    return {
        "webhook-id": number,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
