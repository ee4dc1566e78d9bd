"""The example of limits in the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobvisor.jobs.registry import registry

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_example_of_limits_runs_as_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_tasks", "_by_name"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    (block,) = re.findall(r"^```python limits\.py\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    exec(compile(block, "limits.py", "exec"), {"__name__": "__main__"})
    shown = capsys.readouterr().out.strip()
    (told,) = re.findall(r"# (limit stripe.*)$", block, re.MULTILINE)
    assert re.fullmatch(re.escape(told).replace(r"\.\.\.", ".*"), shown)
