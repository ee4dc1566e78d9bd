"""What must not outlive the test process: taken away by a shell that waits for its end."""

from __future__ import annotations

import subprocess

_WAIT = "trap '' HUP INT TERM; read -r _\n"


class Leftovers:
    """A shell script that runs at `clear`, or when this process has ended, however it ended.

    The shell waits at a pipe that only this process holds: nothing has to run here for it.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        """The arguments are the script's `$1`, `$2` ..."""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT + script, "leftovers", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the tests
        )

    def clear(self) -> None:
        """Run the script now, and wait until it is through."""
        self._shell.communicate(timeout=30)
