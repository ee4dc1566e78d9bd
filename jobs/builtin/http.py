"""The task `http`: a call of a URL as a job. Needs the extra `http`.

    [tasks]
    modules = ["jobvisor.builtin.http"]

    jobvisor enqueue http https://example.com/hook POST --kwargs '{"json": {"paid": 7}}'

How a run of it ends:

| what happened | the job |
|---|---|
| a status of `expect` (200 to 299) | `succeeded`, with status, some headers and the body's beginning |
| 429 or 5xx | again when Retry-After says, `retry_after_max` at most; else by the retry policy |
| no connection, broken off, no answer within `timeout` | retry policy |
| another status; a redirect not followed, from https to http, or the sixth | `failed` |
| an address that is none of the internet | `failed`, and nothing was sent there; `allow_private` allows it |
| `secret` names no variable of the worker, or arguments that no call can have | `failed`, nothing was sent |
| somebody cancels the job | `cancelled` within half a second; while it sends, when 64 KiB more are taken |

A server that got a call and could not answer gets it again. It knows it by the header Idempotency-Key, and
webhook-id where it is signed: the job's id in each attempt, unless `headers` say another one.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from typing import Any

from jobvisor.jobs import __version__
from jobvisor.jobs.builtin.given import a_duration, a_flag, a_mapping, a_text, a_whole, refuse
from jobvisor.jobs.builtin.signature import key_of, signed
from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import InvalidOption, MissingExtra, error_text, shown
from jobvisor.jobs.outcome import Cancelled, Fail, Retry
from jobvisor.jobs.registry import task
from jobvisor.jobs.units import Duration, duration_text

try:
    import httpcore
    import httpx
except ImportError as error:
    raise MissingExtra("the task http needs httpx: pip install 'jobvisor[http]'") from error

from jobvisor.jobs.builtin.answer import Answer
from jobvisor.jobs.builtin.wire import Refused, Transport, Wire

KEEP_MAX = 256 * 1024
"""Bytes: as text, where each may take three, it fits a result."""

REDIRECTS_MAX = 5
MARGIN_SECONDS = 1.0  # before the job's own timeout: it would end the worker, and what runs beside

_METHOD = re.compile(r"[A-Z]{1,20}")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|[0-9A-Fa-f:.]{2,45}(%\w{1,20})?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8000}")
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
"""What says where a message ends is no user's."""
_SIGNED = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})
_SAFE_ELSEWHERE = frozenset({"accept", "content-type", "user-agent", "idempotency-key", "host"})
"""Of the headers that were given, those that go along to another origin."""
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


class CallFailed(Exception):  # noqa: N818 -- `raise CallFailed` is a sentence
    """The call did not end as expected; `status` is that of the answer, None where there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


@task(name="http")
def http(
    ctx: Context,
    url: str,
    method: str = "GET",
    *,
    headers: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
    json: Any = None,
    data: str | bytes | dict[str, Any] | None = None,
    secret: str | None = None,
    timeout: Duration = "30s",
    expect: Sequence[int] | None = None,
    follow_redirects: bool = False,
    allow_private: bool = False,
    retry_after_max: Duration = "1h",
    keep: int = 65_536,
) -> dict[str, Any]:
    """Call a URL; the result has `status`, `headers`, `json` or `text`, `bytes`, `truncated` and `seconds`.

    Args:
        ctx: Given by whoever runs it.
        url: Of http or https. A proxy of the environment is not used.
        method: GET, POST and so on.
        headers: Added to ours. They stand in the row: no place for a password.
        params: Added to the URL's query.
        json: The body, as JSON.
        data: Or the body as it is; of an object as a form.
        secret: Sign it after the Standard Webhooks specification, by the key in this variable of the worker:
            "env:NAME" (`whsec_...`).
        timeout: For all of it, redirects included.
        expect: The statuses of a success; else 200 to 299.
        follow_redirects: At most five, and not from https to http. To another origin go none of `headers`
            but harmless ones.
        allow_private: Also to addresses that are private, this machine's, or a cloud's inside.
        retry_after_max: No longer wait is granted.
        keep: So many bytes of the body, at most 262,144; no more is read.
    """
    try:
        request = _request(url, method, headers=headers, params=params, json=json, data=data)
        _add_ours(ctx, request, secret)
        wanted = _statuses(expect)
        follows = a_flag("follow_redirects", follow_redirects)
        private = a_flag("allow_private", allow_private)
        longest_ms = a_duration("retry_after_max", retry_after_max) or 0
        keep = a_whole("keep", keep, 0, KEEP_MAX)
        ends_ns = _end(ctx, a_duration("timeout", timeout) or 0)
    except InvalidOption as error:
        raise Fail(f"http: {error}") from None
    began = SYSTEM.monotonic_ns()
    wire = Wire(ends_ns, lambda: _check(ctx), allow_private=private)
    where = f"{request.method} {_shown(request.url)}"
    given = frozenset(name.lower() for name in headers or ())
    try:
        trust = _trust(ctx, needed=follows or request.url.scheme == "https")
        with httpx.Client(transport=Transport(wire, trust), trust_env=False) as client:
            answer, redirects = _asked(client, request, keep, given if follows else None)
    except Refused as error:
        raise Fail(f"{where}: {error}") from None
    except httpcore.TimeoutException:
        took = duration_text((SYSTEM.monotonic_ns() - began) // 1_000_000)
        raise CallFailed(f"{where}: no answer within {took}") from None
    except (httpcore.LocalProtocolError, httpx.LocalProtocolError) as error:
        raise Fail(f"{where}: cannot be sent: {error_text(error)}") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, OSError) as error:
        raise CallFailed(f"{where}: {error_text(error)}") from None
    _judge(where, answer, wanted, longest_ms)
    seconds = round((SYSTEM.monotonic_ns() - began) / SECOND, 3)
    return {**answer.told(), "redirects": redirects, "seconds": seconds}


def _request(
    url: Any, method: Any, *, headers: Any, params: Any, json: Any, data: Any
) -> httpx.Request:
    """What is sent, or an InvalidOption."""
    method = a_text("method", method).upper()
    if not _METHOD.fullmatch(method) or method in ("CONNECT", "TRACE"):
        raise refuse("method", method, "GET, POST, PUT, PATCH, DELETE, HEAD or the like")
    if json is not None and data is not None:
        raise InvalidOption("json and data are both the body; give one of them")
    if not isinstance(data, (str, bytes, dict, type(None))):
        raise refuse("data", data, "a text, bytes, or an object for a form")
    form = {str(k): v for k, v in data.items()} if isinstance(data, dict) else None
    where, what = _url(url, a_mapping("params", params)), _headers(headers)
    try:
        content = None if form is not None else data
        return httpx.Request(method, where, headers=what, content=content, data=form, json=json)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(f"the body cannot be written: {error_text(error)}") from error


def _url(url: Any, params: dict[str, Any]) -> httpx.URL:
    try:
        found = httpx.URL(a_text("url", url))
        found = found.copy_merge_params(params) if params else found
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise InvalidOption(f"url={shown(url)} is no URL: {error}") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise refuse("url", _shown(found), "an address that begins with http:// or https://")
    if not _HOST.fullmatch(found.raw_host.decode("ascii", errors="replace")):
        raise InvalidOption(f"url={_shown(found)} is no URL: {shown(found.host)} is no host")
    return found


def _headers(given: Any) -> dict[str, str]:
    found = {"Accept-Encoding": "identity", "User-Agent": f"jobvisor/{__version__}"}
    for name, value in a_mapping("headers", given).items():
        if not _NAME.fullmatch(name):
            raise refuse("headers", name, "names of letters, digits and - _")
        if name.lower() in _OURS:
            raise InvalidOption(f"headers.{name} is made by the task; leave it out")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidOption(f"headers.{name} must be a text of one line of Latin letters")
        found = {known: each for known, each in found.items() if known.lower() != name.lower()}
        found[name] = value
    return found


def _add_ours(ctx: Context, request: httpx.Request, secret: Any) -> None:
    """By what a server knows it again, and who sent it."""
    headers = request.headers
    if request.method not in _REPEATABLE:
        headers.setdefault("Idempotency-Key", str(ctx.job))
    if secret is not None:
        number = headers.get("webhook-id", str(ctx.job))
        headers.update(signed(key_of(secret), number, SYSTEM.now_ms() // 1000, request.read()))


def _statuses(expect: Any) -> frozenset[int]:
    if expect is None:
        return frozenset(range(200, 300))
    if not isinstance(expect, (list, tuple, set, frozenset)):
        raise refuse("expect", expect, "a list of statuses")
    return frozenset(a_whole("expect", status, 200, 599) for status in expect)


def _end(ctx: Context, timeout_ms: int) -> int:
    """The moment at which all is over, by the monotonic clock."""
    left_ns = timeout_ms * 1_000_000
    if not left_ns:
        raise InvalidOption("timeout=0 leaves no time; give a duration")
    if (seconds := ctx.remaining) is not None:
        left_ns = min(left_ns, int((seconds - min(MARGIN_SECONDS, seconds / 10)) * SECOND))
    return SYSTEM.monotonic_ns() + left_ns


def _check(ctx: Context) -> None:
    if ctx.cancelled:
        raise Cancelled("asked to end; whether the server did what it was asked is not known")


def _trust(ctx: Context, *, needed: bool) -> ssl.SSLContext:
    """The certificates of this system, or of SSL_CERT_FILE; read once in a worker, if at all."""
    if not needed:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
    found = ctx.state.get("jobvisor.http")
    if not isinstance(found, ssl.SSLContext):
        found = ctx.state["jobvisor.http"] = ssl.create_default_context()
    return found


def _asked(
    client: httpx.Client, request: httpx.Request, keep: int, given: frozenset[str] | None
) -> tuple[Answer, int]:
    """The answer, and after how many redirects; None are followed where `given` is None."""
    for redirects in range(REDIRECTS_MAX + 1):
        response = client.send(request, stream=True)
        try:
            following = response.next_request
            if following is None or given is None:
                return Answer(response, keep), redirects
        finally:
            response.close()
        request = _redirected(request, following, given)
    raise Refused(f"more than {REDIRECTS_MAX} redirects")


def _redirected(
    before: httpx.Request, after: httpx.Request, given: frozenset[str]
) -> httpx.Request:
    if after.url.scheme not in ("http", "https"):
        raise Refused(f"a redirect to {_shown(after.url)}")
    if before.url.scheme == "https" and after.url.scheme == "http":
        raise Refused(f"a redirect from https to {_shown(after.url)}")
    if _origin(before.url) != _origin(after.url):
        for name in (given | _SIGNED) - _SAFE_ELSEWHERE:
            after.headers.pop(name, None)
    return after


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


def _judge(where: str, answer: Answer, wanted: frozenset[int], longest_ms: int) -> None:
    """Raise what an answer that is no success means for the job."""
    if answer.status in wanted:
        return
    told = f"{where}: {answer.in_words}"
    if answer.status != 429 and answer.status < 500:
        raise Fail(told)
    if answer.retry_after is not None:
        raise Retry(min(answer.retry_after, longest_ms / 1000), told)
    raise CallFailed(told, answer.status)


def _shown(url: httpx.URL) -> str:
    """A URL as logs and errors have it: without a password, and without a query, which may be one."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))[:300]
