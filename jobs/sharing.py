"""What a client says of fair queues: which serve their shares in turn."""

from __future__ import annotations

from jobvisor.jobs.door import Door
from jobvisor.jobs.task import check_queue

__all__ = ["Sharing"]


class Sharing(Door):
    """The verbs about `share=` and `[queues.NAME] fair`."""

    def fair_queues(self) -> list[str]:
        """The queues whose shares are served in turn, by name."""
        with self._store() as store:
            return store.fair_queues()

    def set_fair(self, queue: str, fair: bool = True) -> bool:
        """Serve the shares of a queue in turn from now on, or no more; whether that is new.

        It is stored, for every family and client; what is pending already is lined up within seconds. A
        family whose `[queues.NAME]` says otherwise sets it back when it starts.
        """
        check_queue("queue", queue)
        with self._store() as store:
            return store.set_fair(queue, fair=fair)

    def shares_in_vain(self) -> list[str]:
        """Queues that are not fair, and have jobs with a share, which is of no effect there."""
        with self._store() as store:
            return store.shares_in_vain(1_000)

    def shareless(self) -> list[str]:
        """Queues that are fair, and have pending jobs of no share, which go before all that have one."""
        with self._store() as store:
            return store.shareless(1_000)
