"""Who runs the jobs: a parent, its forked children, and the command."""

from __future__ import annotations

from supervisor.config import Config
from supervisor.embed import Supervisor

__all__ = ["Config", "Supervisor"]
