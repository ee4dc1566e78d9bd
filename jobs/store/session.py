"""What each session of ours is told; behind a pooler, each transaction, which may be another session's."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import sql

#: On every connection or, behind a pooler, in every transaction. Without these a machine that
#: vanished would hold its locks for two hours, until the server's kernel asks for it.
_LIMITS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
#: Every statement finds its rows by an index, in its order. A prepared plan that was made while the
#: table was small would scan it for as long as its statistics are old, or take a limit it does not know
#: for a tenth of the table and sort all of it; compiling plans costs more than running them.
_PLANS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


def settings(*, patience: float, idle: float, notify: bool) -> dict[str, str]:
    """The limits and plans of a session; both times in seconds."""
    return {
        **_LIMITS,
        "statement_timeout": str(int(patience * 1000)),
        "lock_timeout": str(int(patience * 500)),
        # The locks of a machine that stands still or is gone are held no longer.
        "idle_in_transaction_session_timeout": str(int(idle * 1000)),
        **({} if notify else {"jobvisor.notify": "off"}),
        **_PLANS,
    }


def set_all(values: Mapping[str, str], *, local: bool) -> bytes:
    """The statement that sets them, for the session or for the transaction (`local`)."""
    calls = sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, {})").format(name, value, local)
        for name, value in values.items()
    )
    return sql.SQL("SELECT {}").format(calls).as_bytes(None)
