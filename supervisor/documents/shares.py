"""Shares that are of no effect, because their queue is not fair, and jobs of fair queues that have none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["told_shareless", "told_shares", "told_vain_shares"]


def told_shares(fair: Collection[str], tasks: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each queue of tasks with a share that a config does not make fair, and the reverse.

    >>> told_shares(["mail"], [{"name": "app:send", "queue": "bulk", "share": "by a function"}])
    ['the queue bulk of app:send is not fair: share= is in vain; write fair = true under [queues.bulk]']
    >>> told_shares(["mail"], [{"name": "app:send", "queue": "mail"}])
    ['the queue mail is fair, and app:send without a share: its jobs go before all others; give it share=']
    """
    names: dict[str, list[str]] = {}
    first: dict[str, list[str]] = {}
    for task in tasks:
        shared, lined = task.get("share") is not None, task["queue"] in fair
        if shared != lined:
            (names if shared else first).setdefault(task["queue"], []).append(task["name"])
    return [
        f"the queue {queue} of {', '.join(each)} is not fair: share= is in vain; "
        f"write fair = true under [queues.{queue}]"
        for queue, each in names.items()
    ] + [
        f"the queue {queue} is fair, and {', '.join(each)} without a share: its jobs go before all others; "
        f"give it share="
        for queue, each in first.items()
    ]


def told_shareless(queues: Iterable[str]) -> list[str]:
    """A sentence for each queue that is fair, and has pending jobs of no share.

    >>> told_shareless(["mail"])
    ['jobs without a share wait in the fair queue mail, and go before all others; give them share=']
    """
    return [
        f"jobs without a share wait in the fair queue {queue}, and go before all others; give them share="
        for queue in queues
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
