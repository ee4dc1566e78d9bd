"""Whether the server that runs this application is to stop: uvicorn says so when all has ended."""

from __future__ import annotations

import signal


def server_stops() -> bool:
    """True once uvicorn has been asked to end, by a signal that it handles itself."""
    handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(handler, "should_exit", False) is True
