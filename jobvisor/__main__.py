"""`python -m jobvisor` is the command `jobvisor`."""

from __future__ import annotations

from jobvisor.supervisor.cli import main

if __name__ == "__main__":
    main(prog_name="jobvisor")
