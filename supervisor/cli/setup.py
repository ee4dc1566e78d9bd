"""Commands before the first start and after an upgrade: write and check the set-up.

`check` looks at what the files say and needs no database.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

import click

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.keys import render
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.schedule import Plan
from jobvisor.jobs.source import strange_variables
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.units import duration_text
from jobvisor.jobs.url import parse_url
from jobvisor.jobs.values import Span
from jobvisor.supervisor.cli import (
    config_option,
    examples,
    json_option,
    load_config,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.bash import SCRIPT
from jobvisor.supervisor.cli.writable import file_obstacle, folder_obstacle
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.documents.limits import told_unsaid_limits, told_unused_limits, used_limits
from jobvisor.supervisor.documents.shares import told_shares
from jobvisor.supervisor.family import StateDir

__all__ = ["check", "completion", "init", "migrate"]


@click.command(epilog=examples("jobvisor init", "jobvisor init /srv/shop"))
@click.argument("folder", metavar="[DIR]", default=".")
@click.option("--force", is_flag=True, help="Replace a config.toml that is there.")
def init(folder: str, force: bool) -> None:
    """Write a config.toml that shows every key."""
    path = os.path.normpath(os.path.join(folder, "config.toml"))
    try:
        os.makedirs(folder, exist_ok=True)
        # O_EXCL: two inits, or an init and an editor, cannot overwrite each other's file. For its
        # owner alone: a password may be written into [database] url.
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # also one that was there, and a forced one
            file.write(render())
    except FileExistsError as error:
        if error.filename != path:
            raise ConfigError(f"{folder} is not a folder; name one that is, or a new one") from None
        raise ConfigError(
            f"{path} is there already and was left alone; --force replaces it"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    which = "" if os.path.normpath(folder) == "." else f" -c {path}"
    click.echo(path)
    say(
        "next: write the modules that hold your tasks into [tasks] modules, then "
        f"`jobvisor check{which}`, then `jobvisor start{which}`"
    )


@click.command(
    epilog=examples("jobvisor check --strict", "jobvisor check --json | jq -r '.tasks[].name'")
)
@click.option("--strict", is_flag=True, help="Exit code 1 if there is a warning.")
@json_option
@config_option
def check(config: str | None, as_json: bool, strict: bool) -> None:
    """Try the configuration and the modules.

    Needs no database. The modules are imported in a process of their own. Exit code 78 when
    something is wrong. A queue nobody serves, or a file or folder that this user cannot write, is
    only a warning: another user may run the family.
    """
    loaded = load_config(config)
    loaded.check_tasks(Registry())
    loaded.check_extras()
    # Nothing is connected: it says what is wrong with the URL, or that psycopg is not installed.
    _store(loaded).close()
    found = _ask_importer(loaded)
    if found["unfit"]:
        raise ConfigError(f"{loaded.path}: [schedules] {found['unfit'][0]}")
    tasks = _with_defaults(loaded, found["tasks"])
    schedules = _schedules(loaded, found["schedules"])
    warnings = _check_warnings(loaded, tasks) + found["misfits"] + _preload_warnings(loaded, found)
    if found["failed"]:
        warnings.append(f"{found['failed']}; no worker would start")
    if as_json:
        measured = {key: found[key] for key in ("seconds", "bytes", "refused", "shared")}
        print_json(
            {
                "config": loaded.path,
                "queues": list(loaded.queues),
                "tasks": tasks,
                "schedules": schedules,
                "import": measured,
                "warnings": warnings,
            }
        )
    else:
        total = Span(
            *(sum(ends) for ends in zip(*(p.processes for p in loaded.workers), strict=True))
        )
        click.echo(
            f"{loaded.path} is valid: family {loaded.family.name}, {total} workers, "
            f"queues {', '.join(loaded.queues)}"
        )
        click.echo(_told_of_import(loaded, found))
        if tasks:
            print_table(
                ["task", "queue", "retries", "timeout"],
                [[t["name"], t["queue"], t["retries"], _timeout(t["timeout_ms"])] for t in tasks],
            )
        if schedules:
            print_table(
                ["schedule", "task", "what", "next"],
                [[s["name"], s["task"], s["words"], ", ".join(s["next"])] for s in schedules],
            )
    for warning in warnings:
        say(f"warning: {warning}")
    if strict and warnings:
        click.get_current_context().exit(1)


@click.command(
    epilog=examples(
        "jobvisor migrate",
        "JOBVISOR_DATABASE_URL=postgresql://jobs@db/app jobvisor migrate -c config.toml",
    )
)
@config_option
def migrate(config: str | None) -> None:
    """Create the tables, or bring them up to this release."""
    loaded = load_config(config)
    with contextlib.closing(_store(loaded)) as store:
        before, after = store.migrate()
    if before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before} -> {after}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(jobvisor completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for
    fish: jobvisor completion fish > ~/.config/fish/completions/jobvisor.fish
    """
    if shell == "bash":
        click.echo(SCRIPT, nl=False)
        return
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - seldom asked for

    from jobvisor.supervisor.cli import main  # noqa: PLC0415 - the group knows this file, not the reverse

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"click has no completion for {shell}; use another shell")
    click.echo(found(main, {}, "jobvisor", "_JOBVISOR_COMPLETE").source())


# What a fresh interpreter runs for `check`. sys.path is ours, so the same files are found that start
# would find.
_IMPORTER = """
import json, sys
asked = json.loads(sys.argv[1])
sys.path[:] = asked["sys_path"]
from jobvisor.supervisor.template.measure import main
main(asked)
"""


def _with_defaults(config: Config, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of the user's modules with the defaults filled in, sorted by name."""
    defaults = config.defaults
    inherited = {
        "queue": defaults.queue,
        "retries": defaults.retries,
        "timeout_ms": defaults.timeout_ms,
    }
    return [
        {key: inherited[key] if key in inherited and value is None else value for key, value in t}
        for t in (task.items() for task in sorted(tasks, key=lambda task: task["name"]))
    ]


def _schedules(config: Config, of_code: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the configuration and of the code, with their next times."""
    from jobvisor.jobs.timing import Timing  # noqa: PLC0415 - few families have a schedule

    plans = {each["name"]: ("code", Plan(**each)) for each in of_code}
    plans |= {plan.name: ("config", plan) for plan in config.schedules}
    told = []
    for source, plan in sorted(plans.values(), key=lambda each: each[1].name):
        timing = Timing(plan.cron, plan.every_ms, plan.anchor, plan.timezone)
        ticks = () if plan.paused else timing.next_few(SYSTEM.now_ms())
        told.append(
            {
                "name": plan.name,
                "task": plan.task,
                "source": source,
                "words": timing.words,
                "next": [tick.isoformat() for tick in ticks],
            }
        )
    return told


def _ask_importer(config: Config) -> dict[str, Any]:
    modules = ", ".join(config.tasks.modules)
    # A file and not a pipe: the answer may be long, and nobody reads while we wait.
    with tempfile.TemporaryFile() as answer:
        asked = {
            "sys_path": sys.path,
            "modules": config.tasks.modules,
            "path": config.tasks.path,
            "codec": config.database.codec,
            "schedules": config.schedules,
            "descriptor": answer.fileno(),
        }
        code = _run_importer(asked, config.family.boot_timeout_ms, modules)
        answer.seek(0)
        text = answer.read()
    try:
        found = dict(json.loads(text))
    except ValueError:
        ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise ConfigError(
            f"importing {modules} ended the process {ended}; import it by hand to see why"
        ) from None
    if "error" in found:
        raise ConfigError(found["error"])
    return found


def _run_importer(asked: dict[str, Any], timeout_ms: int, modules: str) -> int:
    # A session of its own, so that whatever the modules start is killed with it. What they print
    # goes to stderr: stdout is our data.
    importer = subprocess.Popen(
        [sys.executable, "-P", "-c", _IMPORTER, json.dumps(asked)],
        stdin=subprocess.DEVNULL,
        stdout=2,
        pass_fds=[asked["descriptor"]],
        start_new_session=True,
    )
    try:
        return importer.wait(timeout_ms / 1000)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"importing {modules} took longer than {duration_text(timeout_ms)}; "
            "make the import faster or raise [supervisor] boot_timeout"
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(importer.pid, signal.SIGKILL)
        importer.wait()


def _check_warnings(config: Config, tasks: list[dict[str, Any]]) -> list[str]:
    warnings = [
        f"the variable {variable} is none of jobvisor's and is not read"
        for variable in strange_variables(os.environ)
    ]
    if not tasks:
        warnings.append(f"no task in {', '.join(config.tasks.modules)}; put @task on a function")
    warnings += _email(config)
    unserved: dict[str, list[str]] = {}
    for task in tasks:
        if task["queue"] not in config.queues:
            unserved.setdefault(task["queue"], []).append(task["name"])
        warnings += _alone(config, task) if task["memory_bytes"] else []
    for queue, names in unserved.items():
        warnings.append(
            f"no pool serves queue {queue!r} of {', '.join(names)}; "
            "add it to the queues of a [[workers]]"
        )
    fair = [queue.name for queue in config.named_queues if queue.fair]
    warnings += told_shares(fair, tasks)
    names = [limit.name for limit in config.limits]
    warnings += told_unused_limits(config.limits, used_limits(tasks))
    warnings += told_unsaid_limits(names, tasks)
    for queue in (each.name for each in config.named_queues):
        if queue not in config.queues:
            near = did_you_mean(queue, config.queues) or ", unless another family does"
            warnings.append(f"no pool serves queue {queue!r} of [queues.{queue}]{near}")
    return warnings + _unwritable(config)


def _email(config: Config) -> list[str]:
    """What the built-in task of that name would miss."""
    if "jobvisor.builtin.email" not in config.tasks.modules:
        return []
    email = config.email
    missing = [key for key, value in (("host", email.host), ("from", email.sender)) if not value]
    warnings = [f"[email] {key} is not set: jobs of the task email would fail" for key in missing]
    if (
        email.security == "none"
        and email.password
        and email.host not in ("localhost", "127.0.0.1", "::1")
    ):
        warnings.append(
            f'[email] password goes to {email.host} unencrypted; write security = "starttls" or "tls"'
        )
    return warnings


def _alone(config: Config, task: dict[str, Any]) -> list[str]:
    """Where its memory limit, which is its whole process's, keeps the other lanes of a worker empty."""
    return [
        f"{task['name']} has memory=, so it runs alone in a worker of pool {pool.name}, which has "
        f"{pool.concurrency} lanes; give its queue {task['queue']!r} to a pool with concurrency = 1"
        for pool in config.workers
        if pool.concurrency > 1 and task["queue"] in pool.queues
    ]


def _told_of_import(config: Config, found: dict[str, Any]) -> str:
    """What it costs, and whether it need be done only once."""
    preload = config.tasks.preload
    cost = f"the import takes {found['seconds']:.1f} s and {found['bytes'] >> 20} MB"
    if preload:
        return f"{cost}, once for all workers"
    fit = f"would be refused: {'; '.join(found['refused'])}" if found["refused"] else "would do"
    return f"{cost}, in each worker; [tasks] preload = true {fit}"


def _preload_warnings(config: Config, found: dict[str, Any]) -> list[str]:
    if not config.tasks.preload:
        return []
    if not sys.platform.startswith("linux"):
        return ["[tasks] preload needs Linux: here each worker imports the application by itself"]
    refused = [f"[tasks] preload would be refused: {what}" for what in found["refused"]]
    return refused + [
        f"[tasks] preload: {what}, which all workers share" for what in found["shared"]
    ]


def _unwritable(config: Config) -> list[str]:
    warnings = []
    if obstacle := folder_obstacle(config.family.state_dir):
        warnings.append(f"[supervisor] state_dir: {obstacle}; `jobvisor start` would refuse it")
    else:
        state = StateDir(config.family.state_dir)
        try:
            if os.path.isdir(state.path):
                state.check()
        except ConfigError as error:
            warnings.append(str(error))
    target = parse_url(config.database.url)
    if target.kind == "sqlite" and (obstacle := file_obstacle(target.path)):
        warnings.append(f"[database] url: {obstacle}; `jobvisor start` would refuse it")
    if config.log.file and (obstacle := file_obstacle(config.log.file)):
        warnings.append(f"[log] file: {obstacle}; `jobvisor start` would refuse it")
    return warnings


def _store(config: Config) -> Store:
    database = config.database
    return open_store(database.url, schema=database.schema, prefix=database.prefix)


def _timeout(timeout_ms: int) -> str:
    return duration_text(timeout_ms) if timeout_ms else "none"
