"""What a role of PostgreSQL may do with the queue: as SQL for whoever owns its tables."""

from __future__ import annotations

from collections.abc import Mapping

from jobvisor.jobs.errors import InvalidOption

SEQUENCE = "SEQUENCE "
#: By what a role is for: a privilege, and the tables and sequences it is needed on.
_TABLES = (
    "jobs, attempts, families, owners, stats, actions, tasks, requests, limits, limit_keys, turns, queues, "
    "schedules, ticks, uniques"
)
PURPOSES: Mapping[str, tuple[tuple[str, str], ...]] = {
    # ON CONFLICT and the look for a lost answer read the table; waking sets its sequence.
    "enqueue": (
        ("SELECT", "jobs, meta, turns, queues"),
        # Whether a family is there that is too old for what a job needs.
        ("SELECT (version, heartbeat_at, dead_after_ms, died_at)", "families"),
        ("INSERT", "jobs"),
        ("SELECT, INSERT, UPDATE, DELETE", "uniques"),
        ("USAGE", "SEQUENCE jobs_id_seq"),
        ("SELECT, UPDATE", "SEQUENCE woken"),
    ),
    # Any deed but to change the tables: also cancel, requeue, prune, export and import.
    "work": (
        ("SELECT, INSERT, UPDATE, DELETE", _TABLES),
        ("SELECT", "changes, meta, jobs_readable, attempts_readable"),
        ("SELECT, USAGE, UPDATE", "SEQUENCE jobs_id_seq, woken"),
        ("SELECT", "SEQUENCE changes_number_seq"),
    ),
    # Following what changes looks at the sequences too.
    "read": (
        ("SELECT", f"{_TABLES}, changes, meta, jobs_readable, attempts_readable"),
        ("SELECT", "SEQUENCE jobs_id_seq, changes_number_seq"),
    ),
}


def grants(role: str, purpose: str, schema: str, prefix: str = "") -> str:
    """The statements that let a role enqueue, work or read, and nothing else."""
    if not role or "\0" in role:
        raise InvalidOption(f"role={role!r} must be the name of a role of the server")
    who, where = _quoted(role), _quoted(schema)
    lines = [f"GRANT USAGE ON SCHEMA {where} TO {who};"]
    for privilege, objects in PURPOSES[purpose]:
        kind = SEQUENCE if objects.startswith(SEQUENCE) else ""
        names = objects.removeprefix(kind).split(", ")
        told = ", ".join(f"{where}.{prefix}{name}" for name in names)
        lines.append(f"GRANT {privilege} ON {kind}{told} TO {who};")
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
