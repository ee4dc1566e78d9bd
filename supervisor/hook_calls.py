"""The hooks of the application in a worker: called in order when it begins, in reverse when it leaves.

One that fails at the start is a boot that has failed; one that fails at the end costs a line of the log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from types import CoroutineType
from typing import Any

from jobvisor.jobs.errors import EX_OK, ConfigError, error_text
from jobvisor.jobs.function import place_of
from jobvisor.jobs.hooks import BEFORE_FORK, ON_START, ON_STOP, Hooks
from jobvisor.jobs.log import say
from jobvisor.jobs.units import duration_text

Hook = Callable[[], Any]
Attend = Callable[[Coroutine[Any, Any, Any], Context], tuple[Any, BaseException | None]]
"""Runs a coroutine on the loop of the jobs, in this context: what it returned, or what it raised."""


def prepare(hooks: Hooks) -> None:
    """Call those that come before any fork; ConfigError where one of them fails."""
    for hook in hooks.of(BEFORE_FORK):
        _call_or_refuse(BEFORE_FORK, hook, hook)


def start(hooks: Hooks, context: Context, attend: Callable[[], Attend]) -> None:
    """Call those of the start; ConfigError where one of them fails.

    What they put into context variables each job finds there. `attend` is asked for at the first
    coroutine: there may be none, and then no loop.
    """
    for hook in hooks.of(ON_START):
        _call_or_refuse(ON_START, hook, partial(_called, hook, context, attend))


def stop(hooks: Hooks, context: Context, attend: Callable[[], Attend]) -> None:
    """Call those of the end; each that fails is told, and the others are called all the same."""
    for hook in reversed(hooks.of(ON_STOP)):
        try:
            _called(hook, context, attend)
        except BaseException as error:  # noqa: BLE001 -- a hook of the user's: the others have to clean up, too
            say("stop_hook_failed", hook=place_of(hook), error=error_text(error), trace=error)


class Patience:
    """For so long the end may take; then this process leaves without the rest of it."""

    def __init__(self, limit_ms: int) -> None:
        self._limit_ms = limit_ms
        self._timer = threading.Timer(limit_ms / 1000, self._leave)
        self._timer.daemon = True

    def __enter__(self) -> None:
        try:
            self._timer.start()
        except RuntimeError:
            return  # no thread can be made: the parent has a limit, too

    def __exit__(self, *_raised: object) -> None:
        self._timer.cancel()

    def _leave(self) -> None:
        say("stop_hooks_late", timeout=duration_text(self._limit_ms))
        os._exit(EX_OK)


def _call_or_refuse(kind: str, hook: Hook, call: Callable[[], Any]) -> None:
    pid = os.getpid()
    try:
        call()
    except BaseException as error:
        if os.getpid() == pid:
            raise ConfigError(
                f"the @{kind} hook {place_of(hook)} failed: {error_text(error)}"
            ) from error
        raise
    finally:
        if os.getpid() != pid:
            os._exit(1)  # a copy that the hook forked: the boot is the original's


def _called(hook: Hook, context: Context, attend: Callable[[], Attend]) -> None:
    value = context.run(hook)
    if isinstance(value, CoroutineType):
        _, failed = attend()(value, context)
        if failed is not None:
            raise failed
