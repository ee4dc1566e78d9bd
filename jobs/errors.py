"""Every exception we raise. What to catch is chosen by looking at this drawing.

    JobsError                       exit code 1
    |- ConfigError                  78   the configuration is wrong
    |- InvalidOption (ValueError)    2   an option or a duration has a bad value
    |- PayloadError (ValueError)     2   an argument or a result cannot be stored or read
    |- UnknownTask                   1   no task has this name
    |- JobNotFound (LookupError)     1   no job has this id
    |- ScheduleNotFound (LookupError) 1  no schedule has this name
    |- ScheduleTaken                 1   the schedule of this name is somebody else's
    |- WaitTimeout (TimeoutError)    1   the job did not finish in time
    |- JobFailed                     1   the job of a future did not succeed
    |- QueueFull                     1   there is no room for a further call
    |- IllegalMove                   1   the job's state does not allow this verb
    |  '- UniqueTaken                1   another job holds the unique key
    |- FamilyRunning                 1   the state directory has a live family
    |- FamilyNotRunning              1   it has none
    |- MissingExtra                 78   an optional dependency is not installed
    '- StoreError                   69   the database did not do what it was asked
       |- StoreUnavailable          69   for now: locked, full, unreachable; trying again helps
       |- StoreRefused              78   for good: this file or place cannot be used
       |- SchemaError               78   the tables are newer, or missing
       |- RowRefused                 1   a constraint, a trigger or a type refuses a row
       '- ForkedStore                1   a connection met another process than its own

The first sentence of a docstring is the default message, so it is said once. `exit_code` is what
the command leaves with (sysexits: 2 usage, 69 unavailable, 78 configuration).
"""
# ruff: noqa: N818 -- the names are public and say what happened: JobNotFound, not JobNotFoundError

from __future__ import annotations

from typing import ClassVar

# What a process of ours leaves with, by the names of sysexits.h.
EX_OK = 0
EX_UNAVAILABLE = 69
"""The database cannot be reached."""
EX_SOFTWARE = 70
"""A child that met an exception of ours."""
EX_DESCRIPTORS = 71
"""A worker whose task had closed its files."""
EX_LOCKED = 72
"""A worker whose task had left the database locked."""
EX_UNFIT = 73
"""A template whose application is not fit to be copied."""
EX_TEMPFAIL = 75
"""Something had to be killed."""
EX_CONFIG = 78
"""The configuration is wrong."""


class JobsError(Exception):
    """Something went wrong in jobvisor.

    The root of all our exceptions: `except JobsError` catches each of them and nothing else.

    >>> str(JobNotFound())
    'No job has this id'
    >>> str(JobNotFound("no job has the id 42: it may have been pruned"))
    'no job has the id 42: it may have been pruned'
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message or _first_sentence(type(self)))


def _first_sentence(error: type[JobsError]) -> str:
    # Under `python -OO` there are no docstrings; the name still says something.
    return (error.__doc__ or error.__name__).split("\n", 1)[0].strip().rstrip(".")


def shown(value: object, limit: int = 80) -> str:
    """A value as a message shows it: one bounded piece, whatever the value's own repr does.

    >>> shown("a" * 100, limit=10)
    "'aaaaaaaaa..."
    """
    try:
        text = repr(value[:limit] + " " if type(value) is str and len(value) > limit else value)
    except Exception:  # noqa: BLE001 -- a user's __repr__ may raise anything, a huge int a ValueError
        return f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}..."


def error_text(error: BaseException) -> str:
    """An error of somebody else's in one line, whatever its own __str__ does."""
    try:
        return f"{type(error).__name__}: {shown(str(error))}"
    except Exception:  # noqa: BLE001 -- a user's __str__ may raise anything
        return type(error).__name__


class ConfigError(JobsError):
    """The configuration is wrong.

    Nothing was started or changed. The message names the file or variable, the key and the value.
    """

    exit_code = 78


class InvalidOption(JobsError, ValueError):
    """An option has a value that cannot be used.

    Raised where the value is given (the decorator, `using`, `enqueue`), never later in a worker.
    """

    exit_code = 2


class PayloadError(JobsError, ValueError):
    """A value cannot be stored as JSON, or stored text cannot be read back.

    The message names the place inside the value, such as `args[0].rows[3]`.
    """

    exit_code = 2


class UnknownTask(JobsError):
    """No task has this name.

    A task is known once the module that defines it is imported: see `[tasks] modules`.
    """


class JobNotFound(JobsError, LookupError):
    """No job has this id.

    It never existed, or its retention has passed and it was pruned.
    """


class ScheduleNotFound(JobsError, LookupError):
    """No schedule has this name."""


class ScheduleTaken(JobsError):
    """The schedule of this name is somebody else's.

    It was added at run time, or the configuration or the code of a living family declares it.
    """


class WaitTimeout(JobsError, TimeoutError):
    """The job did not finish in time.

    Only the waiting ended: the job goes on.
    """


class JobFailed(JobsError):
    """The job did not succeed.

    The exception of a future of `Client.executor()`. `job` is its id; the message is its error.
    """

    def __init__(self, message: str = "", *, job: int = 0) -> None:
        super().__init__(message)
        self.job = job


class QueueFull(JobsError):
    """There is no room for a further call.

    Nothing was stored, and nothing will run.
    """


class IllegalMove(JobsError):
    """The state of the job does not allow this."""


class UniqueTaken(IllegalMove):
    """Another job holds the unique key.

    Raised by `requeue` and `import_`, and by `enqueue` with `on_conflict="raise"`. `holder` is the id of
    that job.
    """

    def __init__(self, message: str = "", *, holder: int = 0) -> None:
        super().__init__(message)
        self.holder = holder


class FamilyRunning(JobsError):
    """A family is already running in this state directory.

    `pid` is its parent's, 0 where it could not be read.
    """

    def __init__(self, message: str = "", *, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


class FamilyNotRunning(JobsError):
    """No family is running in this state directory."""


class MissingExtra(JobsError):
    """An optional dependency is not installed.

    The message names the extra to install.
    """

    exit_code = 78


class StoreError(JobsError):
    """The database did not do what it was asked."""

    exit_code = 69


class StoreUnavailable(StoreError):
    """The database cannot be used right now.

    Locked too long, cannot be opened, the disk is full, an I/O error: the same call may succeed
    later.
    """


class StoreRefused(StoreError):
    """The database cannot be used at all.

    A network file system, a file that is no database, a SQLite that is too old: trying again will
    not help.
    """

    exit_code = 78


class RowRefused(StoreError):
    """The database refuses a row.

    A constraint, a trigger of yours, or a value its column cannot hold; nothing was changed.
    """

    exit_code = 1


class SchemaError(StoreError):
    """The tables do not fit this release.

    They are newer than this release knows, or not migrated yet.
    """

    exit_code = 78


class ForkedStore(StoreError):
    """A store was used in another process than the one that opened it.

    A database connection must not cross a fork: open a store in the child.
    """

    exit_code = 1
