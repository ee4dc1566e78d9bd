"""Name to task: the @task decorator, and loading the user's modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from jobvisor.jobs.around import Arounds
from jobvisor.jobs.errors import ConfigError, InvalidOption
from jobvisor.jobs.function import is_method, is_same, place_of
from jobvisor.jobs.hooks import Hooks
from jobvisor.jobs.module import import_module, search_also
from jobvisor.jobs.nearest import nearest
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.schedule import Plan, planned
from jobvisor.jobs.task import (
    NAME_MAX,
    ContextTask,
    Injected,
    Options,
    OptionValues,
    Task,
    wants_context,
)
from jobvisor.jobs.units import Duration

if TYPE_CHECKING:
    from jobvisor.jobs.timing import Timing

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Injected)


class Decorator:
    """What `@task(...)` returns: it makes a function the task of these options."""

    __slots__ = ("_aliases", "_name", "_options", "_registry", "_timing")

    def __init__(
        self,
        registry: Registry,
        name: str | None,
        aliases: Sequence[str],
        options: Options,
        timing: Timing | None = None,
    ) -> None:
        self._registry = registry
        self._name = name
        if isinstance(aliases, str):  # would be taken by its letters
            raise InvalidOption(f"aliases={aliases!r} must be a list of names: [{aliases!r}]")
        self._aliases = [check_name(alias) for alias in aliases]
        self._options = options
        self._timing = timing

    @overload
    def __call__(self, function: Callable[Concatenate[C, P], R], /) -> ContextTask[C, P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Task[..., Any]:
        """Register the function and return its task."""
        _check_function(function)
        name = _default_name(function) if self._name is None else check_name(self._name)
        kind = ContextTask if wants_context(function) else Task
        made: Task[..., Any] = kind(name, function, self._options)
        plan = None
        if self._timing is not None:
            plan = planned(name, made.call(), self._timing, payload=Payload())
        return self._registry.add(made, aliases=self._aliases, plan=plan)


class Registry:
    """The tasks this process knows. A test makes its own; everybody else uses `registry`."""

    __slots__ = ("_by_name", "_plans", "_tasks", "arounds", "hooks")

    def __init__(self) -> None:
        self.arounds = Arounds()
        self.hooks = Hooks()
        self._tasks: dict[str, Task[..., Any]] = {}
        self._by_name: dict[str, Task[..., Any]] = {}  # under each alias, too
        self._plans: dict[str, Plan] = {}

    def add(
        self, task: Task[P, R], *, aliases: Sequence[str] = (), plan: Plan | None = None
    ) -> Task[P, R]:
        """Make a task known under its name and its aliases, with the schedule that its code says.

        A name means one function: ConfigError where another one has it.
        """
        for name in (task.name, *aliases):
            known = self._by_name.get(name)
            if known is not None and not is_same(known.function, task.function):
                raise ConfigError(
                    f"two functions want to be the task {name!r}: {place_of(known.function)} and "
                    f"{place_of(task.function)}; give one of them another name="
                )
        self._by_name.update(dict.fromkeys((task.name, *aliases), task))
        self._tasks[task.name] = task
        if plan is not None:
            self._plans[task.name] = plan
        else:
            self._plans.pop(task.name, None)
        return task

    def plans(self) -> list[Plan]:
        """The schedules that the code of tasks says."""
        return list(self._plans.values())

    def get(self, name: str) -> Task[..., Any] | None:
        """The task of this name or alias, None where nothing defined it."""
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """The names of all tasks, sorted, without aliases."""
        return sorted(self._tasks)

    def aliases(self) -> dict[str, list[str]]:
        """The further names of each task that has some."""
        found: dict[str, list[str]] = {}
        for name, task in self._by_name.items():
            if name != task.name:
                found.setdefault(task.name, []).append(name)
        return found

    def nearest(self, name: str) -> str | None:
        """The known name most like this unknown one, None where none is like it."""
        return nearest(name, self._by_name)

    @overload
    def task(
        self,
        function: Callable[Concatenate[C, P], R],
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str | None = None,
        **values: Unpack[OptionValues],
    ) -> ContextTask[C, P, R]: ...
    @overload
    def task(
        self,
        function: Callable[P, R],
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str | None = None,
        **values: Unpack[OptionValues],
    ) -> Task[P, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str | None = None,
        **values: Unpack[OptionValues],
    ) -> Decorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str | None = None,
        **values: Unpack[OptionValues],
    ) -> Task[..., Any] | Decorator:
        """Make a function a task: `@task`, `@task(queue="mail")`, or `task(function, name="x")`.

        Its name is "module:function" unless `name=` says otherwise; jobs that were enqueued under one
        of its `aliases` (a task that was renamed or moved) run as this task too. By `cron` in `timezone`
        (UTC), or `every` so often, families that import it enqueue a job of it, without arguments.
        ConfigError when another function has the name, InvalidOption for a bad option.
        """
        timing = _timing(cron, every, timezone)
        decorator = Decorator(self, name, aliases, Options.of(values), timing)
        return decorator if function is None else decorator(function)

    def load(self, modules: Sequence[str], path: str | None = None) -> None:
        """Import the modules that define tasks, with `path` at the end of the search path.

        ConfigError names the module that cannot be imported, and why and where.
        """
        if path is not None:
            search_also(path)
        for module in modules:
            import_module("[tasks] modules", module)


def _timing(cron: str | None, every: Duration | None, timezone: str | None) -> Timing | None:
    if cron is None and every is None:
        if timezone is not None:
            raise InvalidOption(f'timezone={timezone!r} goes with cron, such as cron="0 3 * * *"')
        return None
    # Most programs have no schedule, and need neither zones nor cron.
    from jobvisor.jobs.timing import timing_of  # noqa: PLC0415

    return timing_of(cron=cron, every=every, timezone=timezone)


def _check_function(function: Any) -> None:
    if isinstance(function, Task) or not callable(function):
        raise InvalidOption(f"@task takes a function, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidOption(
            f"{place_of(function)} is a generator: its body would not run as a task"
        )
    if is_method(function):
        raise InvalidOption(
            f"{place_of(function)} is a method: a worker has no object to call it on; make it a "
            "function, and give it what finds the object (an id) as an argument"
        )


def _default_name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if module is None or qualname is None:
        raise InvalidOption(f"{function!r} has no name of its own; give the task one with name=")
    if module == "__main__":
        raise InvalidOption(
            f"the task {qualname!r} is defined in __main__, which is another module in each "
            f'process: give it a name of its own, such as @task(name="{qualname.lower()[:60]}")'
        )
    return check_name(f"{module}:{qualname}")


def check_name(name: Any) -> str:
    """A task's name, or an InvalidOption.

    >>> check_name("app.mail:send")
    'app.mail:send'
    """
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise InvalidOption(
            f"name={str(name)[:80]!r} must be 1 to {NAME_MAX} printable characters; "
            f'"module:function" is usual'
        )
    return name


registry = Registry()
"""The registry of this process."""

task = registry.task
"""Make a function a task, known in this process: see Registry.task."""

around = registry.arounds.around
"""Do something around each run of this process: see Arounds.around."""

before_fork = registry.hooks.before_fork
"""Do something once where the application was imported: see Hooks.before_fork."""

on_start = registry.hooks.on_start
"""Do something when a worker begins: see Hooks.on_start."""

on_stop = registry.hooks.on_stop
"""Do something when a worker leaves: see Hooks.on_stop."""
