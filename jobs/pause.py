"""What an application does to whole queues and tasks: pauses them, resumes them, and sees how they stand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jobvisor.jobs.annals import QUEUE, TASK, Paused, Queue
from jobvisor.jobs.clock import from_datetime
from jobvisor.jobs.door import Door
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.registry import check_name
from jobvisor.jobs.task import Task, check_queue
from jobvisor.jobs.units import Duration, duration_ms

__all__ = ["Pause"]


class Pause(Door):
    """The verbs of the tables `queues` and `tasks`."""

    def pause(
        self,
        queue: str | None = None,
        *,
        task: str | Task[..., Any] | None = None,
        until: datetime | Duration | None = None,
    ) -> Paused:
        """Have no job of a queue, or of a task, be claimed: in no family, from the commit on.

        Until `resume`, or until a moment, or for so long (`until="2h"`). It is enqueued on; what runs goes
        on, and the batch that a worker has claimed already may still begin. Pausing again says anew until
        when. Workers of a release before 0.6 do not know of it.

        >>> from jobvisor import Client
        >>> with Client("memory://") as client:
        ...     paused = client.pause("mail")
        ...     client.resume("mail"), client.resume("mail")
        (True, False)
        """
        kind, name = _which(queue, task)
        until_ms, for_ms = None, None
        if isinstance(until, datetime):
            until_ms = from_datetime(until)
        elif until is not None:
            for_ms = _for_ms(until)
        with self._store() as store:
            return store.pause(kind, name, until_ms=until_ms, for_ms=for_ms)

    def resume(self, queue: str | None = None, *, task: str | Task[..., Any] | None = None) -> bool:
        """Let its jobs begin again; False if it was not paused.

        The jobs that a paused task has left waiting are freed here, a thousand in a transaction: where this
        is broken off the caretaker of any family goes on.
        """
        kind, name = _which(queue, task)
        with self._store() as store:
            was_paused = store.resume(kind, name)
            while kind == TASK and store.free_tasks():
                pass
        return was_paused

    def paused(self) -> list[Paused]:
        """What is paused now: the queues, then the tasks, by name."""
        with self._store() as store:
            return store.paused()

    def queues(self) -> dict[str, Queue]:
        """The queues that have jobs or are paused: how many in which state, how long the oldest waits.

        Counting ends at some thousands, as that of `tally`; see `latencies` for the oldest.
        """
        with self._store() as store:
            tally, oldest = store.tally(), store.waiting(QUEUES_MAX)
            paused = {each.name: each for each in store.paused() if each.kind == QUEUE}
        return {
            name: Queue(
                tally.queues.get(name, {}),
                max(0, oldest[name]) / 1000 if name in oldest else None,
                paused.get(name),
            )
            for name in sorted({*tally.queues, *oldest, *paused})
        }


QUEUES_MAX = 1_000


def _which(queue: Any, task: Any) -> tuple[str, str]:
    if (queue is None) == (task is None):
        raise InvalidOption(
            "name either a queue or a task, such as pause('mail') or pause(task=send)"
        )
    if queue is not None:
        return QUEUE, check_queue("queue", queue)
    if isinstance(task, Task):
        return TASK, task.name
    if not isinstance(task, str):
        raise InvalidOption(f"task={shown(task)} is no task; give it, or its name")
    return TASK, check_name(task)


def _for_ms(until: Duration) -> int:
    try:
        return duration_ms(until)
    except InvalidOption as error:
        raise InvalidOption(f"until: {error}") from error
