"""A ledger carried to the store: its journal applied, its current job charged, the rest released.

All of one life in one transaction, and each statement fenced by id, state, owner and claim: settling
a life twice, or while somebody else does, changes nothing the second time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from jobvisor.jobs.errors import (
    ForkedStore,
    SchemaError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from jobvisor.jobs.identity import HOST
from jobvisor.jobs.log import log_lost
from jobvisor.jobs.retry import policy_from_json
from jobvisor.jobs.store import Applied, Life, Record, Rest, Store
from jobvisor.jobs.store.base import Death, Held
from jobvisor.supervisor.board import VERDICTS, Grave
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.evidence import Progress, Read
from jobvisor.supervisor.ledger import Header
from jobvisor.supervisor.rejected import keep_rejected, keep_strange

#: Verdicts that are the fault of the job they name; every other kill of ours charges nobody.
_BLAMING = {"timeout", "memory"}


def death_of(grave: Grave, held: Held | None, current: int, claim: int, *, oom: bool) -> Death:
    """What a death the parent saw means for the job that was current."""
    ended = Exit(grave.pid, grave.status)
    how = f"was killed by {ended.signal}" if ended.signal else f"ended by {ended.cause}"
    verdict = VERDICTS[grave.verdict] if 0 <= grave.verdict < len(VERDICTS) else "force"
    named = (grave.verdict_job, grave.verdict_claim) == (current, claim)
    if verdict and named and verdict in (*_BLAMING, "cancel"):
        outcome = "cancelled" if verdict == "cancel" else verdict
        text = _sentence(verdict, held)
    elif verdict:
        outcome = "stopped"
        text = f"its worker was stopped ({verdict}) for no fault of the job"
    else:
        outcome = "crash"
        text = f"its worker {how}"
        if ended.signal == "SIGKILL" and oom:
            outcome, text = "oom", "its worker was killed by the kernel: out of memory"
    return Death(outcome, text, HOST, grave.pid, ended.code, ended.signal, verdict or None)


def _sentence(verdict: str, held: Held | None) -> str:
    if verdict == "timeout":
        limit = f" of {held.timeout_ms / 1000:g} s" if held else ""
        return f"killed at its timeout{limit}"
    if verdict == "memory":
        limit = f" of {held.memory_bytes >> 20} MiB" if held else ""
        return f"killed over its memory limit{limit}"
    return "killed because it did not end when its cancel was asked for"


def died_unseen(header: Header) -> Death:
    """A life that ended with its parent, so that nobody saw how."""
    text = "its worker died together with its supervisor; nobody saw how"
    return Death("crash", text, header.host, header.pid)


def overdue(header: Header, job: int, held: Held | None) -> Death:
    """A life without its parent, killed by a caretaker at the timeout of a job."""
    outcome, text = "timeout", _sentence("timeout", held)
    if header.current != job:  # it ended in the last moment, and the next one is innocent
        outcome, text = "stopped", "its worker was stopped (timeout) for no fault of the job"
    return Death(outcome, text, header.host, header.pid, None, "SIGKILL", "timeout")


def vanished(life: Life) -> Death:
    """A life that left no evidence: its machine or its ledger is gone."""
    return Death("vanished", "its worker vanished without evidence", life.host, life.pid)


def settle(
    store: Store,
    life: Life,
    records: list[Record],
    running: tuple[int, int],
    death: Death,
    *,
    forget: bool,
    progress: Progress | None = None,
) -> Applied:
    """Settle a dead life in one transaction; `running` is its current job (0: none) and claim."""
    with store.transaction():
        # First: a turn that this life had sent before its death ends now, or claims nothing.
        store.remove_owner(life.owner)
        applied = store.apply(records, life, forget_succeeded=forget)
        if running[0]:
            if progress is not None and progress.job == running[0]:
                store.progress(running[0], life.owner, running[1], progress.text)
            _end_current(store, life, running, death)
        store.release_rest(life.owner)
    return applied


def tell(applied: Applied, rejected: str) -> None:
    """What a settling could not do: told in the log, and kept in the folder of refused outcomes."""
    log_lost(applied.lost)
    for record, reason in applied.rejected:
        keep_rejected(rejected, record, reason)


def tell_strange(found: Read | None, rejected: str) -> None:
    """What a later release recorded in a ledger that is given up now: kept, and told in the log."""
    if found is not None and found.strange:
        keep_strange(rejected, found.header.owner, found.strange)


def settle_rebooted(store: Store, life: Life, found: Read, *, forget: bool) -> Applied:
    """Settle a life of an earlier boot: its records are authentic, but what it wrote last is lost."""
    with store.transaction():
        store.remove_owner(life.owner)
        applied = store.apply(found.records, life, forget_succeeded=forget)
        settle_vanished(store, life)
    return applied


def is_of_one_life(error: Exception) -> bool:
    """Whether settling failed for this one life, by its file or its rows, so that others can be settled."""
    if isinstance(error, StoreError):
        return not isinstance(error, (StoreUnavailable, StoreRefused, SchemaError, ForkedStore))
    return isinstance(error, (OSError, KeyError, ValueError, struct.error))


def settle_vanished(store: Store, life: Life, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Settle a life without evidence of what it had started: every row goes back uncharged.

    A job that loses its worker like that four times is failed. Page by page, and the owner with the last
    one: a kill in between leaves an owner with fewer rows. After each page `go_on` is asked, outside of
    any transaction: False leaves the rest for later, and so does this.
    """
    while store.vanish(life.owner, vanished(life)):
        if not go_on():
            return False
    with store.transaction():
        store.remove_owner(
            life.owner
        )  # what it had sent before its death ends now, or claims nothing
        while store.vanish(life.owner, vanished(life)):
            pass  # what it had claimed with its last statement: a page at the most
    return True


def _end_current(store: Store, life: Life, running: tuple[int, int], death: Death) -> None:
    job, claim = running
    # Gone from `running` means that the journal had it, or that an earlier settling did.
    held = store.held(job, life.owner, claim)
    if held is None:
        return
    if death.outcome == "stopped":
        store.give_back(job, life.owner, held, death)
    else:
        store.rescue(job, life.owner, held, death, _delay(held))


def _delay(held: Held) -> int | None:
    if held.attempt >= held.attempts_max:
        return None
    return policy_from_json(held.policy).delay_ms(held.attempt, None)


def recall(
    store: Store, life: Life, found: Read, claim: int, *, forget: bool
) -> tuple[Applied, int]:
    """Behind a long job: what its batch has finished is settled, what it has not begun goes back.

    `found` was read after the recall word was set and the worker had time to see it: current
    first, then the journal.
    """
    with store.transaction():
        applied = store.apply(found.records, life, forget_succeeded=forget)
        released = store.release_rest(life.owner, Rest((claim,), (found.header.current,)))
    return applied, released
