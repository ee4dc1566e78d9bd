"""The style page as a test: what is not checked is not a rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobvisor
from jobvisor.jobs.log import LINES
from jobvisor.jobs.store.base import Whom
from jobvisor.jobs.store.statements import statements

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("jobs/**/*.py"), *ROOT.glob("supervisor/**/*.py")])
README = (ROOT / "README.md").read_text()


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _map() -> list[str]:
    """The files of README's map, in import order: a file imports only files above it."""
    block = README.split("<!-- map -->")[1].split("```")[1]
    found: list[str] = []
    folder = ""
    for line in block.splitlines():
        if not line.strip():
            continue
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
        else:
            found.append(folder + name)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_a_file_begins_with_the_sentence_that_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_map_in_the_readme_is_the_tree() -> None:
    files = {_id(path) for path in SOURCES if path.name not in ("__init__.py", "__main__.py")}
    mapped = {name for name in _map() if name.endswith(".py")}
    assert mapped == files


@pytest.mark.parametrize("path", SOURCES, ids=_id)
def test_a_file_imports_only_files_above_it_on_the_map(path: Path) -> None:
    order = {name: place for place, name in enumerate(_map())}
    if path.name in ("__init__.py", "__main__.py"):
        return
    mine = order[_id(path)]
    for module in _imports(path):
        name = module.removeprefix("jobvisor.").replace(".", "/") + ".py"
        if name in order:
            assert order[name] < mine, f"{_id(path)} imports {name}, which stands below it"
        assert not (_id(path).startswith("jobs/") and module.startswith("jobvisor.supervisor"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def test_each_line_that_is_said_has_its_words_and_each_word_is_said() -> None:
    said = {name for path in SOURCES for name in _said(path)}
    assert said == set(LINES)


def _said(path: Path) -> Iterator[str]:
    """The lines a file says: by `say`, and in log.py and events.py through their tables of names."""
    text = path.read_text()
    if path.name in ("log.py", "events.py"):
        yield from (line for line in LINES if text.count(f'"{line}"') > (path.name == "log.py"))
    elif "jobvisor.jobs.log import" in text:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("say", ".leave")):
                yield from _names(node)
            elif isinstance(node, ast.Assign) and "line" in ast.unparse(node.targets[0]):
                yield from (c for c in LINES if f"'{c}'" in ast.unparse(node.value))


def _names(call: ast.Call) -> set[str]:
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return {first.value}
    return set()


def _count_everywhere(word: str) -> int:
    return sum(path.read_text().count(f'"{word}"') for path in SOURCES)


@pytest.mark.parametrize("name", sorted(statements("sqlite")))
def test_each_statement_is_used(name: str) -> None:
    name = name.partition(".")[0]  # asked for as `of(name, kind)`
    for whom in Whom:  # asked for as `whom.of(name)`
        name = name.removesuffix(whom.of("")) if whom.value else name
    assert _count_everywhere(name) > 0, f"no verb uses the statement {name}"


BANNED = {
    r"\btime\.sleep\(|\btime\.time\(|\bdatetime\.now\(": "jobs/clock.py reads time and sleeps",
    r"\bmultiprocessing\b": "a child killed while it waits leaves its locks broken for ever",
    r"\bProcessPoolExecutor\b": "it breaks as a whole when one process dies",
    r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError": "finish it or leave it out",
    r"except( Exception| BaseException)?:\s*pass": "an error nobody hears of",
    r"SELECT \*": "columns change; name them",
}
ALLOWED = {("jobs/clock.py", r"\btime\.sleep\(|\btime\.time\(|\bdatetime\.now\(")}


@pytest.mark.parametrize("path", [*SOURCES, *ROOT.glob("jobs/**/*.sql")], ids=_id)
def test_nothing_banned_is_used(path: Path) -> None:
    text = _without_strings(path)
    for pattern, reason in BANNED.items():
        if (_id(path), pattern) not in ALLOWED:
            found = re.search(pattern, text)
            assert found is None, f"{_id(path)}: {pattern}: {reason}"


def _without_strings(path: Path) -> str:
    """The code without docstrings: they may name what is banned."""
    return re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())


def test_all_names_exactly_what_is_exported_in_order() -> None:
    exported = jobvisor.__all__
    assert list(exported) == sorted(exported)
    assert callable(jobvisor.LocalQueue)  # which is there when it is first asked for
    public = {name for name in vars(jobvisor) if not name.startswith("_")}
    parts = {"TYPE_CHECKING", "Any", "annotations", "builtin", "jobs", "supervisor", "testing"}
    assert public - parts == set(exported) - {"__version__"}


def test_every_error_is_public_and_in_the_drawing_that_stands_twice() -> None:
    ours = {
        name
        for name, found in vars(jobvisor.jobs.errors).items()
        if isinstance(found, type) and issubclass(found, jobvisor.JobsError)
    }
    assert set(jobvisor.errors.__all__) == ours
    drawn = [
        (doc or "").split("\n\n")[1]
        for doc in (jobvisor.errors.__doc__, jobvisor.jobs.errors.__doc__)
    ]
    assert drawn[0] == drawn[1]
    assert ours == set(re.findall(r"[A-Z]\w+(?= )", re.sub(r"\(\w+\)", "", drawn[0])))
