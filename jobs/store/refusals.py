"""A statement over many rows that the database refuses for one of them: each row by itself.

A constraint or a trigger of the user's, or what a stranger wrote, must not stop the others. The one
that is refused fails with the reason; where not even that is allowed it stays, said once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jobvisor.jobs.log import say
from jobvisor.jobs.store.dialect import Dialect
from jobvisor.jobs.store.rows import Changed, Row

EACH_AT_ONCE = 50  # rows that are tried one by one in one transaction
LEFT_MOST = 1_000  # rows known to be beyond help; who has more has broken the whole table


class Refusals(Dialect):
    """What the other verbs use where a refusal must not end them."""

    def _each(
        self, name: str, parameters: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
    ) -> list[tuple[int, Row]]:
        """What a statement about one `job` returns for each of these, by job; who is refused fails."""
        found: list[tuple[int, Row]] = []
        for row in rows:
            changed, refused = self._attempted(self._rows, name, {**parameters, **row})
            if refused is None:
                found += [(row["job"], each) for each in changed]
            else:
                self._fail_row(row["job"], refused)
        return found

    def _owned(self, owner: int) -> list[Row]:
        """The (id, claim) of rows that an owner holds and that can perhaps be changed."""
        return self._rows("owned_rows", {"owner": owner, "limit": EACH_AT_ONCE, **self._but_left()})

    def _but_left(self) -> dict[str, str]:
        return {"left": json.dumps(sorted(self._left))}

    def _fail_row(self, job: int, reason: str) -> None:
        error = f"the database refuses a change of this row: {reason}"
        rows, still = self._attempted(self._rows, "fail_row", {"job": job, "error": error})
        if rows:
            self._moved("fail", job, Changed._make(rows[0]), error=error, kind="refused")
        elif job not in self._left and len(self._left) < LEFT_MOST:
            self._left.add(job)
            say("row_refused", job=job, error=still or "the change is skipped")
