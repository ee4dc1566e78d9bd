"""The files of SQL that come with this package.

Read by their paths: `importlib.resources` brings zipfile, tempfile and shutil into every process.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_FOLDER = os.path.dirname(os.path.abspath(__file__))


class Script(NamedTuple):
    """One migration."""

    name: str
    """`0003_around`, begun by its number."""
    text: str


def read_statements(dialect: str) -> str:
    """The text of all statements of a dialect."""
    return _read(os.path.join(_FOLDER, "sql", f"{dialect}.sql"))


def read_migrations(dialect: str) -> list[Script]:
    """The migrations of a dialect, in order."""
    folder = os.path.join(_FOLDER, "migrations", dialect)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".sql"))
    return [Script(name.removesuffix(".sql"), _read(os.path.join(folder, name))) for name in names]


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
