"""config.toml and its environment twins: what they mean, and how a mistake in them is named."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobvisor.jobs.errors import ConfigError, MissingExtra
from jobvisor.jobs.keys import DEFAULT_NAME, PROCESSES_MAX, TABLES, Key, Shape, Table, render
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.source import Source, strange_variables
from jobvisor.jobs.task import Defaults
from jobvisor.jobs.values import count, word
from jobvisor.supervisor.config import WEB_MODULES, Config, check_lanes
from jobvisor.supervisor.parent.reload import _check_unchangeable

ROOT = Path(__file__).parents[2]
KEYS = [(table, key) for table in TABLES for key in table.keys]


def refused(mapping: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        Config.of(mapping, environ=environ)
    message = str(error.value)
    assert "\n" not in message
    return message


def written(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_the_file_at_the_root_is_what_init_writes() -> None:
    assert (ROOT / "config.toml").read_text() == render()


def test_the_rendered_file_says_exactly_the_defaults(tmp_path: Path) -> None:
    loaded = Config.load(written(tmp_path, render()), {})
    assert dataclasses.replace(loaded, path=None) == Config.of({}, str(tmp_path))


def test_the_rendered_file_shows_every_key_on_a_line_that_fits() -> None:
    # Of tables that there need be none of the lines are comments.
    found = tomllib.loads(re.sub(r"^# (?=\[|\w+ = )", "", render(), flags=re.MULTILINE))
    for table, key in KEYS:
        written = found[table.name]
        shown = written[0] if isinstance(written, list) else written.get("NAME", written)
        assert shown[key.name] == key.default
    assert max(map(len, render().splitlines())) <= 100


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    config = Config.load(written(tmp_path, ""), {})
    assert config.database.url == f"sqlite:///{tmp_path}/jobs.db"
    assert config.tasks.path == str(tmp_path)
    assert config.family.state_dir == f"{tmp_path}/.jobvisor"
    assert config.defaults == Defaults()
    assert config.path == str(tmp_path / "config.toml")
    assert [(pool.name, pool.queues, pool.processes) for pool in config.workers] == [
        ("default", ("default",), (2, 2))
    ]


def test_values_are_read_in_milliseconds_and_bytes() -> None:
    config = Config.of(
        {
            "database": {"poll": "250ms", "connect_timeout": 90},
            "retention": {"succeeded": "0s", "failed": "1m30s"},
            "workers": [{"max_memory": "512MB", "max_jobs": 7}],
        }
    )
    assert (config.database.poll_ms, config.database.connect_timeout_ms) == (250, 90_000)
    assert (config.retention.succeeded_ms, config.retention.failed_ms) == (0, 90_000)
    assert (config.workers[0].max_memory, config.workers[0].max_jobs) == (512 << 20, 7)


def test_queues_are_named_once_in_the_order_written() -> None:
    config = Config.of(
        {"workers": [{"name": "a", "queues": ["x", "y"]}, {"name": "b", "queues": ["y", "z"]}]}
    )
    assert config.queues == ("x", "y", "z")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"workers": [{"proceses": 1}]},
            'config: [workers] "proceses" is not a key; did you mean "processes"?',
        ),
        ({"wokers": []}, 'config: [wokers] is not a section; did you mean "workers"?'),
        ({"workers": {"processes": 1}}, "write [[workers]]"),
        ({"workers": []}, "write [[workers]]"),
        ({"workers": [3]}, "write [[workers]]"),
        ({"database": 3}, "database is not a table; write [database]"),
        ({"database": {"poll": "0s"}}, '[database] poll = "0s" is not valid: write a duration'),
        ({"database": {"poll": True}}, "poll = true is not valid"),
        ({"database": {"poll": "400d"}}, "at most 365 days"),
        ({"database": {"durability": "none"}}, 'write "full" or "normal"'),
        ({"database": {"url": "memory://"}}, "one process"),
        ({"database": {"url": "postgresql://h/a b"}}, "[database] url: the database URL holds a"),
        ({"database": {"schema": "Jobs"}}, '[database] schema = "Jobs" is not valid: write a name'),
        ({"database": {"schema": "pg_jobs"}}, "not beginning with pg_"),
        (
            {"database": {"prefix": "Shop-"}},
            '[database] prefix = "Shop-" is not valid: write at most 20 lower-case letters',
        ),
        ({"database": {"prefix": "sqlite_"}}, "not beginning with sqlite_"),
        ({"database": {"notify": "true"}}, '[database] notify = "true" is not valid: write true'),
        ({"database": {"notify": 1}}, "write true or false"),
        ({"supervisor": {"stop_timeout": "banana"}}, 'stop_timeout = "banana"'),
        ({"supervisor": {"name": "a b"}}, 'name = "a b"'),
        ({"supervisor": {"state_dir": ""}}, 'state_dir = "" is not valid: write the path'),
        ({"supervisor": {"state_dir": "a\0b"}}, "state_dir"),
        ({"retention": {"failed": "0"}}, 'write a duration such as "7d"'),
        ({"retention": {"failed": 0}}, '"forever" to keep it, or "0s" to delete it at once'),
        ({"database": {"codec": "app.crypto"}}, 'as "app.crypto:codec"'),
        ({"workers": [{"max_memory": 512}]}, "max_memory = 512 is not valid: write a size with"),
        ({"tasks": {"modules": ["app/tasks.py"]}}, 'as ["app.tasks"]'),
        ({"tasks": {"modules": "app.tasks"}}, 'as ["app.tasks"]'),
        ({"tasks": {"unknown": "drop"}}, 'write "defer" or "fail"'),
        ({"defaults": {"retries": 2.5}}, "write a whole number"),
        ({"defaults": {"retries": -1}}, "write a whole number from 0"),
        ({"defaults": {"timeout": float("nan")}}, "[defaults] timeout"),
        ({"defaults": {"queue": "*"}}, "write one queue name"),
        ({"workers": [{"queues": []}]}, "write at least one queue"),
        ({"workers": [{"queues": ["*"]}]}, "write at least one queue"),
        ({"workers": [{"queues": ["a", "a"]}]}, "each once"),
        ({"workers": [{"processes": 0}]}, f"from 1 to {PROCESSES_MAX}"),
        ({"workers": [{"processes": 10**5000}]}, "processes"),
        *(
            (
                {"workers": [{"processes": wrong}]},
                f'"{wrong}" is not valid: write a whole number from 1 to {PROCESSES_MAX}, or the',
            )
            for wrong in ("8-1", "0-3", "a-b", "1-241", "1-", "1 - 8", "-3", "1-2-3", "4")
        ),
        (
            {"workers": [{"scale_idle": 0}]},
            "[workers] scale_idle = 0 is not valid: write a duration",
        ),
        ({"workers": [{"name": "a"}, {"name": "a"}]}, 'name = "a" is taken'),
        ({"workers": [{"name": "a-b"}, {"name": "A_B"}]}, 'taken by "a-b"'),
        (
            {"workers": [{"name": "a", "processes": 80}, {"name": "b", "processes": 41}]},
            "add up to 121 in all pools, which need 242 places; one family has 240",
        ),
        ({"workers": [{"name": "a"}, {"name": "b", "x": 1}]}, '[workers] "b": "x" is not a'),
        ({"workers": [{"max_memory": "1 parsec"}]}, 'a size with its unit such as "512MB"'),
        ({"log": {"level": "trace"}}, 'write "debug" or'),
        ({"log": {"level": ["info"]}}, 'write "debug" or'),
    ],
)
def test_a_mistake_is_named_with_its_key_value_and_remedy(
    mapping: dict[str, Any], message: str
) -> None:
    assert message in refused(mapping)


def test_a_password_is_never_shown() -> None:
    for url in ("mysql://u:secret@h/x", "postgresql://u:secret@h/ x", "u:secret@h"):
        assert "secret" not in refused({"database": {"url": url}})
        assert "secret" not in refused({}, {"JOBVISOR_DATABASE_URL": url})


def test_a_postgresql_url_is_kept_as_it_is_given() -> None:
    for url in ("postgresql://", "postgres://u:p@a,b/db?sslmode=require&schema=x"):
        assert Config.of({"database": {"url": url}}).database.url == url


def test_schema_prefix_and_notify_have_twins() -> None:
    environ = {"JOBVISOR_DATABASE_SCHEMA": "shop", "JOBVISOR_DATABASE_NOTIFY": "0"}
    config = Config.of({}, environ=environ | {"JOBVISOR_DATABASE_PREFIX": "our_"})
    database = config.database
    assert (database.schema, database.prefix, database.notify) == ("shop", "our_", False)
    assert config.settings.prefix == "our_"


def test_a_long_value_is_cut() -> None:
    assert len(refused({"retention": {"failed": "x" * 100_000}})) < 400


NEEDED: dict[str, dict[str, Any]] = {
    "schedules": {"name": "default", "task": "app:report", "every": "1h"},
    "limits": {"concurrency": 1},
}
"""What a table that there may be several of cannot be without."""


@pytest.mark.parametrize(
    ("table", "key"), KEYS, ids=[f"{table.name}.{key.name}" for table, key in KEYS]
)
def test_every_key_has_a_twin_that_wins(table: Table, key: Key) -> None:
    if not table.has_twin(key):
        pytest.skip("a pool's name picks its variables")
    variable = table.variable(key)
    default = key.default
    text = ",".join(default) if isinstance(default, list) else str(default)
    if not text:
        pytest.skip("an empty variable is not set, so this default cannot be written as one")
    needed = NEEDED.get(table.name, {})
    written = needed | {key.name: ["never", "read"]}
    shaped: dict[Shape, Any] = {
        Shape.ONE: written, Shape.LIST: [written], Shape.NAMED: {DEFAULT_NAME: written}
    }  # fmt: skip
    alone: Any = {DEFAULT_NAME: needed} if table.shape is Shape.NAMED else [needed]
    wanted = Config.of({table.name: alone} if needed else {})
    assert Config.of({table.name: shaped[table.shape]}, environ={variable: text}) == wanted


def test_a_schedule_is_judged_where_it_is_written() -> None:
    [plan] = Config.of(
        {"schedules": [SCHEDULE | {"args": [1], "kwargs": {"a": "b"}, "timezone": "Europe/Berlin"}]}
    ).schedules
    assert (plan.name, plan.task, plan.cron) == ("nightly", "app:report", "0 3 * * *")
    assert (plan.args, plan.kwargs, plan.queue, plan.paused) == ("[1]", '{"a":"b"}', None, False)
    assert plan.timezone == "Europe/Berlin"
    assert Config.of({}).schedules == ()


SCHEDULE = {"name": "nightly", "task": "app:report", "cron": "0 3 * * *"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": ""}, 'name = "" is not valid: write a name for this schedule'),
        ({"task": ""}, 'task = "" is not valid: write the name of a task'),
        (
            {"cron": "61 * * * *"},
            "\"nightly\": cron='61 * * * *' is no cron expression (bad minute)",
        ),
        ({"cron": ""}, "neither cron nor every says when"),
        ({"every": "15m"}, "cron and every both say when"),
        ({"cron": "", "every": "10ms"}, "every='10ms' must be from \"1s\""),
        ({"timezone": "Europe/Berln"}, "is no time zone known here; did you mean 'Europe/Berlin'?"),
        ({"catch_up": "some"}, 'write "latest" or "all" or "none"'),
        ({"overlap": "forbid"}, 'write "allow" or "skip"'),
        ({"args": "x"}, "write a list of values"),
        ({"args": [object()]}, "args[0]"),
        ({"queue": "*"}, "write one queue name"),
        ({"crom": "x"}, 'did you mean "cron"?'),
    ],
)
def test_a_mistake_in_a_schedule_is_one_sentence(changed: dict[str, Any], message: str) -> None:
    assert message in refused({"schedules": [SCHEDULE | changed]})


def test_a_pool_has_twins_of_its_own() -> None:
    config = Config.of(
        {"workers": [{"name": "a-b", "processes": 1}, {"name": "c"}]},
        environ={
            "JOBVISOR_WORKERS_A_B_PROCESSES": "9",
            "JOBVISOR_WORKERS_C_QUEUES": "mail, bulk",
        },
    )
    assert [pool.processes for pool in config.workers] == [(9, 9), (2, 2)]
    assert config.workers[1].queues == ("mail", "bulk")


def test_a_range_of_workers_is_read_from_file_and_variable() -> None:
    config = Config.of(
        {"workers": [{"name": "a", "processes": "2-12"}, {"name": "b", "processes": "3-3"}]},
        environ={"JOBVISOR_WORKERS_B_PROCESSES": "1-4"},
    )
    assert [pool.processes for pool in config.workers] == [(2, 12), (1, 4)]
    assert str(config.workers[0].processes) == "2-12"


def test_an_empty_variable_is_not_set() -> None:
    assert Config.of({}, environ={"JOBVISOR_LOG_LEVEL": ""}) == Config.of({})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"JOBVISOR_DATABASE_NOTIFY": "maybe"}, 'JOBVISOR_DATABASE_NOTIFY = "maybe" is not valid'),
        ({"JOBVISOR_LOG_LEVEL": "trace"}, 'JOBVISOR_LOG_LEVEL = "trace" is not valid'),
        ({"JOBVISOR_WORKERS_DEFAULT_PROCESSES": "x"}, "JOBVISOR_WORKERS_DEFAULT_PROCESSES"),
        ({"JOBVISOR_DATABSE_URL": "x"}, 'did you mean "JOBVISOR_DATABASE_URL"?'),
        ({"JOBVISOR_STATE_DIR": "x"}, 'did you mean "JOBVISOR_SUPERVISOR_STATE_DIR"?'),
        ({"JOBVISOR_DATABASE_URI": "x"}, 'did you mean "JOBVISOR_DATABASE_URL"?'),
        ({"JOBVISOR_WORKERS_MAIL_PROCESSES": "2"}, "sets no key that there is"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    environ: dict[str, str], message: str
) -> None:
    assert message in refused({}, environ)


def test_other_variables_are_nobodys_business() -> None:
    service = {"JOBVISOR_PORT": "tcp://10.0.0.1", "JOBVISOR_WORKERS_SERVICE_PORT_HTTP": "80"}
    strange = {"JOBVISOR_LICENCE_OF_SHOP": "t", "JOBVISOR_VERSION": "7"}
    environ = {"JOBVISOR_CONFIG": "x", "PATH": "/bin", **service, **strange}
    assert Config.of({}, environ=environ) == Config.of({})
    assert strange_variables(environ) == sorted(strange)


def test_a_relative_path_starts_from_the_file_but_in_a_variable_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    path = written(tmp_path / "etc", '[database]\nurl = "sqlite:///a.db"')
    monkeypatch.chdir(tmp_path)
    assert Config.load(path, {}).database.url == f"sqlite:///{tmp_path}/etc/a.db"
    config = Config.load(path, {"JOBVISOR_DATABASE_URL": "sqlite:///b.db"})
    assert config.database.url == f"sqlite:///{tmp_path}/b.db"


def test_a_mapping_of_the_code_is_not_overruled_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOBVISOR_LOG_LEVEL", "debug")
    assert Config.of({}).log.level == "info"


def test_without_a_path_the_variable_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[supervisor]\nname = "of-the-variable"')
    assert Config.load(environ={"JOBVISOR_CONFIG": path}).family.name == "of-the-variable"


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; `jobvisor init` writes one"):
        Config.load(str(tmp_path / "config.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[database]\nurl = \n", r"is not TOML: .*line 2"),
        ("[log]\n[log]\n", "is not TOML"),
        ("a = " + "[" * 20_000, "is not TOML"),
        ("a = " + "9" * 5_000, "is not TOML"),
        (b"[log]\nlevel = '\xff'\n", "line 2 is not UTF-8"),
        ("#" * (1 << 20) + "\n", "longer than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_said_with_its_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.load(written(tmp_path, text), {})


@pytest.mark.parametrize("path", [".", "/dev/zero", "a\0b", "x" * 5000])
def test_a_path_that_is_no_file_is_said(path: str) -> None:
    with pytest.raises(ConfigError, match=r"with -c|does not exist"):
        Config.load(path, {})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3), max_size=2)
)
WRITTEN = st.dictionaries(st.sampled_from([key.name for _, key in KEYS]), SCALARS, max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([table.name for table in TABLES]),
        SCALARS | WRITTEN | st.lists(WRITTEN, max_size=2),
        max_size=3,
    )
)
def test_any_mapping_is_a_config_or_a_config_error(mapping: dict[str, Any]) -> None:
    try:
        Config.of(mapping)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - either is right; nothing else may be raised


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([table.variable(key) for table, key in KEYS]), st.text()))
def test_any_environment_is_a_config_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        Config.of({}, environ=environ)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - either is right; nothing else may be raised


def test_a_config_is_a_value() -> None:
    assert hash(Config.of({})) == hash(Config.of({}))
    assert json.dumps(dataclasses.asdict(Config.of({})))
    assert os.path.isabs(Config.of({}, "relative").family.state_dir)


# -- kinds of tables


TABLES_MADE = (
    Table("plain", (Key("size", count(0, 9), 1, ""),)),
    Table(
        "schedules", (Key("name", word(str, "a name"), "default", ""), *TABLES[0].keys), Shape.LIST
    ),
    Table("limits", (Key("rate", count(0, 9), 1, ""),), Shape.NAMED),
)


def made(mapping: dict[str, Any], **environ: str) -> Source:
    return Source("config", mapping, "/", environ, TABLES_MADE)


def test_a_list_of_tables_may_be_empty_where_none_is_implied() -> None:
    assert made({}).listed("schedules") == []
    found = made({"schedules": [{"name": "a"}, {"name": "b"}]}).listed("schedules")
    assert [one["name"] for one in found] == ["a", "b"]


def test_named_tables_have_their_values_by_name_and_twins_of_their_own() -> None:
    source = made(
        {"limits": {"stripe": {"rate": 2}, "mail-out": {}}}, JOBVISOR_LIMITS_MAIL_OUT_RATE="7"
    )
    assert source.named("limits") == {"stripe": {"rate": 2}, "mail-out": {"rate": 7}}
    source.check_names()


@pytest.mark.parametrize(
    ("mapping", "environ", "told"),
    [
        ({"limits": {"rate": 2}}, {}, r"limits holds names; write \[limits.NAME\]"),
        (
            {"limits": {"a": {"rat": 2}}},
            {},
            r'\[limits.a\] "rat" is not a key; did you mean "rate"',
        ),
        ({"limits": {"a-b": {}, "A_B": {}}}, {}, 'name = "A_B" is taken by "a-b"'),
        ({"limits": {"a": {}}}, {"JOBVISOR_LIMITS_B_RATE": "2"}, "sets no key that there is"),
    ],
)
def test_a_mistake_in_a_named_table_is_named(
    mapping: dict[str, Any], environ: dict[str, str], told: str
) -> None:
    source = made(mapping, **environ)

    def read() -> None:
        source.named("limits")
        source.check_names()

    with pytest.raises(ConfigError, match=told):
        read()


# -- a family without tasks


def test_a_family_without_any_task_is_refused_and_a_script_with_its_own_is_not() -> None:
    registry = Registry()
    with pytest.raises(ConfigError, match=r'modules = \["app.tasks"\]'):
        Config.of({}).check_tasks(registry)
    Config.of({"tasks": {"modules": ["app"]}}).check_tasks(registry)
    registry.task(written, name="mine")
    Config.of({}).check_tasks(registry)


def test_what_is_kept_for_ever_has_no_age() -> None:
    kept = Config.of({"retention": {"succeeded": "forever", "failed": "0s"}}).retention
    assert (kept.succeeded_ms, kept.cancelled_ms, kept.failed_ms) == (None, 604_800_000, 0)


@pytest.mark.parametrize("changed", [{"url": "sqlite:///b.db"}, {"schema": "b"}, {"prefix": "b_"}])
def test_a_reload_does_not_change_where_the_tables_are(changed: dict[str, str]) -> None:
    old, new = Config.of({}), Config.of({"database": changed})
    _check_unchangeable(old, old)
    with pytest.raises(ConfigError, match="url, schema or prefix changed; that needs a stop"):
        _check_unchangeable(old, new)


def test_workers_whose_lanes_the_board_cannot_hold_twice_are_refused() -> None:
    pool = Config.of({"workers": [{"processes": 8}]}).workers[0]
    check_lanes(
        "config",
        (dataclasses.replace(pool, concurrency=1000), dataclasses.replace(pool, concurrency=24)),
    )
    with pytest.raises(
        ConfigError, match=r"16400 in all pools, .* twice; one family has at most 16384"
    ):
        check_lanes(
            "config",
            (
                dataclasses.replace(pool, concurrency=1000),
                dataclasses.replace(pool, concurrency=25),
            ),
        )


def test_the_address_of_a_kubernetes_service_is_no_port_of_ours() -> None:
    """A service called jobvisor-web sets it in every container beside it."""
    service = {"JOBVISOR_WEB_PORT": "tcp://10.0.0.1:8321", "JOBVISOR_EMAIL_PORT": "udp://[::1]:25"}
    assert Config.of({}, environ=service) == Config.of({})
    assert Config.of({}, environ={"JOBVISOR_WEB_PORT": "8000"}).web.port == 8000
    with pytest.raises(ConfigError, match='JOBVISOR_WEB_PORT = "tcp" is not valid'):
        Config.of({}, environ={"JOBVISOR_WEB_PORT": "tcp"})


@pytest.mark.parametrize("key", ["token", "password"])
def test_no_error_shows_a_secret(key: str) -> None:
    bad = "pass word"
    with pytest.raises(ConfigError) as refused:
        Config.of({"web": {key: bad}})
    assert bad not in "".join(traceback.format_exception(refused.value))
    assert f"[web] {key} is not valid" in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        Config.of({}, environ={f"JOBVISOR_WEB_{key.upper()}": bad})
    assert bad not in "".join(traceback.format_exception(refused.value))
    good = Config.of(
        {"web": {"user": "ann", key: "s3cret-s3cret"}, "email": {"password": "s3cret"}}
    )
    assert "s3cret" not in repr(good)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "ops.example.com"])
def test_a_site_for_other_machines_needs_a_secret_that_cannot_be_guessed(host: str) -> None:
    def web(**keys: str) -> Config:
        return Config.of({"web": {"enabled": True, "host": host, **keys}})

    for keys, told in (
        ({}, "set a token"),
        ({"token": "short"}, "the token can be guessed"),
        ({"user": "ann", "password": "1234567"}, "the password can be guessed"),
        ({"user": "ann"}, "user and password go together"),
        ({"password": "12345678"}, "user and password go together"),
    ):
        with pytest.raises(ConfigError, match=re.escape(told)):
            web(**keys)
    assert web(token="a" * 16).web.enabled
    assert web(user="ann", password="12345678").web.enabled
    assert not Config.of({"web": {"host": host}}).web.enabled


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_a_site_for_this_machine_needs_none(host: str) -> None:
    assert Config.of({"web": {"enabled": True, "host": host}}).web.is_for_this_machine


def test_a_site_whose_libraries_are_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    Config.of({}).check_extras()
    with pytest.raises(MissingExtra, match=r"needs uvicorn.*pip install 'jobvisor\[web\]'"):
        Config.of({"web": {"enabled": True}}).check_extras()


def test_what_the_site_needs_is_what_its_extra_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["web"]
    names = [re.split("[>=<]", each)[0].replace("-", "_") for each in extra]
    assert sorted(WEB_MODULES) == sorted(names)
