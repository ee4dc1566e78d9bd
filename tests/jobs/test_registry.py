"""Name to task, the decorator, and loading modules."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.errors import ConfigError, InvalidOption
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.registry import task as default_task
from jobvisor.jobs.task import ContextTask, Injected, Task

ROOT = Path(__file__).parents[2]


class Context(Injected):
    """Stands for the real one."""


def plain(n: int) -> int:
    return n + 1


def contextual(ctx: Context, n: int) -> str:
    return str(n)


def test_the_decorator_is_used_bare_with_options_and_as_a_call() -> None:
    registry = Registry()

    @registry.task
    def bare(n: int) -> int:
        return n

    @registry.task(queue="mail", name="app:mail")
    def optioned(n: int) -> int:
        return n

    called = registry.task(plain, name="app:plain")
    assert bare(1) == optioned(1) == called(0) == 1
    assert optioned.options.queue == "mail"
    assert registry.get("app:plain") is called
    assert "app:mail" in registry.names()


def test_a_task_is_named_by_its_module_and_function() -> None:
    assert Registry().task(plain).name == "tests.jobs.test_registry:plain"


def test_a_function_with_a_context_becomes_a_context_task() -> None:
    registry = Registry()
    task = registry.task(contextual)
    assert isinstance(task, ContextTask)
    assert task.wants_context
    assert task(Context(), 5) == "5"
    assert not isinstance(registry.task(plain), ContextTask)


def test_types_pass_through_the_decorator() -> None:
    registry = Registry()
    number: Task[[int], int] = registry.task(plain, name="a")
    text: ContextTask[Context, [int], str] = registry.task(contextual, name="b")
    decorated: Task[[int], int] = registry.task(queue="q", name="c")(plain)
    assert [number.call(1).args, text.call(1).args, decorated.using(retries=1).call(1).args] == [
        (1,),
        (1,),
        (1,),
    ]
    assert callable(number.enqueue)


def test_two_functions_of_one_name_are_refused_with_both_places() -> None:
    registry = Registry()
    registry.task(plain, name="same")
    with pytest.raises(ConfigError, match=r"plain \(.*contextual \("):
        registry.task(contextual, name="same")


def test_functions_made_in_a_function_do_not_pass_for_each_other() -> None:
    def make(n: int) -> Callable[[], int]:
        def made() -> int:
            return n

        return made

    registry = Registry()
    registry.task(make(1))
    with pytest.raises(ConfigError, match="two functions"):
        registry.task(make(2))


def test_the_same_function_may_come_again_and_a_reload_replaces_it() -> None:
    registry = Registry()
    registry.task(plain)
    registry.task(plain, queue="later")
    reloaded: dict[str, Any] = {"__name__": plain.__module__}
    exec("def plain(n): return n + 2", reloaded)
    registry.task(reloaded["plain"])
    task = registry.get("tests.jobs.test_registry:plain")
    assert task is not None
    assert task(1) == 3


def test_a_function_of_main_needs_a_name() -> None:
    made: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(): return 1", made)
    with pytest.raises(InvalidOption, match=r'of its own, such as @task\(name="f"\)$'):
        Registry().task(made["f"])
    assert Registry().task(made["f"], name="f").name == "f"


def test_a_script_that_is_imported_as_a_module_too_defines_its_tasks_once(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    code = compile("def f(): return 1", str(path), "exec")
    registry = Registry()
    for module in ("__main__", "script"):
        made: dict[str, Any] = {"__name__": module}
        exec(code, made)
        registry.task(made["f"], name="f")
    assert registry.names() == ["f"]


class Mailer:
    def send(self, to: str) -> None: ...

    def _of_class(cls) -> None: ...  # noqa: N805

    @staticmethod
    def plain(to: str) -> str:
        return to


@pytest.mark.parametrize("method", [Mailer.send, Mailer._of_class])
def test_a_method_is_refused_where_it_is_decorated(method: Any) -> None:
    with pytest.raises(InvalidOption, match=r"Mailer\.\w+ \(.*test_registry.py:\d+\) is a method"):
        Registry().task(method)


def test_what_needs_no_object_may_stand_in_a_class() -> None:
    assert Registry().task(Mailer.plain)("x") == "x"
    assert Registry().task(Mailer().send, name="bound").name == "bound"


def generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [generator, 5, Task("x", plain)])
def test_what_a_worker_could_not_run_is_refused(function: Any) -> None:
    with pytest.raises(InvalidOption):
        Registry().task(function)


@pytest.mark.parametrize("name", ["", "n" * 401, "a\nb", 5])
def test_a_bad_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="name="):
        Registry().task(plain, name=name)


def test_the_module_decorator_fills_the_default_registry() -> None:
    assert default_task.__func__ is Registry.task  # type: ignore[attr-defined]


def test_an_alias_is_a_name_that_no_other_function_may_have() -> None:
    registry = Registry()
    known = registry.task(lambda: 1, name="new:f", aliases=["old:f", "older:f"])
    assert [registry.get(name) for name in ("new:f", "old:f", "older:f")] == [known] * 3
    assert registry.names() == ["new:f"]
    with pytest.raises(ConfigError, match="two functions want to be the task 'old:f'"):
        registry.task(lambda: 2, name="old:f")
    with pytest.raises(ConfigError, match="two functions want to be the task 'older:f'"):
        registry.task(lambda: 2, name="another:f", aliases=["older:f"])
    with pytest.raises(InvalidOption, match="printable"):
        registry.task(lambda: 2, name="third:f", aliases=[""])


def test_one_alias_without_a_list_is_not_taken_by_its_letters() -> None:
    registry = Registry()
    with pytest.raises(
        InvalidOption, match=r"aliases='old:f' must be a list of names: \['old:f'\]"
    ):
        registry.task(lambda: 1, name="new:f", aliases="old:f")
    assert registry.names() == []


def loaded(tmp_path: Path, files: dict[str, str], *modules: str) -> str:
    """What a fresh interpreter says when it loads these modules from this folder."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = (
        "import sys\n"
        "from jobvisor.jobs.errors import JobsError\n"
        "from jobvisor.jobs.registry import registry\n"
        "try:\n"
        f"    registry.load({list(modules)!r}, {str(tmp_path)!r})\n"
        "    print(registry.names(), sys.path[-1])\n"
        "except JobsError as error:\n"
        "    print(type(error).__name__, error, repr(error.__cause__))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout


TASKS = "from jobvisor.jobs.registry import task\n@task\ndef f(): pass\n"


def test_modules_are_found_in_the_folder_which_comes_last(tmp_path: Path) -> None:
    said = loaded(tmp_path, {"own_tasks.py": TASKS}, "own_tasks")
    assert "'own_tasks:f'" in said
    assert said.strip().endswith(str(tmp_path))


def test_packages_of_the_user_do_not_take_the_place_of_ours(tmp_path: Path) -> None:
    files = {
        "own_tasks.py": "import jobs, supervisor\n" + TASKS,
        "jobs/__init__.py": "",
        "supervisor.py": "",
    }
    assert "'own_tasks:f'" in loaded(tmp_path, files, "own_tasks")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit('leaving')", "SystemExit: leaving"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    tmp_path: Path, text: str, told: str
) -> None:
    said = loaded(tmp_path, {"broken_tasks.py": text}, "broken_tasks")
    assert said.startswith("ConfigError [tasks] modules: 'broken_tasks' cannot be imported")
    assert told in said


def test_an_import_error_names_the_failing_line_of_the_user_and_not_the_search_path(
    tmp_path: Path,
) -> None:
    files = {
        "broken_tasks.py": "import json\nimport broken_part\n",
        "broken_part.py": "x = 1\nimport json\njson.loads('{')\n",
    }
    said = loaded(tmp_path, files, "broken_tasks")
    assert "JSONDecodeError: Expecting property name" in said
    assert f"({tmp_path}/broken_part.py:3)" in said
    assert "searched" not in said


def test_a_syntax_error_names_its_own_line(tmp_path: Path) -> None:
    said = loaded(tmp_path, {"broken_tasks.py": "x = 1\ndef f(:\n"}, "broken_tasks")
    assert f"{tmp_path}/broken_tasks.py:2" in said


def test_a_module_that_one_of_the_user_s_lacks_is_named_with_the_line_that_wants_it(
    tmp_path: Path,
) -> None:
    said = loaded(tmp_path, {"own.py": "\nimport not_installed\n"}, "own")
    assert f"No module named 'not_installed' ({tmp_path}/own.py:2)" in said
    assert "searched" not in said


def test_only_a_module_that_is_not_found_itself_names_the_search_path(tmp_path: Path) -> None:
    said = loaded(tmp_path, {"own/__init__.py": ""}, "nowhere_at_all")
    assert "(it is searched in " in said
    assert str(tmp_path) in said
    said = loaded(tmp_path, {}, "own.tasks")
    assert f"No module named 'own.tasks' (own is {tmp_path}/own/__init__.py)" in said
