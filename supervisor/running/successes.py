"""Who listens hears of a success when it is settled, not when it is recorded: this keeps it until then."""

from __future__ import annotations

from collections.abc import Sequence

from jobvisor.jobs.events import Event, Events, event_of
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.log import descriptors as log_descriptors
from jobvisor.jobs.log import say
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.store import Applied, Record
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.running.cleanliness import Cleanliness


class Successes:
    """The successes of one worker that are recorded and not settled yet."""

    def __init__(self, events: Events, clean: Cleanliness, *, verbose: bool) -> None:
        """`verbose` where the log has a line for each: the many cost nothing where nobody reads it."""
        self._events = events
        self._clean = clean
        self._verbose = verbose
        self._kept: dict[tuple[int, int], Event] = {}

    def note(self, job: Claimed, entry: Entry, outcome: Outcome) -> None:
        """The outcome is about to be kept: who listens hears of a success when it is settled."""
        if outcome.verb != "succeed":
            return
        if self._verbose and self._clean.still_has(log_descriptors()):
            say(
                "succeeded", job=job.id, task=job.task, attempt=job.attempt,
                attempts_max=job.attempts_max,
            )  # fmt: skip
        if self._events.of_all:
            self._kept[entry.claim, job.id] = event_of("succeed", job)

    def forget(self, entry: Entry) -> None:
        """This one will not be settled."""
        self._kept.pop((entry.claim, entry.job), None)

    def tell(self, records: Sequence[Record], applied: Applied) -> None:
        """A success changes its row without a word of whose it was: this worker knows."""
        if self._kept:
            refused = {id(record) for record in applied.lost}
            refused |= {id(record) for record, _ in applied.rejected}
            for record in records:
                event = self._kept.pop((record.claim, record.job), None)
                if event is not None and id(record) not in refused:
                    self._events.emit(event)
