"""The codec that `[database] codec` names, so that clients, workers and commands have the same one."""

from __future__ import annotations

from typing import Any

from jobvisor.jobs.errors import ConfigError, shown
from jobvisor.jobs.module import import_object, search_also
from jobvisor.jobs.payload import Codec


class NamedCodec:
    """A codec that is imported when the first value has to be written or read.

    Not before: the module that holds it may be just the one that makes a Client at import, and a
    program that only counts jobs need not have it.

    >>> NamedCodec("base64:nothing_there", ".").encode("[]")
    Traceback (most recent call last):
        ...
    jobvisor.jobs.errors.ConfigError: [database] codec: 'base64:nothing_there' names nothing: ...
    """

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self._codec: Codec | None = None

    def encode(self, text: str) -> str:
        """The text to store for this JSON text."""
        return self.load().encode(text)

    def decode(self, text: str) -> str:
        """The JSON text that was given to `encode`."""
        return self.load().decode(text)

    def load(self) -> Codec:
        """The codec itself; ConfigError where the name leads to none."""
        if self._codec is None:
            search_also(self._path)
            found = import_object("[database] codec", self._name)
            self._codec = _made(found() if isinstance(found, type) else found, self._name)
        return self._codec


def _made(found: Any, name: str) -> Codec:
    if callable(getattr(found, "encode", None)) and callable(getattr(found, "decode", None)):
        return found  # type: ignore[no-any-return]  # a protocol: these two methods make it one
    raise ConfigError(
        f"[database] codec: {name!r} is {shown(found)}, which has not the methods encode(text) and "
        "decode(text)"
    )


def named_codec(name: str, path: str) -> NamedCodec | None:
    """The codec of this name, None for the empty one."""
    return NamedCodec(name, path) if name else None
