"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHOWING = [
    path
    for folder in ("jobs", "supervisor")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text()
]


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("jobvisor", *(part for part in parts if part != "__init__")))


@pytest.mark.parametrize("name", [_module(path) for path in SHOWING])
def test_the_examples_of_a_module_come_out_as_shown(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried, f"{name} shows examples that doctest does not find"
    assert not failed, "the difference stands above"
