"""The task `email`: a mail as a job, through the SMTP server of `[email]`."""

from __future__ import annotations

from jobvisor.jobs.builtin.email import MailDelayed, email

__all__ = ["MailDelayed", "email"]
