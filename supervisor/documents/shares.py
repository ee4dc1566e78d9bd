"""Shares that are of no effect, because their queue is not fair."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["told_shares", "told_vain_shares"]


def told_shares(fair: Collection[str], tasks: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each queue of tasks with a share that a config does not make fair.

    >>> told_shares(["mail"], [{"name": "app:send", "queue": "bulk", "share": "by a function"}])
    ['the queue bulk of app:send is not fair: share= is in vain; write fair = true under [queues.bulk]']
    """
    names: dict[str, list[str]] = {}
    for task in tasks:
        if task.get("share") is not None and task["queue"] not in fair:
            names.setdefault(task["queue"], []).append(task["name"])
    return [
        f"the queue {queue} of {', '.join(each)} is not fair: share= is in vain; "
        f"write fair = true under [queues.{queue}]"
        for queue, each in names.items()
    ]


def told_vain_shares(queues: Iterable[str]) -> list[str]:
    """A sentence for each queue that is not fair, and has pending jobs with a share.

    >>> told_vain_shares(["bulk"])
    ['jobs with a share wait in the queue bulk, which is not fair; write fair = true under [queues.bulk]']
    """
    return [
        f"jobs with a share wait in the queue {queue}, which is not fair; "
        f"write fair = true under [queues.{queue}]"
        for queue in queues
    ]
