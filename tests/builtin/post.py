"""A real SMTP server, aiosmtpd, that says what a test wants it to say."""

from __future__ import annotations

import asyncio
import ssl
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

DROP, STALL, TAKE_AND_DROP = "DROP", "STALL", "TAKE AND DROP"
"""What it does instead of an answer; the last one after the mail is its own."""


@dataclass
class Mail:
    """One that it has taken."""

    sender: str
    recipients: list[str]
    data: bytes

    @property
    def message(self) -> EmailMessage:
        """As a reader of mail sees it."""
        found = message_from_bytes(self.data, policy=policy.default)
        assert isinstance(found, EmailMessage)
        return found


@dataclass
class Post:
    """Answers each command by the next of what it is told to; after these by 250."""

    says: dict[str, list[str]] = field(default_factory=dict)
    """By "MAIL", "RCPT ada@example.com", "DATA ada@example.com"; the last "*" goes on for ever."""
    tls: ssl.SSLContext | None = None
    starttls: ssl.SSLContext | None = None
    login: tuple[str, str] | None = None
    mails: list[Mail] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._call(
            self._loop.create_server(self._session, "127.0.0.1", 0, ssl=self.tls)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def to(self) -> list[str]:
        """Whom it has taken mails for, in order."""
        return [each for mail in self.mails for each in mail.recipients]

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _close(self) -> None:
        self._server.close()
        for one in asyncio.all_tasks() - {asyncio.current_task()}:
            one.cancel()
        await asyncio.sleep(0)

    def _session(self) -> SMTP:
        return SMTP(
            self,
            hostname="post.example.com",
            tls_context=self.starttls,
            require_starttls=self.starttls is not None,
            authenticator=self._authenticate if self.login else None,
            auth_require_tls=self.login is None,
            loop=self._loop,
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, told: Any
    ) -> AuthResult:
        assert isinstance(told, LoginPassword)
        self.logins.append(told.login.decode())
        right = (told.login.decode(), told.password.decode()) == self.login
        return AuthResult(success=right, handled=False)

    async def _answer(self, server: SMTP, command: str) -> str:
        self.asked.append(command)
        answers = self.says.get(command, [])
        said = answers[0] if answers[:1] and answers[-1] == "*" and len(answers) == 2 else ""
        if not said:
            said = answers.pop(0) if answers else "250 OK"
        if said == STALL:
            await asyncio.Event().wait()
        if said == DROP:
            _abort(server)
        return said

    async def handle_MAIL(  # noqa: N802 -- as aiosmtpd calls it
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        envelope.mail_from = address
        return await self._answer(server, "MAIL")

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        said = await self._answer(server, f"RCPT {address}")
        if said.startswith("2"):
            envelope.rcpt_tos.append(address)
        return said

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        said = await self._answer(server, f"DATA {envelope.rcpt_tos[0]}")
        if said.startswith("2") or said == TAKE_AND_DROP:
            assert isinstance(envelope.content, bytes)
            mail = Mail(envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content)
            self.mails.append(mail)
        if said == TAKE_AND_DROP:
            _abort(server)
        return said


def _abort(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()
