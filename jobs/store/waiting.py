"""What jobs wait for, as far as an index tells it in a bounded time."""

from __future__ import annotations

from jobvisor.jobs.found import Count
from jobvisor.jobs.store.dialect import Dialect, check_id


class Waiting(Dialect):
    """The verbs that tell why jobs do not run."""

    def before(self, job: int, *, most: int) -> Count:
        check_id(job)
        found = self._rows("before", {"job": job, "most": most + 1})
        return _count(found[0][0] if found else 0, most)

    def held_back(self, *, most: int) -> dict[str, Count]:
        counted = dict(self._rows("held_back", {"most": most + 1}))
        # What is put off, or unknown, is scheduled too.
        others = counted["retry"] + counted["unknown_task"]
        later = max(0, counted["later"] - others)
        more = counted["later"] > most
        return {
            code: Count(most, at_least=True) if more and code == "later" else _count(number, most)
            for code, number in {**counted, "later": later}.items()
        }


def _count(number: int, most: int) -> Count:
    return Count(min(number, most), at_least=number > most)
