"""Why children ended in whose place another one comes: counted by the parent, by role and cause."""

from __future__ import annotations

from jobvisor.supervisor.board import BOOTING, ROLE, STATE, VERDICT, VERDICTS, Slot, why_leaving
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.counting.counters import Block
from jobvisor.supervisor.counting.layout import CAUSES, ENDS_AT, ROLES_MAX

_VERDICT_BITS = 63  # above them is how it stood when it was killed


class Restarts:
    """The parent's side."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def note(self, slot: Slot, ended: Exit) -> None:
        """The child of this place has ended, and another one is to come."""
        if 0 <= slot[ROLE] < ROLES_MAX:
            cause = CAUSES.index(cause_of(slot, ended))
            self._block.add(ENDS_AT + slot[ROLE] * len(CAUSES) + cause)


def cause_of(slot: Slot, ended: Exit) -> str:
    """One of CAUSES: the parent's verdict, how it broke, why it left; or it had nothing more to do."""
    verdict = slot[VERDICT] & _VERDICT_BITS
    if 0 < verdict < len(VERDICTS):
        return VERDICTS[verdict]
    if ended.status < 0:
        return "signal"
    if ended.status:
        return "boot" if slot[STATE] == BOOTING else "error"
    return why_leaving(slot) or "finished"
