"""The task `shell`: a command as a job."""

from __future__ import annotations

from jobvisor.jobs.builtin.shell import CommandFailed, shell

__all__ = ["CommandFailed", "shell"]
