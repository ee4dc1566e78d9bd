"""What a server answered, as far as it is kept: its status, some headers, the beginning of its body."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.encode import encode
from jobvisor.jobs.errors import PayloadError
from jobvisor.jobs.excerpt import clean

KEPT = (
    "content-type", "content-length", "content-encoding", "date", "etag", "last-modified", "location",
    "retry-after", "x-request-id",
)  # fmt: skip
HEADER_MAX = 500  # characters
TOLD_MAX = 800  # characters of a body in an error

#: Of the codecs of Python those that are charsets of the web, and quick.
_CHARSET = re.compile(
    r"utf-(8|16|32)(le|be)?|(us-)?ascii|(iso-8859|windows)-[0-9]{1,4}|latin-?1|koi8-[ru]"
    r"|gb(2312|k|18030)|big5|shift_jis|euc-(jp|kr)"
)
_SECONDS = re.compile(r"[0-9]{1,9}")


class Answer:
    """One answer: its body is read up to a limit, and what comes after is not."""

    def __init__(self, response: httpx.Response, limit: int) -> None:
        """Raises what the connection raises, where it ends within the limit and before the body does."""
        self.status = response.status_code
        self.reason = response.reason_phrase
        self._headers = response.headers
        self._body, self.truncated = _read(response, limit)

    def told(self) -> dict[str, Any]:
        """As a result has it: the body as `json` where it is that, else as `text`."""
        headers = {
            name: clean(self._headers[name])[:HEADER_MAX] for name in KEPT if name in self._headers
        }
        return {
            "status": self.status,
            "headers": headers,
            "bytes": len(self._body),
            "truncated": self.truncated,
            **self._as_json(),
        }

    def _as_json(self) -> dict[str, Any]:
        kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        if (kind == "application/json" or kind.endswith("+json")) and not self.truncated:
            try:
                found = json.loads(self._body)
                encode(found)
            except (ValueError, RecursionError, PayloadError):
                return {"text": self.text}
            return {"json": found}
        return {"text": self.text}

    @property
    def text(self) -> str:
        """The body as text, whatever it is."""
        name = self._headers.get("content-type", "").partition("charset=")[2]
        charset = name.split(";")[0].strip(" \"'").lower()
        if not _CHARSET.fullmatch(charset):
            charset = "utf-8"
        try:
            return clean(self._body.decode(charset, errors="replace"))
        except (LookupError, ValueError):
            return clean(self._body.decode(errors="replace"))

    @property
    def in_words(self) -> str:
        """Its status and the beginning of its body."""
        text = self.text.strip()
        words = f"{self.status} {clean(self.reason)[:100]}".strip()
        return (
            f"{words}\n{text[:TOLD_MAX]}{'...' if len(text) > TOLD_MAX else ''}" if text else words
        )

    @property
    def retry_after(self) -> int | None:
        """The seconds for which it asks us to wait; None where it says nothing that is ahead."""
        said = self._headers.get("retry-after", "").strip()
        if _SECONDS.fullmatch(said):
            return int(said) or None
        try:
            moment = parsedate_to_datetime(said).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        ahead = round(moment - self._now())
        return ahead if ahead > 0 else None

    def _now(self) -> float:
        """By the server's own clock, where it tells that: ours may differ."""
        try:
            return parsedate_to_datetime(self._headers.get("date", "")).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            return SYSTEM.now_ms() / 1000


def _read(response: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """The body up to so many bytes, and whether there was more."""
    coding = response.headers.get("content-encoding", "").strip().lower()
    chunks: Iterable[bytes] = response.iter_raw()
    if coding in ("gzip", "deflate"):  # not asked for
        chunks = _inflated(chunks, limit)
    body = b""
    for chunk in chunks:
        body += chunk[: limit + 1 - len(body)]
        if len(body) > limit:
            return body[:limit], True
    return body, False


def _inflated(chunks: Iterable[bytes], limit: int) -> Iterable[bytes]:
    """Never more at once than is kept: a small body may say a very large one."""
    inflater = zlib.decompressobj(wbits=47)  # gzip or zlib, by its header
    for chunk in chunks:
        try:
            yield inflater.decompress(chunk, limit + 1)
            if inflater.eof:
                return  # what comes behind the end would be kept by it, however much that is
        except zlib.error:
            yield b"\xef\xbf\xbd"
            return
