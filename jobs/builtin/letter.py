"""A letter: what is sent, made of what the task `email` is given, and to whom each copy goes.

Nothing that is given can add a header or a recipient: each address is read whole or refused, and no value
has a line of its own. The same arguments make the same letter in each attempt, but for its date.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP
from email.utils import formatdate
from typing import Any

from jobvisor.jobs.builtin.given import a_mapping, a_text, refuse
from jobvisor.jobs.errors import InvalidOption, error_text, shown

RECIPIENTS_MAX = 100
"""How each of them stands fits the note of a progress, a character each."""

ATTACHED_MAX = 20 << 20
"""Bytes of all attachments; most servers take no more."""

#: No 8-bit characters and no long lines, which not every server takes.
_POLICY = SMTP.clone(cte_type="7bit")

_ADDRESS = re.compile(r'(?:(?P<name>"[^"]*"|[^<>"]*?) *<(?P<within>[^<>]*)>|(?P<alone>[^<> ]*))')
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
)
_LINE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}")
_OURS = frozenset(
    ("from", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "sender", "return-path",
     "mime-version", "received")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Letter:
    """What is handed to a server."""

    sender: str
    recipients: tuple[str, ...]
    """Of To, Cc and Bcc, in this order, each once."""
    message_id: str
    data: bytes


def letter(
    *,
    number: str,
    sender: Address,
    to: Any,
    cc: Any,
    bcc: Any,
    reply_to: Any,
    subject: Any,
    text: Any,
    html: Any,
    headers: Any,
    attachments: Any,
    now_ms: int,
) -> Letter:
    """The letter of a job, whose `number` is the same in each attempt; InvalidOption names what is wrong."""
    groups = {"to": addresses("to", to), "cc": addresses("cc", cc), "bcc": addresses("bcc", bcc)}
    recipients = tuple(dict.fromkeys(each.addr_spec for group in groups.values() for each in group))
    if not 1 <= len(recipients) <= RECIPIENTS_MAX:
        raise InvalidOption(f"{len(recipients)} recipients: a letter has 1 to {RECIPIENTS_MAX}")
    message = EmailMessage(policy=_POLICY)
    try:
        message["Message-ID"] = message_id = f"<{number}@{sender.domain}>"
        message["Date"] = formatdate(now_ms / 1000)
        message["Subject"] = a_line("subject", subject)
        message["From"] = sender
        for name, found in (("To", groups["to"]), ("Cc", groups["cc"])):
            if found:
                message[name] = tuple(found)
        if reply_to is not None:
            message["Reply-To"] = tuple(addresses("reply_to", reply_to))
        for name, value in _further(headers).items():
            message[name] = value
        message.set_content(a_text("text", text))
        if html is not None:
            message.add_alternative(a_text("html", html), subtype="html")
        _attach(message, attachments)
        data = message.as_bytes()
        _check_headers(message, data)
    except (UnicodeError, ValueError) as error:
        if isinstance(error, InvalidOption):
            raise
        raise InvalidOption(f"the letter cannot be written: {error_text(error)}") from error
    return Letter(sender.addr_spec, recipients, message_id, data)


def _check_headers(message: EmailMessage, data: bytes) -> None:
    """InvalidOption where what is written has other headers than were given: not every Python looks."""
    written = BytesHeaderParser(policy=SMTP).parsebytes(data)
    if written.keys() != message.keys():
        raise InvalidOption(
            "a header of the letter would have lines of its own; write it on one line"
        )


def number_of(job: int, args: str, kwargs: str) -> str:
    """What begins the Message-ID of a job: the same for each of its attempts, and of no other job."""
    digest = hashlib.blake2b(f"{args}\n{kwargs}".encode(errors="replace"), digest_size=8)
    return f"job-{job}.{digest.hexdigest()}"


def addresses(name: str, value: Any) -> list[Address]:
    """One address or a list of them."""
    if value is None:
        return []
    if isinstance(value, str):
        return [address(name, value)]
    if not isinstance(value, (list, tuple)):
        raise refuse(name, value, "an address, or a list of them")
    return [address(f"{name}[{number}]", each) for number, each in enumerate(value)]


def address(name: str, value: Any) -> Address:
    """`ada@example.com` or `Ada <ada@example.com>`; a domain may have letters of any language.

    >>> str(address("to", "Ada <ada@exämple.com>"))
    'Ada <ada@xn--exmple-cua.com>'
    """
    found = _ADDRESS.fullmatch(a_line(name, value).strip())
    spec = "" if found is None else found["within"] or found["alone"] or ""
    local, _, domain = spec.rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    fits = len(local) <= 64 and len(domain) <= 253
    if found is None or not fits or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise refuse(name, value, "one address, as ada@example.com or Ada <ada@example.com>")
    return Address((found["name"] or "").strip().strip('"'), local, domain)


def a_line(name: str, value: Any) -> str:
    """A text of one line, as it is to be read: an encoded word (RFC 2047) may hold lines of its own."""
    fits = isinstance(value, str) and _LINE.fullmatch(value) and len(value) <= 2_000
    if not fits or len(value.splitlines()) > 1 or "=?" in value:
        raise refuse(name, value, "a text of one line, without =?")
    return str(value)


def _further(headers: Any) -> Mapping[str, str]:
    found = {}
    for name, value in a_mapping("headers", headers).items():
        if not _NAME.fullmatch(name):
            raise refuse("headers", name, "names of letters, digits and -")
        if name.lower() in _OURS or name.lower().startswith("content-"):
            raise InvalidOption(f"headers.{name} is made by the task; there is an argument for it")
        found[name] = a_line(f"headers.{name}", value)
    return found


def _attach(message: EmailMessage, attachments: Any) -> None:
    if attachments is None:
        return
    if isinstance(attachments, (str, os.PathLike)) or not isinstance(attachments, Sequence):
        raise refuse("attachments", attachments, "a list of paths")
    left = ATTACHED_MAX
    for number, path in enumerate(attachments):
        data = _read(f"attachments[{number}]", path, left)
        left -= len(data)
        guessed, packed = mimetypes.guess_type(path)
        kind, _, subtype = (guessed or "").partition("/")
        if packed or not subtype or kind in ("message", "multipart"):
            kind, subtype = "application", "octet-stream"
        file_name = a_line(f"attachments[{number}]", os.path.basename(path))
        message.add_attachment(data, maintype=kind, subtype=subtype, filename=file_name)


def _read(name: str, path: Any, limit: int) -> bytes:
    """A file, which is no pipe or device, and not larger than what may still be attached."""
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise refuse(name, path, "the path of a file")
    try:
        # Without waiting: a named pipe would have us wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise refuse(name, str(path), "the path of a file")
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidOption(
            f"{name}: {shown(str(path))} cannot be read: {error.strerror}"
        ) from error
    if len(data) > limit:
        raise InvalidOption(
            f"{name}: with {shown(str(path))} the attachments are larger than {ATTACHED_MAX >> 20} MB"
        )
    return data
