"""The task `email`: a mail as a job, through the SMTP server of `[email]`.

    [tasks]
    modules = ["jobvisor.builtin.email"]

    [email]
    host = "mail.example.com"
    from = "Jobs <jobs@example.com>"

    jobvisor enqueue email ada@example.com "Hello" "It works."

How a run of it ends:

| what the server said | the job |
|---|---|
| each recipient accepted | `succeeded`, with the answer for each |
| some accepted, the others refused for good (5xx) | `succeeded`, with the answer for each |
| all refused for good | `failed` |
| some put off (4xx, greylisting) | retry policy, for those alone; then as above |
| no connection, no answer, broken off in the middle | retry policy, for those that have no answer |
| login refused, no STARTTLS; `[email]` says no host or sender | `failed`, with the key's name |
| a bad address, a header of two lines, a file that is not there or too large | `failed`, nothing was sent |
| somebody cancels the job | `cancelled`, after the recipient that is just served |

Each recipient is a transaction of its own, and its answer is kept at once, in the progress of the job: one
that was accepted gets no second mail, whatever kills this run. What remains is what nobody can know: a mail
that was handed over and whose answer had not come when the run was killed, or that the network lost. It is
sent again then, with the same Message-ID.
"""

from __future__ import annotations

from email.headerregistry import Address
from typing import Any

from jobvisor.jobs.builtin.earlier import told_before
from jobvisor.jobs.builtin.letter import Letter, address, letter, number_of
from jobvisor.jobs.builtin.office import Away, Office, Reply, Unfit
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import ConfigError, InvalidOption
from jobvisor.jobs.outcome import Fail
from jobvisor.jobs.registry import task
from jobvisor.jobs.running import running
from jobvisor.jobs.settings import Email, find_email

OPEN, ACCEPTED, REFUSED = ".", "+", "-"
"""How recipients stand in the note of the progress, a character each."""

LOST_MAX = 3  # connections in one run; a server that drops each one is let alone for a while
TOLD_MAX = 10  # recipients in an error

_EARLIER = "answered in an earlier run"


class MailDelayed(Exception):  # noqa: N818 -- `raise MailDelayed` is a sentence
    """Not every recipient has been accepted or refused yet."""


@task(name="email")
def email(
    ctx: Context,
    to: str | list[str],
    subject: str,
    text: str,
    *,
    html: str | None = None,
    cc: str | list[str] | None = None,
    bcc: str | list[str] | None = None,
    reply_to: str | list[str] | None = None,
    attachments: list[str] | None = None,
    sender: str | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Send a mail; the result has `message_id`, how many were `accepted` and `refused`, and `recipients`.

    Args:
        ctx: Given by whoever runs it.
        to: `ada@example.com`, `Ada <ada@example.com>`, or a list of such; with cc and bcc at most 100.
        subject: In one line.
        text: The mail as plain text.
        html: And as HTML.
        cc: Further recipients.
        bcc: Further ones that the others do not see.
        reply_to: Where answers go.
        attachments: Paths of files where the worker runs, together at most 20 MB.
        sender: Instead of `[email] from`.
        headers: Further ones, such as List-Unsubscribe.
    """
    settings = _settings(sender)
    try:
        mail = letter(
            number=_number(ctx),
            sender=_sender(settings, sender),
            to=to,
            cc=cc,
            bcc=bcc,
            reply_to=reply_to,
            subject=subject,
            text=text,
            html=html,
            headers=headers,
            attachments=attachments,
            now_ms=SYSTEM.now_ms(),
        )
    except InvalidOption as error:
        raise Fail(f"email: {error}") from None
    tally = Tally(ctx, mail.recipients)
    with Office(settings) as office:
        try:
            _deliver(ctx, office, mail, tally)
        except Unfit as error:
            raise Fail(f"email: {error}") from None
    return tally.result(mail.message_id)


def _settings(sender: Any) -> Email:
    try:
        found = find_email()
    except ConfigError as error:
        raise Fail(f"email: {error}") from None
    missing = "host" if not found.host else "from" if not (found.sender or sender) else ""
    if missing:
        raise Fail(
            f"email: [email] {missing} is not set; write it into config.toml, or into the variable "
            f"JOBVISOR_EMAIL_{missing.upper()}"
        )
    return found


def _sender(settings: Email, sender: Any) -> Address:
    return address("[email] from", settings.sender) if sender is None else address("sender", sender)


def _number(ctx: Context) -> str:
    found = running.get()
    return number_of(ctx.job, "", "") if found is None else number_of(ctx.job, *found[0][2:4])


def _deliver(ctx: Context, office: Office, mail: Letter, tally: Tally) -> None:
    """To each recipient that has no answer yet, as far as the server goes along."""
    lost = 0
    for number in tally.open:
        ctx.check()
        try:
            office.connect()
        except Away as error:
            tally.put_off(str(error))
            return
        try:  # nothing may stand between the answer and its note
            tally.note(number, office.deliver(mail, mail.recipients[number]))
        except Away as error:
            tally.delay(number, str(error))
            lost += 1
            if lost == LOST_MAX:
                tally.put_off(f"{LOST_MAX} connections were lost")
                return


class Tally:
    """How each recipient stands, in this run and the ones before."""

    def __init__(self, ctx: Context, recipients: tuple[str, ...]) -> None:
        self._ctx = ctx
        self._recipients = recipients
        before = (told_before() or {}).get("note")
        fits = isinstance(before, str) and len(before) == len(recipients)
        known = before if fits and not set(str(before)) - {OPEN, ACCEPTED, REFUSED} else ""
        self._states = list(known or OPEN * len(recipients))
        self._words = dict.fromkeys(recipients, _EARLIER)

    @property
    def open(self) -> list[int]:
        """The places of those that have no answer yet."""
        return [number for number, state in enumerate(self._states) if state == OPEN]

    def note(self, number: int, reply: Reply) -> None:
        """Keep an answer; first of all where it outlives this process."""
        if reply.accepted or reply.refused:
            self._states[number] = ACCEPTED if reply.accepted else REFUSED
            self._tell()
        self._words[self._recipients[number]] = str(reply)

    def delay(self, number: int, why: str) -> None:
        """This one has no answer yet, for this reason."""
        self._words[self._recipients[number]] = why

    def put_off(self, why: str) -> None:
        """Those that were not tried have no answer, for this reason."""
        for number in self.open:
            if self._words[self._recipients[number]] == _EARLIER:
                self.delay(number, why)

    def _tell(self) -> None:
        done = len(self._states) - len(self.open)
        self._ctx.progress(done, len(self._states), "".join(self._states))

    def result(self, message_id: str) -> dict[str, Any]:
        """The answers; MailDelayed where some are missing, Fail where nobody was accepted."""
        if self.open:
            raise MailDelayed(self._told(OPEN, "no answer yet"))
        accepted = self._states.count(ACCEPTED)
        if not accepted:
            raise Fail(f"email: {self._told(REFUSED, 'refused')}")
        return {
            "message_id": message_id,
            "accepted": accepted,
            "refused": len(self._states) - accepted,
            "recipients": {
                recipient: {
                    "status": "accepted" if state == ACCEPTED else "refused",
                    "reply": self._words[recipient],
                }
                for recipient, state in zip(self._recipients, self._states, strict=True)
            },
        }

    def _told(self, state: str, what: str) -> str:
        found = [
            name for name, one in zip(self._recipients, self._states, strict=True) if one == state
        ]
        each = [f"{name}: {self._words[name]}" for name in found[:TOLD_MAX]]
        more = [f"and {len(found) - TOLD_MAX} more"] if len(found) > TOLD_MAX else []
        accepted = self._states.count(ACCEPTED)
        head = f"{what}: {len(found)} of {len(self._states)} recipients, {accepted} accepted"
        return "\n".join([head, *each, *more])
