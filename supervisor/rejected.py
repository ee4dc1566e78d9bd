"""Outcomes the database refused even as a failure: kept as files, so that a person can look."""

from __future__ import annotations

import base64
import json
import os

from jobvisor.jobs.log import say
from jobvisor.jobs.outcome import VERB_NAMES
from jobvisor.jobs.store import Record

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
    kept = "nowhere"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if len(os.listdir(folder)) < KEPT:
            kept = os.path.join(folder, name)
            with open(kept, "w", encoding="utf-8") as file:
                json.dump(told, file, indent=1)
    except OSError as error:
        kept = f"nowhere ({error})"
    say("rejected", job=record.job, error=reason, path=kept)
