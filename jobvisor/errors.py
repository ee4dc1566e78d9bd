"""Every exception of jobvisor: catch the one that fits, or `JobsError` for all of them.

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

`exit_code` is what the command leaves with. What a *task* raises to choose its end (`Retry`,
`Snooze`, `Fail`, `Release`, `Cancelled`) is no error of ours: those stand in `jobvisor` itself.
"""

from __future__ import annotations

from jobvisor.jobs.errors import (
    ConfigError,
    FamilyNotRunning,
    FamilyRunning,
    ForkedStore,
    IllegalMove,
    InvalidOption,
    JobFailed,
    JobNotFound,
    JobsError,
    MissingExtra,
    PayloadError,
    QueueFull,
    RowRefused,
    ScheduleNotFound,
    ScheduleTaken,
    SchemaError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    UniqueTaken,
    UnknownTask,
    WaitTimeout,
)

__all__ = [
    "ConfigError",
    "FamilyNotRunning",
    "FamilyRunning",
    "ForkedStore",
    "IllegalMove",
    "InvalidOption",
    "JobFailed",
    "JobNotFound",
    "JobsError",
    "MissingExtra",
    "PayloadError",
    "QueueFull",
    "RowRefused",
    "ScheduleNotFound",
    "ScheduleTaken",
    "SchemaError",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "UniqueTaken",
    "UnknownTask",
    "WaitTimeout",
]
