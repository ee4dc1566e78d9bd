"""What cannot be settled: kept as files, so that a person, or a later release, can look."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence

from jobvisor.jobs.log import say
from jobvisor.jobs.outcome import VERB_NAMES
from jobvisor.jobs.store import Record
from jobvisor.supervisor.ledger.evidence import Strange

KEPT = 1000  # files; beyond it the log line is all that is kept


def keep_rejected(folder: str, record: Record, reason: str) -> None:
    """One file and one error line; a second telling of the same record writes the same file."""
    name = f"{record.job}-{record.owner}-{record.claim}.json"
    body = base64.b64encode(record.body).decode("ascii")
    told = {
        **record._asdict(),
        "verb": VERB_NAMES.get(record.verb, record.verb),
        "body": body,
        "reason": reason,
    }
    say("rejected", job=record.job, error=reason, path=_kept(folder, name, told))


def keep_strange(folder: str, owner: int, records: Sequence[Strange]) -> None:
    """One file and one line for all that a life recorded and this release does not understand."""
    told = [
        {**one._asdict(), "owner": owner, "body": base64.b64encode(one.body).decode("ascii")}
        for one in records
    ]
    kinds = ", ".join(sorted({str(one.kind) for one in records}))
    path = _kept(folder, f"strange-{owner}.json", told)
    say("strange_records", count=len(records), kinds=kinds, path=path)


def _kept(folder: str, name: str, told: object) -> str:
    """Where it was written, or that it was not."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if len(os.listdir(folder)) >= KEPT:
            return "nowhere"
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(told, file, indent=1)
    except OSError as error:
        return f"nowhere ({error})"
    return path
