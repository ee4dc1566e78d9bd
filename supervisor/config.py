"""`config.toml` (or a mapping, when embedded) to frozen dataclasses, read once at the edge.

`KEYS` is the one table of everything that can be set. Parsing, the environment twins, the file that
`jobvisor init` writes and the test of the README all come from it, so they cannot drift apart.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.nearest import nearest
from jobvisor.jobs.settings import SCHEMA_NAME, check_flag, check_schema, parse_url
from jobvisor.jobs.task import RETRIES_MAX, Defaults, check_queue
from jobvisor.jobs.units import duration_ms, size_bytes

__all__ = [
    "KEYS",
    "PROCESSES_MAX",
    "Config",
    "Database",
    "Family",
    "Key",
    "Kind",
    "Log",
    "Retention",
    "Tasks",
    "Workers",
    "render",
]

PROCESSES_MAX = 240
"""Workers of one family: the board has 256 slots, and the rest is kept for the other roles."""

FILE_BYTES_MAX = 1 << 20
"""A longer file is no configuration (and `-c /dev/zero` must end)."""

_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be: how it reads, and what to write instead of a wrong one.

    `read` takes the value as TOML has it and the folder its relative paths start from; it raises
    ValueError (or ConfigError, with the whole reason) for a value it will not have.
    """

    expects: str
    read: Callable[[Any, str], Any]
    from_text: Callable[[str], Any] = str


def _duration(least_ms: int, expects: str) -> Kind:
    def read(value: Any, _: str) -> int:
        milliseconds = duration_ms(_plain(value, str, int, float))
        if not least_ms <= milliseconds <= _YEAR_MS:
            raise ValueError(value)
        return milliseconds

    return Kind(f"{expects}, at most 365 days", read)


def _size() -> Kind:
    def read(value: Any, _: str) -> int:
        size = size_bytes(_plain(value, str, int))
        if not 0 <= size < 1 << 62:
            raise ValueError(value)
        return size

    return Kind('a size such as "512MB", or "0" for no limit', read)


def _count(least: int, most: int) -> Kind:
    def read(value: Any, _: str) -> int:
        number: int = _plain(value, int)
        if not least <= number <= most:
            raise ValueError(value)
        return number

    return Kind(f"a whole number from {least} to {most}", read, int)


def _choice(*words: str) -> Kind:
    def read(value: Any, _: str) -> str:
        if value not in words:
            raise ValueError(value)
        return str(value)

    return Kind(" or ".join(json.dumps(word) for word in words), read)


def _word(check: Callable[[Any], str], expects: str) -> Kind:
    def read(value: Any, _: str) -> str:
        return check(value)

    return Kind(expects, read)


def _words(check: Callable[[Any], str], expects: str) -> Kind:
    def read(value: Any, _: str) -> tuple[str, ...]:
        words = tuple(check(word) for word in _plain(value, list, tuple))
        if not words or len(set(words)) < len(words):
            raise ValueError(value)
        return words

    return Kind(expects, read, _split)


def _url() -> Kind:
    def read(value: Any, folder: str) -> str:
        target = parse_url(_plain(value, str))
        if target.kind == "memory":
            raise ConfigError(
                "memory:// lives in one process and cannot be shared by a family; "
                'write a file, such as "sqlite:///jobs.db"'
            )
        if target.kind == "sqlite":
            return f"sqlite:///{os.path.abspath(os.path.join(folder, target.path))}"
        return str(value)

    return Kind('a database URL such as "sqlite:///jobs.db" or "postgresql://host/database"', read)


def _flag() -> Kind:
    def read(value: Any, _: str) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)  # noqa: TRY004 - one error for every wrong value
        return value

    return Kind("true or false", read, lambda text: check_flag("flag", text))


def _file() -> Kind:
    def read(value: Any, folder: str) -> str:
        path: str = _plain(value, str)
        if "\0" in path:
            raise ValueError(value)
        return os.path.abspath(os.path.join(folder, os.path.expanduser(path))) if path else ""

    return Kind("a path, or an empty text for standard error", read)


def _folder() -> Kind:
    def read(value: Any, folder: str) -> str:
        path: str = _plain(value, str)
        if not path or "\0" in path:
            raise ValueError(value)
        return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))

    return Kind("the path of a folder", read)


def _plain(value: Any, *types: type) -> Any:
    """The value itself when it is of one of these types; `true` is no number here."""
    if isinstance(value, bool) or not isinstance(value, types):
        raise ValueError(value)  # noqa: TRY004 - one error for every wrong value
    return value


def _matching(pattern: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not re.fullmatch(pattern, _plain(value, str)):
            raise ValueError(value)
        return str(value)

    return check


def _queue(value: Any) -> str:
    return check_queue("queue", value)


def _schema(value: Any) -> str:
    return check_schema("schema", value)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


_ABOVE_ZERO = _duration(1, 'a duration above zero, such as "30s"')
_FROM_ZERO = _duration(0, 'a duration such as "1d", or "0" for none')
_NAME = _matching(r"[A-Za-z0-9_.:-]{1,100}")
_POOL = _matching(r"[A-Za-z0-9_-]{1,50}")
_MODULE = _matching(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_LETTERS = "1 to 100 letters, digits and _ . : -"


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be set: where, what it may be, its default as TOML has it, and a line."""

    section: str
    name: str
    kind: Kind
    default: Any
    help: str

    def variable(self, pool: str = "") -> str:
        """The name of its environment twin; a key of `[[workers]]` has one for each pool."""
        middle = f"_{re.sub('[^A-Z0-9]', '_', pool.upper())}" if self.section == "workers" else ""
        return f"JOBVISOR_{self.section.upper()}{middle}_{self.name.upper()}"


KEYS: tuple[Key, ...] = (
    Key("database", "url", _url(), "sqlite:///jobs.db", "where the jobs live"),
    Key(
        "database",
        "schema",
        _word(_schema, "a name: 1 to 63 lower-case letters, digits and _, not beginning with pg_"),
        SCHEMA_NAME,
        "the PostgreSQL schema that holds the tables",
    ),
    Key(
        "database",
        "durability",
        _choice("full", "normal"),
        "full",
        'an enqueued job survives a power cut; "normal" does not promise that',
    ),
    Key(
        "database",
        "poll",
        _ABOVE_ZERO,
        "1s",
        "how often an idle worker looks although nothing woke it",
    ),
    Key(
        "database",
        "notify",
        _flag(),
        True,
        "wake idle workers by PostgreSQL's NOTIFY; false polls every 100 ms",
    ),
    Key(
        "database",
        "connect_timeout",
        _ABOVE_ZERO,
        "60s",
        "give up a first start when no database answers for so long",
    ),
    Key(
        "tasks",
        "modules",
        _words(_MODULE, 'at least one module, each once, as ["app.tasks"]'),
        ["jobvisor.jobs.demo"],
        "the modules that hold your tasks",
    ),
    Key("tasks", "path", _folder(), ".", "the folder they are found in, put last on sys.path"),
    Key(
        "tasks",
        "unknown",
        _choice("defer", "fail"),
        "defer",
        'a job whose task is in no module: "defer" it, or "fail" it',
    ),
    Key(
        "defaults",
        "queue",
        _word(_queue, f"one queue name: {_LETTERS}"),
        "default",
        "the queue of a task that names none",
    ),
    Key(
        "defaults",
        "retries",
        _count(0, RETRIES_MAX),
        3,
        "further attempts after the first, unless the task says so",
    ),
    Key(
        "defaults",
        "timeout",
        _FROM_ZERO,
        "0",
        'the longest one run may take, unless the task says so; "0" is no limit',
    ),
    Key(
        "supervisor",
        "name",
        _word(_NAME, f"a name: {_LETTERS}"),
        "main",
        "the name of this family in status, log and metrics",
    ),
    Key(
        "supervisor",
        "state_dir",
        _folder(),
        ".jobvisor",
        "lock, ledgers and status.json: a local folder of one family's own",
    ),
    Key(
        "supervisor",
        "stop_timeout",
        _ABOVE_ZERO,
        "30s",
        "at a stop jobs may run on for so long; then they are given back",
    ),
    Key(
        "supervisor",
        "boot_timeout",
        _ABOVE_ZERO,
        "60s",
        "how long importing the modules may take",
    ),
    Key(
        "supervisor",
        "cancel_grace",
        _ABOVE_ZERO,
        "10s",
        "a job asked to cancel has so long to leave; then it is killed",
    ),
    Key(
        "supervisor",
        "dead_after",
        _ABOVE_ZERO,
        "30s",
        "a family silent for so long is dead and its jobs run elsewhere",
    ),
    Key(
        "workers",
        "name",
        _word(_POOL, "a name: 1 to 50 letters, digits and _ -"),
        "default",
        "the name of this pool; write [[workers]] again for another one",
    ),
    Key(
        "workers",
        "queues",
        _words(_queue, f'at least one queue, each once, as ["default"]; a name is {_LETTERS}'),
        ["default"],
        "the queues it serves, the first one first",
    ),
    Key("workers", "processes", _count(1, PROCESSES_MAX), 2, "how many workers"),
    Key(
        "workers",
        "batch_max",
        _count(1, 10_000),
        500,
        "at most so many short jobs in one turn; 1 claims job by job",
    ),
    Key(
        "workers",
        "max_jobs",
        _count(0, 1_000_000_000),
        0,
        "a worker is replaced after so many jobs; 0 is never",
    ),
    Key(
        "workers",
        "max_memory",
        _size(),
        "0",
        'a worker grown above this is replaced after its job; "0" is never',
    ),
    Key("retention", "succeeded", _FROM_ZERO, "1d", "how long a succeeded job is kept"),
    Key("retention", "cancelled", _FROM_ZERO, "7d", "how long a cancelled job is kept"),
    Key("retention", "failed", _FROM_ZERO, "30d", "how long a failed job is kept"),
    Key(
        "log",
        "level",
        _choice("debug", "info", "warning", "error"),
        "info",
        "what is logged; succeeded jobs are logged at debug",
    ),
    Key("log", "format", _choice("text", "json"), "text", "one line of text, or one JSON object"),
    Key("log", "file", _file(), "", 'where the lines go; "" is standard error; USR1 reopens it'),
)

_SECTIONS = tuple(dict.fromkeys(key.section for key in KEYS))


def render() -> str:
    """The text of a `config.toml` that shows every key with its default and one line of comment."""
    lines = [
        "# Every key of jobvisor with its default. A relative path starts from this file's folder.",
        '# Durations are "250ms" "30s" "1m30s" "7d", sizes "512MB". Each key has an environment',
        "# twin that wins over the file: JOBVISOR_DATABASE_URL; of a pool (here the one named",
        "# default) JOBVISOR_WORKERS_DEFAULT_PROCESSES; lists are written with commas: a,b.",
    ]
    for section in _SECTIONS:
        lines += ["", "[[workers]]" if section == "workers" else f"[{section}]"]
        entries = [(f"{k.name} = {_toml(k.default)}", k.help) for k in KEYS if k.section == section]
        width = max(len(entry) for entry, _ in entries)
        lines += [f"{entry:<{width}}  # {said}" for entry, said in entries]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Database:
    """`[database]`: where the rows live. A SQLite path in `url` is absolute.

    `url` may hold a password: show it by `settings.shown_url` only.
    """

    url: str
    schema: str
    durability: str
    poll_ms: int
    notify: bool
    connect_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Tasks:
    """`[tasks]`: the user's modules. `path` is absolute."""

    modules: tuple[str, ...]
    path: str
    unknown: str


@dataclass(frozen=True, slots=True)
class Family:
    """`[supervisor]`: one supervisor with its children. `state_dir` is absolute."""

    name: str
    state_dir: str
    stop_timeout_ms: int
    boot_timeout_ms: int
    cancel_grace_ms: int
    dead_after_ms: int


@dataclass(frozen=True, slots=True)
class Workers:
    """One `[[workers]]`: a pool of processes and the queues it serves. 0 means no limit."""

    name: str
    queues: tuple[str, ...]
    processes: int
    batch_max: int
    max_jobs: int
    max_memory: int


@dataclass(frozen=True, slots=True)
class Retention:
    """`[retention]`: how long finished jobs are kept; 0 deletes them when they are settled."""

    succeeded_ms: int
    cancelled_ms: int
    failed_ms: int


@dataclass(frozen=True, slots=True)
class Log:
    """`[log]`: what is logged, and how."""

    level: str
    format: str
    file: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a family is told, validated.

    >>> Config.of({"workers": [{"queues": ["mail"]}]}).queues
    ('mail',)
    """

    database: Database
    tasks: Tasks
    defaults: Defaults
    family: Family
    workers: tuple[Workers, ...]
    retention: Retention
    log: Log
    path: str | None = None

    @classmethod
    def load(cls, path: str = "config.toml", environ: Mapping[str, str] = os.environ) -> Config:
        """Read a file, then its environment twins, which win; an empty variable is not set.

        A relative path in the file starts from the file's folder, one in the environment from the
        current one: there `JOBVISOR_DATABASE_URL` must mean the same file to every program.

        Raises:
            ConfigError: names the file (or variable), the key, the value and the remedy.
        """
        folder = os.path.dirname(os.path.abspath(path))
        return _build(_Source(path, _parse(path), folder, environ), os.path.abspath(path))

    @classmethod
    def of(
        cls,
        mapping: Mapping[str, Any],
        folder: str = ".",
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """Build one from a mapping shaped like the file: what the code says is not overruled.

        So the environment is read only where it is passed. Raises ConfigError like `load`.
        """
        source = _Source("config", mapping, os.path.abspath(folder), environ or {})
        return _build(source, None)

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that some pool serves, in the order they are written."""
        return tuple(dict.fromkeys(queue for pool in self.workers for queue in pool.queues))


@dataclass(frozen=True, slots=True)
class _Source:
    """Where values come from: a mapping, its name for people, and the environment."""

    name: str
    mapping: Mapping[str, Any]
    folder: str
    environ: Mapping[str, str]

    def section(self, section: str) -> dict[str, Any]:
        """The values of one table, by key, read and checked."""
        table = self.mapping.get(section, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"{self.name}: {section} is not a table; write [{section}] above it")
        return self._values(section, table, f"[{section}]", "")

    def pools(self) -> Iterator[dict[str, Any]]:
        """The values of each `[[workers]]`; without any there is one pool of defaults."""
        tables = self.mapping.get("workers", [{}])
        if isinstance(tables, Mapping):
            raise ConfigError(f"{self.name}: [workers] is one table; write [[workers]] for a pool")
        if not isinstance(tables, (list, tuple)) or not tables:
            raise ConfigError(f"{self.name}: workers is not a list of tables; write [[workers]]")
        for table in tables:
            if not isinstance(table, Mapping):
                raise ConfigError(f"{self.name}: workers holds {_toml(table)}; write [[workers]]")
            name = table.get("name", "default")
            among = f" pool {_toml(name)}:" if len(tables) > 1 else ""
            yield self._values("workers", table, f"[workers]{among}", str(name))

    def check_names(self, pools: tuple[Workers, ...]) -> None:
        """Refuse a section or a variable that nothing reads: it is a misspelled one."""
        for section in self.mapping:
            if section not in _SECTIONS:
                raise ConfigError(
                    f"{self.name}: [{section}] is not a section; {_nearest(section, _SECTIONS)}"
                )
        known = {k.variable(pool.name) for pool in pools for k in KEYS if _has_twin(k)}
        for variable in sorted(self.environ):
            ours = any(variable.startswith(f"JOBVISOR_{s.upper()}_") for s in _SECTIONS)
            if ours and self.environ[variable] and variable not in known:
                near = _nearest(variable, tuple(sorted(known)))
                raise ConfigError(f"the variable {variable} is the twin of no key; {near}")

    def _values(
        self, section: str, table: Mapping[str, Any], where: str, pool: str
    ) -> dict[str, Any]:
        keys = [key for key in KEYS if key.section == section]
        for name in table:
            if name not in {key.name for key in keys}:
                near = _nearest(str(name), tuple(key.name for key in keys))
                raise ConfigError(f'{self.name}: {where} "{name}" is not a key; {near}')
        return {key.name: self._value(key, table, where, pool) for key in keys}

    def _value(self, key: Key, table: Mapping[str, Any], where: str, pool: str) -> Any:
        text = self.environ.get(key.variable(pool), "") if _has_twin(key) else ""
        if text:
            return _checked(key, text, key.variable(pool), os.getcwd(), key.kind.from_text)
        value = table.get(key.name, key.default)
        return _checked(key, value, f"{self.name}: {where} {key.name}", self.folder)


def _checked(
    key: Key, value: Any, where: str, folder: str, convert: Callable[[Any], Any] | None = None
) -> Any:
    try:
        return key.kind.read(convert(value) if convert else value, folder)
    except ConfigError as error:
        # A URL can hold a password: its own error knows what may be shown.
        raise ConfigError(f"{where}: {error}") from error
    except (ValueError, OverflowError) as error:
        if key.name == "url":
            raise ConfigError(f"{where} is not valid: write {key.kind.expects}") from error
        raise ConfigError(
            f"{where} = {_toml(value)} is not valid: write {key.kind.expects}"
        ) from error


def _build(source: _Source, path: str | None) -> Config:
    database, tasks = source.section("database"), source.section("tasks")
    defaults, family = source.section("defaults"), source.section("supervisor")
    retention, log = source.section("retention"), source.section("log")
    workers = tuple(Workers(**pool) for pool in source.pools())
    source.check_names(workers)
    _check_pools(source.name, workers)
    return Config(
        database=Database(**_in_ms(database, "poll", "connect_timeout")),
        tasks=Tasks(**tasks),
        defaults=Defaults(**_in_ms(defaults, "timeout")),
        family=Family(
            **_in_ms(family, "stop_timeout", "boot_timeout", "cancel_grace", "dead_after")
        ),
        workers=workers,
        retention=Retention(**_in_ms(retention, "succeeded", "cancelled", "failed")),
        log=Log(**log),
        path=path,
    )


def _in_ms(values: dict[str, Any], *durations: str) -> dict[str, Any]:
    """The same values under the names of their fields: in code a name carries its unit."""
    return {f"{k}_ms" if k in durations else k: value for k, value in values.items()}


def _check_pools(source: str, pools: tuple[Workers, ...]) -> None:
    # Two names that differ in punctuation only would share their environment twins.
    twins: dict[str, str] = {}
    for pool in pools:
        twin = re.sub("[^A-Z0-9]", "_", pool.name.upper())
        if twin in twins:
            raise ConfigError(
                f'{source}: [workers] name = "{pool.name}" is taken by pool "{twins[twin]}" '
                "(case and punctuation do not count); give each pool its own name"
            )
        twins[twin] = pool.name
    total = sum(pool.processes for pool in pools)
    if total > PROCESSES_MAX:
        raise ConfigError(
            f"{source}: [workers] processes add up to {total} over {len(pools)} pools; "
            f"one family has at most {PROCESSES_MAX}"
        )


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; `jobvisor init` writes one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read: {reason}; name another with -c") from error
    if len(text) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than 1 MiB; name a jobvisor config.toml with -c")
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).replace("\n", " ")


def _has_twin(key: Key) -> bool:
    """A pool's name picks its variables, so it has none of its own."""
    return (key.section, key.name) != ("workers", "name")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = nearest(word, known)
    if near:
        return f'did you mean "{near}"?'
    if len(known) > 10:
        return "`jobvisor init` writes a file that shows every key"
    return f"known are: {', '.join(known)}"


def _toml(value: Any) -> str:
    """A value as the file would have it, cut to what fits a line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."
