"""What README shows of the tasks that come along, executed as it stands, but for the names of servers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.builtin.post import Post
from tests.builtin.server import Server, answer
from tests.test_readme import README, _blocks, _expectations, _pattern, _run, _shown

SECTION = README.split("### Work without a line of Python")[1].split("\n### ")[0]


@pytest.mark.system
def test_the_section_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name, start in (("jobvisor", "-m jobvisor"), ("python", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    with Server([answer()]) as server, Post() as post:
        for name, value in (("HOST", "127.0.0.1"), ("PORT", post.port), ("SECURITY", "none")):
            monkeypatch.setenv(f"JOBVISOR_EMAIL_{name}", str(value))
        steps: list[tuple[str, list[str]]] = []
        for info, block in _blocks(SECTION):
            language, _, name = info.partition(" ")
            if name:
                (tmp_path / name).write_text(block)
            if language == "console":
                steps += _expectations(block.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}"))
        script = "set -e\n" + "".join(f"echo '@@{n}'\n{c}\n" for n, (c, _) in enumerate(steps))
        code, output, talk = _run(script, tmp_path)
    assert code == 0, output + talk
    for number, shown in _shown(output):
        command, expected = steps[number]
        if expected:
            pattern = r"\n".join(_pattern(line) for line in expected)
            assert re.fullmatch(pattern, shown.rstrip("\n"), re.DOTALL), f"$ {command}\n{shown}"
    assert [call.body for call in server.calls] == [b'{"file":"backup.tar"}']
    assert post.to == ["ada@example.com", "bob@example.com"]
    assert (tmp_path / "backup.tar").exists()
    assert (tmp_path / "stamp").exists()


@pytest.mark.parametrize("name", ["shell", "http", "email"])
def test_the_tables_of_outcomes_are_those_of_the_tasks(name: str) -> None:
    """Row by row, as many, in the same order of outcomes."""
    module = __import__(f"jobvisor.jobs.builtin.{name}", fromlist=[name])
    table = SECTION.split(f"**`{name}(")[1].split("\n**`")[0]
    told, shown = _outcomes(module.__doc__ or ""), _outcomes(table)
    assert len(told) >= 7
    assert told == shown


def _outcomes(text: str) -> list[str]:
    """Of each row the words that say where the job goes."""
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")][1:]
    words = ("succeeded", "failed", "cancelled", "retry policy")
    return [" ".join(word for word in words if word in row) for row in rows]
