"""The task `http`: a call of a URL as a job. Needs the extra `http`."""

from __future__ import annotations

from jobvisor.jobs.builtin.http import CallFailed, http

__all__ = ["CallFailed", "http"]
