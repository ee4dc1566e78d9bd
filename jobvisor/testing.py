"""Tests of code that enqueues: see `in_memory` and `inline`; `Context.for_test` calls a task alone."""

from __future__ import annotations

from jobvisor.jobs.testing import MemoryQueue, in_memory, inline

__all__ = ["MemoryQueue", "in_memory", "inline"]
