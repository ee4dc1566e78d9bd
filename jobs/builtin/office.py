"""An SMTP server that takes letters: a recipient in each transaction, so that each has an answer of its own.

What it answers is a fact about one recipient. What it does not answer, or what keeps us from asking, is an
error: `Away` passes by itself, `Unfit` is for a person to mend.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from jobvisor.jobs.builtin.letter import Letter
from jobvisor.jobs.errors import error_text
from jobvisor.jobs.excerpt import clean
from jobvisor.jobs.settings import Email

REPLY_MAX = 200  # characters


class Away(Exception):  # noqa: N818 -- `raise Away` is a sentence
    """The server cannot be had now."""


class Unfit(Exception):  # noqa: N818 -- `raise Unfit` is a sentence
    """The settings do not fit the server; trying again would not help."""


class Reply(NamedTuple):
    """What a server said of one recipient."""

    code: int
    text: str

    @property
    def accepted(self) -> bool:
        """It has the letter, and sees to it from here on."""
        return 200 <= self.code < 300

    @property
    def refused(self) -> bool:
        """It will never take it."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip()


class Office:
    """A connection to the server of `[email]`, for a `with`: made at the first letter, and anew when lost."""

    def __init__(self, settings: Email) -> None:
        self._settings = settings
        self._smtp: smtplib.SMTP | None = None
        self._begun = False  # a transaction that did not come to its end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            with suppress(smtplib.SMTPException, OSError):
                smtp.quit()
            smtp.close()

    def connect(self) -> None:
        """Be connected and known there; Away or Unfit where that is not to be had."""
        if self._smtp is None:
            self._smtp = _connected(self._settings)

    def deliver(self, letter: Letter, recipient: str) -> Reply:
        """Hand over a copy; the answer. Away where the connection ends before there is one."""
        self.connect()
        smtp = self._smtp
        assert smtp is not None
        try:
            if self._begun:
                smtp.rset()
            self._begun = True
            reply = _transaction(smtp, letter, recipient)
            self._begun = not reply.accepted
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            raise Away(f"the connection was lost: {error_text(error)}") from error
        if reply.code == 421:  # it says so and closes
            self._drop()
            raise Away(str(reply))
        return reply  # nothing more is said here: who asked keeps it at once

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None
        self._begun = False


def _transaction(smtp: smtplib.SMTP, letter: Letter, recipient: str) -> Reply:
    options = [f"size={len(letter.data)}"] if smtp.has_extn("size") else []
    reply = _reply(smtp.mail(letter.sender, options))
    if reply.accepted:
        reply = _reply(smtp.rcpt(recipient))
    if reply.accepted:
        try:
            reply = _reply(smtp.data(letter.data))
        except smtplib.SMTPDataError as error:
            reply = _reply((error.smtp_code, error.smtp_error))
    return reply


def _reply(told: tuple[int, bytes | str]) -> Reply:
    code, text = told
    words = text if isinstance(text, str) else text.decode(errors="replace")
    return Reply(code, clean(" ".join(words.split()))[:REPLY_MAX])


def _connected(settings: Email) -> smtplib.SMTP:
    where = f"{settings.host}:{settings.port}"
    smtp: smtplib.SMTP | None = None
    try:
        smtp = _opened(settings)
        smtp.ehlo_or_helo_if_needed()
        if settings.security == "starttls":
            smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo_or_helo_if_needed()  # what it said unencrypted does not count
        if settings.username:
            _log_in(smtp, settings)
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        if smtp is not None:
            smtp.close()
        raise _as_ours(where, error) from error
    return smtp


def _opened(settings: Email) -> smtplib.SMTP:
    seconds = settings.timeout_ms / 1000
    name = socket.gethostname()
    # Its own way to a name asks DNS, for as long as that takes.
    ours = name if "." in name else "[127.0.0.1]"
    if settings.security == "tls":
        trust = ssl.create_default_context()
        return smtplib.SMTP_SSL(settings.host, settings.port, ours, timeout=seconds, context=trust)
    return smtplib.SMTP(settings.host, settings.port, ours, timeout=seconds)


def _log_in(smtp: smtplib.SMTP, settings: Email) -> None:
    """As `smtplib` does, but that a server which hangs up after its refusal has refused."""
    offered = smtp.esmtp_features.get("auth", "").upper().split()
    if not offered:
        raise smtplib.SMTPNotSupportedError("no AUTH")
    smtp.user, smtp.password = settings.username, settings.password
    ways: dict[str, Any] = {
        "CRAM-MD5": smtp.auth_cram_md5, "PLAIN": smtp.auth_plain, "LOGIN": smtp.auth_login,
    }  # fmt: skip
    refused: smtplib.SMTPAuthenticationError | None = None
    for name in [each for each in ways if each in offered]:
        try:
            smtp.auth(name, ways[name])
        except smtplib.SMTPAuthenticationError as error:
            refused = error
        except smtplib.SMTPServerDisconnected:
            if refused is None:
                raise
            break
        else:
            return
    raise refused or smtplib.SMTPException(f"it knows no way to log in but {', '.join(offered)}")


def _as_ours(where: str, error: Exception) -> Away | Unfit:
    """What an error before the first letter means."""
    if isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500:
        reply = _reply((error.smtp_code, error.smtp_error))
        return Unfit(f"{where} does not let in [email] username with this password: {reply}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        if "STARTTLS" in str(error):
            return Unfit(
                f'{where} offers no STARTTLS: write [email] security = "tls" where it is encrypted from '
                'the first byte, or "none" where it may be without'
            )
        return Unfit(f"{where} knows no login: leave [email] username empty")
    if isinstance(error, smtplib.SMTPResponseException):
        return Away(f"{where} says {_reply((error.smtp_code, error.smtp_error))}")
    if isinstance(error, UnicodeError):
        return Unfit("[email] username has letters that no login takes; write ASCII")
    if type(error) is smtplib.SMTPException:  # no way to log in that both know
        return Unfit(f"{where}: {error}; see [email] username")
    return Away(f"{where} cannot be had: {error_text(error)}")
