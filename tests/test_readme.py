"""README tells the truth: its tour is executed, its tables are compared with the code."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from jobvisor import task
from jobvisor.jobs.keys import TABLES
from jobvisor.supervisor.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
TOUR = README.split("## A tour of five minutes")[1].split("\n## ")[0]


def _blocks(text: str) -> list[tuple[str, str]]:
    """(what stands behind the fence, the block) of each fenced block."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _expectations(block: str) -> list[tuple[str, list[str]]]:
    """(command, the lines shown after it) of a console block."""
    steps: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


@pytest.mark.system
@pytest.mark.timeout(100)
def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    commands = {"jobvisor": "-m jobvisor", "sqlite-utils": "-m sqlite_utils", "python": ""}
    for name, start in commands.items():
        wrapper = tmp_path / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        wrapper.chmod(0o755)
    # At the front of sys.path, as in many a project: none of ours may take one of these for its own.
    for name in ("jobs.py", "jobs/__init__.py", "supervisor/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise ImportError('this is the user's own')\n")
    steps: list[tuple[str, list[str]]] = []
    for info, block in _blocks(TOUR):
        language, _, name = info.partition(" ")
        if name:
            (tmp_path / name).write_text(block)
        if language == "console":
            steps += _expectations(block)
    script = "set -e\n" + "".join(f"echo '@@{n}'\n{c}\n" for n, (c, _) in enumerate(steps))
    code, output, talk = _run(script, tmp_path)
    assert code == 0, output + talk
    for number, shown in _shown(output):
        command, expected = steps[number]
        if expected:
            pattern = r"\n".join(_pattern(line) for line in expected)
            assert re.fullmatch(pattern, shown.rstrip("\n"), re.DOTALL), f"$ {command}\n{shown}"


def _run(script: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; into files, because a family left behind would hold a pipe."""
    environ = {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=environ,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(90)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    return code, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def _shown(output: str) -> list[tuple[int, str]]:
    parts = re.split(r"^@@(\d+)\n", output, flags=re.MULTILINE)[1:]
    return [(int(number), text) for number, text in zip(parts[::2], parts[1::2], strict=True)]


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("...")).replace(r"\ .*", r"\s+.*")


def test_every_command_is_in_the_readme() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `jobvisor (\w+)", table, re.MULTILINE))
    assert named == set(COMMANDS)


def test_every_key_is_in_the_readme_with_its_default_and_meaning() -> None:
    assert README.split("<!-- keys -->\n")[1].split("<!-- /keys -->")[0] == keys_table()


def keys_table() -> str:
    """The table of keys as README has it."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for table in TABLES:
        for key in table.keys:
            default = str(key.default).replace("'", '"') if key.default != "" else '""'
            lines.append(f"| `{table.heading} {key.name}` | `{default}` | {key.help} |")
    return "\n".join(lines) + "\n"


def test_the_two_commands_of_the_readme_are_what_ci_and_people_type() -> None:
    assert ".venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest" in README
    assert "tests.check" in (ROOT / ".ci/run").read_text()


def test_every_link_within_the_readme_leads_to_a_heading() -> None:
    heads = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 _-]", "", head.lower()).replace(" ", "-") for head in heads}
    links = set(re.findall(r"\]\(#([^)]*)\)", README))
    assert links
    assert links - anchors == set()


def test_every_example_outside_the_tour_is_python_and_names_what_there_is() -> None:
    found = [
        block
        for info, block in _blocks(README.replace(TOUR, ""))
        if info.partition(" ")[0] == "python"
    ]
    assert found
    for block in found:
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "jobvisor":
                exec(ast.unparse(node), {})


def test_the_example_of_testing_runs_as_it_stands() -> None:
    [block] = [block for info, block in _blocks(README) if "testing.in_memory()" in block]
    sent: list[str] = []

    @task(name="readme-send")
    def send(to: str, _subject: str) -> None:
        sent.append(to)

    def welcome(to: str) -> None:
        send.enqueue(to, "Welcome")

    exec(block, {"send": send, "welcome": welcome})
    assert sent == ["a@b.c", "a@b.c"]
