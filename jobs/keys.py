"""Everything that can be set: the tables of config.toml, their keys, defaults and a line for each.

Parsing, the environment twins, the file that `jobvisor init` writes and the test of the README all
come from `TABLES`, so they cannot drift apart.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobvisor.jobs.limit import BURST_MAX
from jobvisor.jobs.limit import CONCURRENCY_MAX as MOST_AT_ONCE
from jobvisor.jobs.schedule import CATCH_UPS, OVERLAPS
from jobvisor.jobs.task import RETRIES_MAX, check_queue
from jobvisor.jobs.values import (
    PREFIX_HELP,
    Form,
    check_prefix,
    check_schema,
    choice,
    count,
    count_or_none,
    duration,
    file_path,
    flag,
    flag_or_none,
    folder_path,
    keeping,
    listed,
    mapped,
    matching,
    retention,
    secret,
    size,
    span,
    url,
    word,
    words,
)

PROCESSES_MAX = 240
"""Places for workers in one family: the board has 256 slots, and the rest is kept for the other roles."""
CONCURRENCY_MAX = 1000
"""Lanes of one worker."""
LANES_MAX = 16_384
"""Of one family."""

SCHEMA_NAME = "jobvisor"
DURABILITIES = ("full", "normal")
DEFAULT_NAME = "default"
"""How a table of a list is called that says no `name`."""


class Shape(StrEnum):
    """How a table is written: its heading, with the table's name in it."""

    ONE = "[{}]"
    LIST = "[[{}]]"
    """Written again for another one; their `name` tells them apart."""
    NAMED = "[{}.NAME]"


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be set: its name, what it may be, its default as TOML has it, and a line."""

    name: str
    form: Form
    default: Any
    help: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table of config.toml, or one kind of table that may be written several times."""

    name: str
    keys: tuple[Key, ...]
    shape: Shape = Shape.ONE
    implied: bool = False
    """Of a list: without any in the file there is one, of defaults."""

    @property
    def heading(self) -> str:
        """As the file has it: `[database]`, `[[workers]]`."""
        return self.shape.format(self.name)

    def has_twin(self, key: Key) -> bool:
        """A name picks the variables of its table, so it has none of its own."""
        return self.shape is not Shape.LIST or key.name != "name"

    def variable(self, key: Key, entry: str = DEFAULT_NAME) -> str:
        """The environment twin of a key; `entry` is the name among tables of one kind.

        >>> workers = TABLES[4]
        >>> workers.variable(workers.keys[2], "mail-out")
        'JOBVISOR_WORKERS_MAIL_OUT_PROCESSES'
        """
        middle = "" if self.shape is Shape.ONE else f"{folded(entry)}_"
        return f"JOBVISOR_{self.name.upper()}_{middle}{key.name.upper()}"


def folded(entry: str) -> str:
    """A table's name as variables have it; two that differ in case or punctuation share theirs."""
    return re.sub("[^A-Z0-9]", "_", entry.upper())


def _queue(value: Any) -> str:
    return check_queue("queue", value)


def _queue_or_none(value: Any) -> str:
    return "" if value == "" else _queue(value)


_ABOVE_ZERO = duration(1, 'a duration above zero, such as "30s"')
_FROM_ZERO = duration(0, 'a duration such as "1d", or "0" for none')
_NAME = matching(r"[A-Za-z0-9_.:-]{1,100}")
_POOL = matching(r"[A-Za-z0-9_-]{1,50}")
_MODULE = matching(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_OBJECT = matching(r"|[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_LETTERS = "1 to 100 letters, digits and _ . : -"
_host = matching(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_host_or_none = matching(r"[A-Za-z0-9.-]{0,253}|[0-9A-Fa-f:.]{2,45}")
_HOST_HELP = 'a host name or an address, such as "127.0.0.1" or "::1"'
_user = matching(r"[^\x00-\x1f:\x7f]{0,200}")
_USER_HELP = "up to 200 characters, no colon"
_pattern = matching(r"[^\x00-\x1f]{1,200}")
_origin = matching(r"https?://[A-Za-z0-9.:\[\]-]{1,255}")
_field = matching(r"[^\x00-\x1f]{1,100}")
_schedule = matching(r"[^\s\x00-\x1f]|[^\s\x00-\x1f][^\x00-\x1f]{0,398}[^\s\x00-\x1f]")
_timing = matching(r"[^\x00-\x1f]{0,300}")
_rate = matching(r"[^\x00-\x1f]{0,50}")
_sender = matching(r"|[^\x00-\x1f]{0,200}@[^\x00-\x1f@]{1,253}")
_SENDER_HELP = 'an address, as "jobs@example.com" or "Jobs <jobs@example.com>"'


TABLES: tuple[Table, ...] = (
    Table(
        "database",
        (
            Key("url", url(), "sqlite:///jobs.db", "where the jobs live"),
            Key(
                "schema",
                word(
                    check_schema,
                    "a name: 1 to 63 lower-case letters, digits and _, not beginning with pg_",
                ),
                SCHEMA_NAME,
                "the PostgreSQL schema that holds the tables",
            ),
            Key(
                "prefix",
                word(check_prefix, PREFIX_HELP),
                "",
                'begins the names of our tables, as "jobvisor_", beside others',
            ),
            Key(
                "durability",
                choice(*DURABILITIES),
                "full",
                'an enqueued job survives a power cut; "normal" does not promise that',
            ),
            Key(
                "poll", _ABOVE_ZERO, "1s", "how often an idle worker looks although nothing woke it"
            ),
            Key(
                "notify",
                flag(),
                True,
                "wake idle workers by PostgreSQL's NOTIFY; false polls every 100 ms",
            ),
            Key(
                "connect_timeout",
                _ABOVE_ZERO,
                "60s",
                "give up a first start when no database answers for so long",
            ),
            Key(
                "codec",
                word(_OBJECT, 'the place of an object, as "app.crypto:codec"'),
                "",
                'an object that encrypts arguments and results, as "app.crypto:codec"',
            ),
        ),
    ),
    Table(
        "tasks",
        (
            Key(
                "modules",
                words(_MODULE, 'the names of modules, each once, as ["app.tasks"]', least=0),
                [],
                'the modules that hold your tasks, such as ["app.tasks"]; none is assumed',
            ),
            Key("path", folder_path(), ".", "the folder they are found in, put last on sys.path"),
            Key(
                "unknown",
                choice("defer", "fail"),
                "defer",
                'a job whose task is in no module: "defer" it, or "fail" it',
            ),
            Key(
                "preload",
                flag(),
                False,
                "import the modules once and fork all workers from that process (Linux)",
            ),
        ),
    ),
    Table(
        "defaults",
        (
            Key(
                "queue",
                word(_queue, f"one queue name: {_LETTERS}"),
                "default",
                "the queue of a task that names none",
            ),
            Key(
                "retries",
                count(0, RETRIES_MAX),
                3,
                "further attempts after the first, unless the task says so",
            ),
            Key(
                "timeout",
                _FROM_ZERO,
                "0",
                'the longest one run may take, unless the task says so; "0" is no limit',
            ),
        ),
    ),
    Table(
        "supervisor",
        (
            Key(
                "name",
                word(_NAME, f"a name: {_LETTERS}"),
                "main",
                "the name of this family in status, log and metrics",
            ),
            Key(
                "state_dir",
                folder_path(),
                ".jobvisor",
                "lock, ledgers and status.json: a local folder of one family's own",
            ),
            Key(
                "stop_timeout",
                _ABOVE_ZERO,
                "30s",
                "at a stop jobs may run on for so long; then they are given back",
            ),
            Key("boot_timeout", _ABOVE_ZERO, "60s", "how long importing the modules may take"),
            Key(
                "reload_timeout",
                _ABOVE_ZERO,
                "1h",
                "a job may outlive a reload for so long; then it is given back",
            ),
            Key(
                "cancel_grace",
                _ABOVE_ZERO,
                "10s",
                "a job asked to cancel has so long to leave; then it is killed",
            ),
            Key(
                "dead_after",
                _ABOVE_ZERO,
                "30s",
                "a family silent for so long is dead and its jobs run elsewhere",
            ),
        ),
    ),
    Table(
        "workers",
        (
            Key(
                "name",
                word(_POOL, "a name: 1 to 50 letters, digits and _ -"),
                "default",
                "the name of this pool; write [[workers]] again for another one",
            ),
            Key(
                "queues",
                words(
                    _queue, f'at least one queue, each once, as ["default"]; a name is {_LETTERS}'
                ),
                ["default"],
                "the queues it serves, the first one first",
            ),
            Key(
                "processes",
                span(1, PROCESSES_MAX),
                2,
                'how many workers; "1-8": from 1 to 8, by what waits',
            ),
            Key(
                "scale_latency",
                _ABOVE_ZERO,
                "1s",
                "of a range: a job that waits for longer brings more workers",
            ),
            Key(
                "scale_idle",
                _ABOVE_ZERO,
                "30s",
                "of a range: workers that nobody needed for so long leave",
            ),
            Key(
                "overlap",
                flag(),
                True,
                "a replaced worker may end its job beside the new one; false: before it",
            ),
            Key(
                "concurrency",
                count(1, CONCURRENCY_MAX),
                1,
                "how many jobs each runs at once: `def` in threads, `async def` on a loop",
            ),
            Key(
                "batch_max",
                count(1, 10_000),
                500,
                "at most so many short jobs in one turn; 1 claims job by job",
            ),
            Key(
                "max_jobs",
                count(0, 1_000_000_000),
                0,
                "a worker is replaced after so many jobs; 0 is never",
            ),
            Key(
                "max_memory",
                size(),
                "0",
                'a worker grown above this is replaced after its job; "0" is never',
            ),
        ),
        Shape.LIST,
        implied=True,
    ),
    Table(
        "retention",
        (
            Key(
                "succeeded",
                retention(),
                "1d",
                'how long a succeeded job is kept; "forever"; "0s" is not at all',
            ),
            Key("cancelled", retention(), "7d", 'how long a cancelled job is kept, or "forever"'),
            Key("failed", retention(), "30d", 'how long a failed job is kept, or "forever"'),
        ),
    ),
    Table(
        "schedules",
        (
            Key(
                "name",
                word(_schedule, 'a name for this schedule, such as "nightly"'),
                "",
                "what it is called; write [[schedules]] again for another one",
            ),
            Key(
                "task",
                word(_schedule, 'the name of a task, such as "app:report"'),
                "",
                "the name of the task that it enqueues",
            ),
            Key(
                "cron",
                word(_timing, 'a cron expression such as "0 3 * * *"'),
                "",
                'when: minute, hour, day of month, month, day of week, as "0 3 * * *"',
            ),
            Key("every", word(_timing, 'a duration such as "15m"'), "", 'or how often, as "15m"'),
            Key(
                "timezone",
                word(_timing, 'the name of a time zone, such as "Europe/Berlin"'),
                "UTC",
                "whose clocks `cron` goes by",
            ),
            Key("args", listed(), [], "the arguments of the task by place"),
            Key("kwargs", mapped(), {}, "and by name"),
            Key(
                "queue",
                word(_queue_or_none, f"one queue name: {_LETTERS}"),
                "",
                'where its jobs go; "" is where the task says',
            ),
            Key(
                "catch_up",
                choice(*CATCH_UPS),
                "latest",
                'what is enqueued for missed times: the "latest", "all", or "none"',
            ),
            Key(
                "overlap",
                choice(*OVERLAPS),
                "allow",
                '"skip" enqueues none while the job of the time before is unfinished',
            ),
            Key("paused", flag(), False, "enqueue nothing"),
        ),
        Shape.LIST,
    ),
    Table(
        "limits",
        (
            Key(
                "concurrency",
                count_or_none(0, MOST_AT_ONCE),
                "",
                "how many jobs of this limit run at once; each key has it for itself",
            ),
            Key(
                "rate",
                word(_rate, 'a number and a time, as "100/1m"'),
                "",
                'how many start in a while, as "100/1m"',
            ),
            Key(
                "burst",
                count(0, BURST_MAX),
                0,
                "how many may start at once after a rest; 0: as the rate gives in 1 s",
            ),
        ),
        Shape.NAMED,
    ),
    Table(
        "queues",
        (
            Key(
                "keep",
                keeping(),
                "",
                'how long its finished jobs are kept, or { succeeded = "1h" }; "" is as [retention]',
            ),
            Key(
                "fair",
                flag_or_none(),
                "",
                'true: the jobs of each share= in turn; false: as they come; "" is as stored',
            ),
        ),
        Shape.NAMED,
    ),
    Table(
        "log",
        (
            Key(
                "level",
                choice("debug", "info", "warning", "error"),
                "info",
                "what is logged; succeeded jobs are logged at debug",
            ),
            Key("format", choice("text", "json"), "text", "one line of text, or one JSON object"),
            Key(
                "file", file_path(), "", 'where the lines go; "" is standard error; USR1 reopens it'
            ),
            Key(
                "keep",
                choice("failed", "all", "none"),
                "failed",
                'the end of what jobs print and log is kept: of "failed" runs, of "all", of "none"',
            ),
        ),
    ),
    Table(
        "web",
        (
            Key(
                "enabled",
                flag(),
                False,
                "serve pages, API and metrics (needs the extra `web`)",
            ),
            Key("host", word(_host, _HOST_HELP), "127.0.0.1", "the address it listens on"),
            Key("port", count(0, 65_535), 8321, "its port; 0 takes one that is free"),
            Key(
                "token",
                secret(),
                "",
                "a Bearer token that lets in; needed beyond this machine",
            ),
            Key("user", word(_user, _USER_HELP), "", "the name to sign in with on the page"),
            Key("password", secret(), "", "and its password"),
            Key("read_only", flag(), False, "show all and change nothing"),
            Key(
                "allow_tasks",
                words(_pattern, 'patterns of task names, each once, as ["app.mail:*"]', least=0),
                [],
                'tasks that may be enqueued over HTTP, as ["app.mail:*"]',
            ),
            Key(
                "origins",
                words(_origin, 'origins, each once, as ["https://ops.example.com"]', least=0),
                [],
                "other origins whose pages may use it, and whose Host it has",
            ),
            Key(
                "hide",
                words(_field, 'names of arguments, each once, as ["password"]', least=0),
                ["password", "token"],
                "arguments of these names are shown as ***",
            ),
            Key(
                "metrics_compat",
                choice("", "celery"),
                "",
                'also the metrics that dashboards of "celery" exporters ask for',
            ),
        ),
    ),
    Table(
        "email",
        (
            Key("host", word(_host_or_none, _HOST_HELP), "", "the SMTP server of the task `email`"),
            Key("port", count(1, 65_535), 587, "its port"),
            Key(
                "security",
                choice("starttls", "tls", "none"),
                "starttls",
                'how its connection is encrypted; "tls" from the first byte (port 465)',
            ),
            Key("username", word(_user, _USER_HELP), "", "whom to log in as; empty does not"),
            Key("password", secret(), "", "and the password for it"),
            Key("from", word(_sender, _SENDER_HELP), "", "the sender, unless a mail names its own"),
            Key("timeout", _ABOVE_ZERO, "30s", "how long the server may take for each answer"),
        ),
    ),
)


def render() -> str:
    """The text of a `config.toml` that shows every key with its default and one line of comment."""
    lines = [
        "# Every key of jobvisor with its default. A relative path starts from this file's folder.",
        '# Durations are "250ms" "30s" "1m30s" "7d", sizes "512MB". Each key has an environment',
        "# twin that wins over the file: JOBVISOR_DATABASE_URL; of a pool (here the one named",
        "# default) JOBVISOR_WORKERS_DEFAULT_PROCESSES; lists are written with commas: a,b.",
    ]
    for table in TABLES:
        # Of a kind of table that there need be none of the keys are shown, and none is there.
        shown = "" if table.implied or table.shape is Shape.ONE else "# "
        lines += ["", f"{shown}{table.heading}"]
        entries = [
            (f"{shown}{key.name} = {toml_text(key.default)}", key.help) for key in table.keys
        ]
        width = max(len(entry) for entry, _ in entries)
        lines += [f"{entry:<{width}}  # {said}" for entry, said in entries]
    return "\n".join(lines) + "\n"


def toml_text(value: Any) -> str:
    """A value as the file would have it, cut to what fits a line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."
