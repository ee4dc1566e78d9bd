"""How a store reads and writes users' values: with one codec and one limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from jobvisor.jobs.decode import decode, decode_plain
from jobvisor.jobs.encode import LIMIT, encode, encode_call
from jobvisor.jobs.errors import PayloadError, error_text, shown


class Codec(Protocol):
    """What a user may put between us and the database: encryption, compression. Text to text."""

    def encode(self, text: str) -> str:
        """The text to store for this JSON text."""

    def decode(self, text: str) -> str:
        """The JSON text that was given to `encode`."""


class Payload:
    """Encode and decode with one codec and one limit."""

    __slots__ = ("codec", "limit")

    def __init__(self, codec: Codec | None = None, limit: int = LIMIT) -> None:
        self.codec = codec
        self.limit = limit

    def encode(self, value: Any, *, path: str = "result") -> str:
        """JSON text of a value; `path` begins the place that a PayloadError names."""
        text = encode(value, path=path, limit=self.limit)
        return text if self.codec is None else self._coded(self.codec, text, path)

    def encode_call(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> tuple[str, str]:
        """JSON texts of a call's arguments: a list and an object."""
        texts = encode_call(args, kwargs, self.limit)
        if self.codec is None:
            return texts
        return self._coded(self.codec, texts[0], "args"), self._coded(
            self.codec, texts[1], "kwargs"
        )

    def decode(self, text: str, *, lenient: bool = False) -> Any:
        """The value of stored text. Text that was stored without the codec is read as well."""
        if text.startswith('{"$codec"') and self.codec is not None:
            text = self._decoded(self.codec, text)
        return decode(text, lenient=lenient)

    def _coded(self, codec: Codec, text: str, path: str) -> str:
        try:
            coded = codec.encode(text)
        except Exception as error:
            raise PayloadError(f"{path}: the codec failed: {error_text(error)}") from error
        if type(coded) is not str:
            raise PayloadError(
                f"{path}: the codec returned {type(coded).__name__}; it must return str"
            )
        # Through the plain way, so that the codec's text is checked and counted like any other.
        return '{"$codec":' + encode(coded, path=f"{path}, coded", limit=self.limit) + "}"

    def _decoded(self, codec: Codec, text: str) -> str:
        stored = decode_plain(text)
        try:
            found = codec.decode(stored["$codec"])
        except Exception as error:
            raise PayloadError(
                f"the codec cannot read {shown(text)}: {error_text(error)}"
            ) from error
        if type(found) is not str:  # decrypted bytes, most likely
            raise PayloadError(
                f"the codec read {shown(text)} as {type(found).__name__}; its decode must return str"
            )
        return found
