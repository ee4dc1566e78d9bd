"""`config.toml` (or a mapping, when embedded) as frozen dataclasses, read once at the edge.

What can be set stands in jobs/keys.py, how it is read in jobs/source.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobvisor.jobs.errors import ConfigError, InvalidOption, MissingExtra, PayloadError, shown
from jobvisor.jobs.job import State
from jobvisor.jobs.keys import LANES_MAX, PROCESSES_MAX
from jobvisor.jobs.limit import CONFIG, Limit, limit_of
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.pruning import Rule, rules_of
from jobvisor.jobs.registry import Registry, check_name
from jobvisor.jobs.schedule import Plan, planned
from jobvisor.jobs.settings import Email, Settings
from jobvisor.jobs.source import CONFIG_VARIABLE, FILE_NAME, Source, file_source
from jobvisor.jobs.task import Call, Defaults, check_queue
from jobvisor.jobs.url import parse_url
from jobvisor.jobs.values import Span

TOKEN_LEAST, PASSWORD_LEAST = 16, 8
"""Characters of a secret that keeps others than this machine out."""

WEB_MODULES = (
    "fastapi",
    "uvicorn",
    "jinja2",
    "python_multipart",
    "prometheus_client",
)
"""What the extra `web` installs."""


@dataclass(frozen=True, slots=True)
class Database:
    """`[database]`: where the rows live. A SQLite path in `url` is absolute.

    `url` may hold a password: show it by `settings.shown_url` only.
    """

    url: str
    schema: str
    prefix: str
    durability: str
    poll_ms: int
    notify: bool
    connect_timeout_ms: int
    codec: str
    """The place of a codec, "module:name"; "" for none."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """`[tasks]`: the user's modules. `path` is absolute."""

    modules: tuple[str, ...]
    path: str
    unknown: str
    preload: bool


@dataclass(frozen=True, slots=True)
class Supervision:
    """`[supervisor]`: one supervisor with its children. `state_dir` is absolute."""

    name: str
    state_dir: str
    stop_timeout_ms: int
    boot_timeout_ms: int
    reload_timeout_ms: int
    cancel_grace_ms: int
    dead_after_ms: int


@dataclass(frozen=True, slots=True)
class Workers:
    """One `[[workers]]`: a pool of processes and the queues it serves. 0 means no limit."""

    name: str
    queues: tuple[str, ...]
    processes: Span
    scale_latency_ms: int
    scale_idle_ms: int
    overlap: bool
    batch_max: int
    max_jobs: int
    max_memory: int
    concurrency: int = 1
    """Its lanes. Not to be configured yet: a worker runs one."""

    def places(self, workers: int) -> int:
        """How many processes so many workers may be at a time: old ones may leave beside new ones."""
        return 2 * workers if self.overlap else workers


@dataclass(frozen=True, slots=True)
class Retention:
    """`[retention]`: how long finished jobs are kept; None for ever, 0 not beyond their settling."""

    succeeded_ms: int | None
    cancelled_ms: int | None
    failed_ms: int | None


@dataclass(frozen=True, slots=True)
class Queue:
    """`[queues.NAME]`: what is said of one queue."""

    name: str
    keep: tuple[tuple[str, int | None], ...]
    """For how many milliseconds jobs are kept that ended so, None for ever; else as `[retention]`."""
    fair: bool | None = None
    """Whether its shares are served in turn; None says nothing of it."""


@dataclass(frozen=True, slots=True)
class Log:
    """`[log]`: what is logged, and how."""

    level: str
    format: str
    file: str
    keep: str


@dataclass(frozen=True, slots=True)
class Web:
    """`[web]`: pages, API and metrics."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 8321
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    read_only: bool = False
    allow_tasks: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hide: tuple[str, ...] = ("password", "token")
    metrics_compat: str = ""

    @property
    def is_for_this_machine(self) -> bool:
        """Whether only programs of this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        import ipaddress  # noqa: PLC0415 - a family without a site needs none

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a family is told, validated.

    >>> Config.of({"workers": [{"queues": ["mail"]}]}).queues
    ('mail',)
    """

    database: Database
    tasks: Tasks
    defaults: Defaults
    family: Supervision
    workers: tuple[Workers, ...]
    retention: Retention
    named_queues: tuple[Queue, ...]
    log: Log
    web: Web
    email: Email
    path: str | None = None
    schedules: tuple[Plan, ...] = ()
    """`[[schedules]]`, judged, but for the task."""
    limits: tuple[Limit, ...] = ()
    """`[limits.NAME]`."""

    @classmethod
    def load(cls, path: str | None = None, environ: Mapping[str, str] = os.environ) -> Config:
        """Read a file, then its environment twins, which win; an empty variable is not set.

        Without a path it is the file that JOBVISOR_CONFIG names, else ./config.toml.

        A relative path in the file starts from the file's folder, one in the environment from the
        current one: there `JOBVISOR_DATABASE_URL` must mean the same file to every program.

        Raises:
            ConfigError: names the file (or variable), the key, the value and the remedy.
        """
        found = path or environ.get(CONFIG_VARIABLE) or FILE_NAME
        return _build(file_source(found, environ), os.path.abspath(found))

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
        return _build(Source("config", mapping, os.path.abspath(folder), environ or {}), None)

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that some pool serves, in the order they are written."""
        return tuple(dict.fromkeys(queue for pool in self.workers for queue in pool.queues))

    @property
    def rules(self) -> list[Rule]:
        """Which finished jobs go when."""
        kept = self.retention
        by_state = {
            State.SUCCEEDED: kept.succeeded_ms,
            State.CANCELLED: kept.cancelled_ms,
            State.FAILED: kept.failed_ms,
        }
        return rules_of(by_state, {queue.name: dict(queue.keep) for queue in self.named_queues})

    @property
    def forgets(self) -> bool:
        """Whether a succeeded job goes as it ends: not where some queue keeps them."""
        rules = [rule for rule in self.rules if rule.state is State.SUCCEEDED]
        return [(rule.age_ms, rule.queues) for rule in rules] == [(0, ())]

    def pool(self, name: str) -> Workers:
        """The pool of this name, which there must be."""
        return next(pool for pool in self.workers if pool.name == name)

    @property
    def settings(self) -> Settings:
        """What a client of this family's database needs to know."""
        database = self.database
        return Settings(
            database.url,
            database.durability,
            self.defaults,
            database.schema,
            database.notify,
            database.codec,
            self.tasks.path,
            prefix=database.prefix,
            email=self.email,
        )

    def check_tasks(self, registry: Registry) -> None:
        """ConfigError where a family would know no task: it could only put jobs off."""
        if not self.tasks.modules and not registry.names():
            raise ConfigError(
                f"{self.path or 'config'}: [tasks] modules names no module, so no job could run; "
                'write the modules that hold your tasks: modules = ["app.tasks"]'
            )

    def check_extras(self) -> None:
        """MissingExtra where something is asked for whose libraries are not installed; imports none."""
        from importlib.util import find_spec  # noqa: PLC0415 - seldom asked for

        missing = [name for name in WEB_MODULES if self.web.enabled and find_spec(name) is None]
        if missing:
            raise MissingExtra(
                f"[web] enabled = true needs {', '.join(missing)}, which is not installed; "
                "run: pip install 'jobvisor[web]'"
            )


def _build(source: Source, path: str | None) -> Config:
    database, tasks = source.one("database"), source.one("tasks")
    defaults, family = source.one("defaults"), source.one("supervisor")
    retention, log = source.one("retention"), source.one("log")
    queues = source.named("queues")
    for name in queues:
        _check_queue(source.name, name)
    web, email = source.one("web"), source.one("email")
    workers = tuple(
        Workers(**_in_ms(pool, "scale_latency", "scale_idle")) for pool in source.listed("workers")
    )
    limits = tuple(_limit(source.name, *each) for each in source.named("limits").items())
    source.check_names()
    _check_memory(source.name, database["url"])
    site = Web(**web)
    _check_web(source.name, site)
    schedules = tuple(_plan(source.name, each) for each in source.listed("schedules"))
    _check_total(source.name, workers)
    check_lanes(source.name, workers)
    return Config(
        database=Database(**_in_ms(database, "poll", "connect_timeout")),
        tasks=Tasks(**tasks),
        defaults=Defaults(**_in_ms(defaults, "timeout")),
        family=Supervision(
            **_in_ms(
                family,
                "stop_timeout",
                "boot_timeout",
                "reload_timeout",
                "cancel_grace",
                "dead_after",
            )
        ),
        workers=workers,
        retention=Retention(**_in_ms(retention, "succeeded", "cancelled", "failed")),
        named_queues=tuple(Queue(name, **said) for name, said in queues.items()),
        log=Log(**log),
        web=site,
        email=Email.of(email),
        path=path,
        schedules=schedules,
        limits=limits,
    )


def _plan(source: str, values: Mapping[str, Any]) -> Plan:
    """One `[[schedules]]`. Its arguments are stored as they stand: no codec of the application is asked."""
    # Most families have no schedule, and need neither zones nor cron.
    from jobvisor.jobs.timing import timing_of  # noqa: PLC0415

    try:
        timing = timing_of(
            cron=values["cron"] or None,
            every=values["every"] or None,
            timezone=values["timezone"],
        )
        return planned(
            values["name"],
            Call(check_name(values["task"]), values["args"], values["kwargs"]),
            timing,
            payload=Payload(),
            queue=values["queue"] or None,
            catch_up=values["catch_up"],
            overlap=values["overlap"],
            paused=values["paused"],
        )
    except (InvalidOption, PayloadError) as error:
        raise ConfigError(f'{source}: [schedules] "{values["name"]}": {error}') from error


def _limit(source: str, name: str, values: Mapping[str, Any]) -> Limit:
    """One `[limits.NAME]`."""
    try:
        return limit_of(
            name,
            concurrency=values["concurrency"],
            rate=values["rate"] or None,
            burst=values["burst"] or None,
            source=CONFIG,
        )
    except InvalidOption as error:
        raise ConfigError(f"{source}: [limits.{name}] {error}") from error


def _in_ms(values: dict[str, Any], *durations: str) -> dict[str, Any]:
    """The same values under the names of their fields: in code a name carries its unit."""
    return {f"{k}_ms" if k in durations else k: value for k, value in values.items()}


def _check_queue(source: str, name: str) -> None:
    try:
        check_queue("the queue", name)
    except InvalidOption as error:
        raise ConfigError(f"{source}: [queues.{shown(name)}]: {error}") from error


def _check_memory(source: str, url: str) -> None:
    if parse_url(url).kind == "memory":
        raise ConfigError(
            f"{source}: [database] url: memory:// lives in one process and cannot be shared by a "
            'family; write a file, such as "sqlite:///jobs.db"'
        )


def _check_web(source: str, web: Web) -> None:
    """ConfigError where everybody could get in, or nobody knows how."""
    if not web.enabled:
        return
    if bool(web.user) != bool(web.password):
        raise ConfigError(
            f"{source}: [web] user and password go together; write both, or a token alone"
        )
    if web.is_for_this_machine:
        return
    where = f'{source}: [web] host = "{web.host}" can be reached from other machines'
    if not web.token and not web.password:
        raise ConfigError(
            f'{where}; set a token, or user and password, or write host = "127.0.0.1"'
        )
    for name, text, least in (
        ("token", web.token, TOKEN_LEAST),
        ("password", web.password, PASSWORD_LEAST),
    ):
        if text and len(text) < least:
            raise ConfigError(
                f"{where}, and the {name} can be guessed; make it of {least} characters or more, as "
                "`openssl rand -hex 16` does"
            )


def _check_total(source: str, pools: tuple[Workers, ...]) -> None:
    total = sum(pool.processes.most for pool in pools)
    places = sum(pool.places(pool.processes.most) for pool in pools)
    if places > PROCESSES_MAX:
        raise ConfigError(
            f"{source}: [workers] processes add up to {total} in all pools, which need "
            f"{places} places; one family has {PROCESSES_MAX}, and a pool with overlap needs two for "
            "each worker: have fewer, or write overlap = false"
        )


def check_lanes(source: str, pools: tuple[Workers, ...]) -> None:
    """ConfigError where the board has not enough lanes for all workers and those that a reload adds."""
    lanes = sum(pool.places(pool.processes.most) * pool.concurrency for pool in pools)
    if lanes > LANES_MAX:
        raise ConfigError(
            f"{source}: [workers] processes times concurrency adds up to {lanes} in all pools, "
            f"a pool with overlap counted twice; one family has at most {LANES_MAX}: have fewer, or write "
            "overlap = false"
        )
