"""Long texts that a key opens: a job with its attempts, a stack, what a job said."""

from __future__ import annotations

from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.job import State
from jobvisor.supervisor.cli import plain
from jobvisor.supervisor.cli.look import job_lines
from jobvisor.supervisor.cli.top.database import Database
from jobvisor.supervisor.cli.top.local import Local
from jobvisor.supervisor.documents.said import run_of, said_of
from jobvisor.supervisor.documents.stack import stacks_of_job, stacks_of_process

__all__ = ["Texts"]


class Texts:
    """By the database, and by the processes of the family on this machine."""

    def __init__(self, database: Database, local: Local | None) -> None:
        self._database = database
        self._ledgers = "" if local is None else local.ledgers

    def job(self, job: int) -> list[str]:
        """All there is to know of it."""
        return list(job_lines(*self._database.job(job), self._database.why(job)))

    def said(self, job: int) -> list[str]:
        """What it logged and printed in its past runs, and in the one that goes on."""
        found, attempts = self._database.job(job)
        run = run_of(self._ledgers, found)
        lines: list[str] = []
        for told in said_of(found, attempts, run):
            if told["said"]:
                lines.append(f"attempt {told['attempt']}: {plain(str(told['outcome']))}")
                lines += plain(told["said"]).splitlines()
        if lines:
            return lines
        if run is not None:
            return [f"job {job} has said nothing yet"]
        if found.state is State.RUNNING:
            return [f"job {job} runs in no worker here: what it says is read on its machine"]
        return [f"nothing is kept of what job {job} said"]

    def stack(self, who: int | str) -> list[str]:
        """Where a job, or a process by its name, is just now."""
        if not self._ledgers:
            raise JobsError("there is no family here that could be asked: -c names its config.toml")
        ledgers = self._ledgers
        found = (
            stacks_of_job(ledgers, who) if isinstance(who, int) else stacks_of_process(ledgers, who)
        )
        lines: list[str] = []
        for each in found:
            of = f"job {each['job']}" if each["job"] else "no job"
            lines += [
                f"{each['name']} pid {each['pid']}, {of}:",
                *plain(each["stack"]).splitlines(),
            ]
        return lines
