"""One import of the application, measured: how long it takes, what it holds, whether it can be copied.

For `jobvisor check`, in a fresh interpreter, on the modules that a family would import.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.codec import named_codec
from jobvisor.jobs.described import BY_FUNCTION
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.misfit import misfits
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import registry
from jobvisor.jobs.schedule import Plan
from jobvisor.jobs.task import Call, Defaults
from jobvisor.supervisor.hook_calls import prepare
from jobvisor.supervisor.memory import resident
from jobvisor.supervisor.template.examination import HOOKS, Examination


def measure(modules: Sequence[str], path: str, codec: str) -> dict[str, Any]:
    """The tasks, the seconds, the bytes, what a template would refuse, and what all copies would share.

    And the hook before a fork that failed, which no worker could start without.

    Raises JobsError where something cannot be imported. This process is not to be used after it.
    """
    examines = sys.platform.startswith("linux")
    began, before = SYSTEM.monotonic_ns(), resident(os.getpid()) or 0
    if examines:
        examination = Examination()
        with examination.watching_imports():
            _load(modules, path, codec)
    else:
        _load(modules, path, codec)
    seconds = (SYSTEM.monotonic_ns() - began) / SECOND
    gc.collect()
    held = max(0, (resident(os.getpid()) or 0) - before)
    failed = _prepared(examination if examines else None)
    found = examination.findings(SYSTEM) if examines else None
    tasks = [registry.get(name) for name in registry.names()]
    return {
        "tasks": [
            {
                "name": task.name,
                "queue": task.options.queue,
                "retries": task.options.retries,
                "timeout_ms": task.options.timeout_ms,
                "memory_bytes": task.options.memory_bytes or 0,
                "share": BY_FUNCTION if callable(task.options.share) else task.options.share,
                "limit": BY_FUNCTION if callable(task.options.limit) else task.options.limit,
            }
            for task in tasks
            if task is not None
        ],
        "misfits": [said for task in tasks if task is not None for said in misfits(task)],
        "schedules": [plan._asdict() for plan in registry.plans()],
        "seconds": round(seconds, 3),
        "bytes": held,
        "failed": failed,
        "refused": list(found.refused) if found else [],
        "shared": list(found.shared) if found else [],
    }


def _prepared(examination: Examination | None) -> str:
    """Call the hooks before a fork, as a template and each worker does; why one failed, or ""."""
    try:
        with examination.holding(HOOKS) if examination else nullcontext():
            prepare(registry.hooks)
    except JobsError as error:
        return str(error)
    return ""


def unfit(schedules: Sequence[Sequence[Any]]) -> list[str]:
    """What is wrong with `[[schedules]]`, each a Plan: no such task, or arguments that it does not take."""
    wrong = []
    for told in schedules:
        plan = Plan(*told)
        task = registry.get(plan.task)
        if task is None:
            near = did_you_mean(plan.task, registry.names())
            wrong.append(f'"{plan.name}": no module has a task {plan.task!r}{near}')
            continue
        payload = Payload()
        args, kwargs = payload.decode(plan.args), payload.decode(plan.kwargs)
        try:
            Call(task.name, tuple(args), kwargs, task.options, task.function).new_job(
                Defaults(), payload
            )
        except JobsError as error:
            wrong.append(f'"{plan.name}": {error}')
    return wrong


def _load(modules: Sequence[str], path: str, codec: str) -> None:
    registry.load(modules, path)
    found = named_codec(codec, path)
    if found is not None:
        found.load()


def main(asked: dict[str, Any]) -> None:
    """Write the answer to a descriptor of its own, because a module may print; then leave."""
    try:
        answer = measure(asked["modules"], asked["path"], asked["codec"])
        answer["unfit"] = unfit(asked["schedules"])
    except JobsError as error:
        answer = {"error": str(error)}
    with open(asked["descriptor"], "w", encoding="utf-8", closefd=False) as file:
        json.dump(answer, file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads a module has started must not keep this alive
