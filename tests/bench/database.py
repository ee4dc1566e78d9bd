"""What a measurement asks of a database beside the store: in its own words, by its own driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from jobvisor import Client

BATCH = 100  # of the bare loops, and of the turns that `depth` makes

#: Made in the process that enqueues, before the clock runs; each call enqueues one job.
Enqueuer = Callable[[], Callable[[], object]]


class Database(ABC):
    """One database for one measurement, fresh, and migrated by the client of its place."""

    url: str

    #: It serves many clients at once, and its dead rows stay until somebody vacuums.
    is_server: bool

    @abstractmethod
    def bare_loop(self, processes: int) -> float:
        """Seconds until these processes, which run and remember nothing, have settled all jobs."""

    @abstractmethod
    def insert(self, task: str) -> tuple[int, int]:
        """A stranger's plain INSERT: the id, and the monotonic ns when the commit had returned."""

    @abstractmethod
    def fill(self, pending: int, scheduled: int, finished: int) -> None:
        """Make rows as quickly as the database can, and leave it as rest would have left it."""

    @abstractmethod
    def is_pending(self) -> bool:
        """Whether a row is pending, asked so that it costs the family next to nothing."""

    @abstractmethod
    def span(self) -> float:
        """Seconds from the first claim to the last finish."""

    @abstractmethod
    def connections(self, pids: Sequence[int]) -> int:
        """How many connections these processes of a family hold."""

    def ways(self) -> Mapping[str, Enqueuer]:
        """The ways to enqueue that are worth comparing."""
        return {"durability full": self.client_of()}

    def client_of(self, *, notify: bool = True) -> Enqueuer:
        """Our client."""

        def make() -> Callable[[], object]:
            client = Client(self.url, notify=notify)
            return lambda: client.enqueue("app:noop")

        return make

    def tidy(self) -> None:  # noqa: B027 -- most have nothing to do
        """Whatever the database would do by itself when it finds the time, done now."""

    def audience(self) -> AbstractContextManager[None]:
        """Somebody who listens while jobs are enqueued, as idle workers do."""
        return nullcontext()

    def drop(self) -> None:  # noqa: B027 -- a file goes with its folder
        """Leave nothing behind."""
