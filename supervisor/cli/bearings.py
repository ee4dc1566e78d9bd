"""What is needed to reach a family, read also from a configuration with a mistake in it.

A family that runs must be stoppable by whoever has just misspelled a key in its file.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from dataclasses import dataclass
from typing import Any

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.source import FILE_BYTES_MAX
from jobvisor.supervisor.cli import load_config, say
from jobvisor.supervisor.config import Config

__all__ = ["Bearings", "find_family"]

_SECTION = "supervisor"
_STATE_DIR, _NAME, _STOP_TIMEOUT = "state_dir", "name", "stop_timeout"


@dataclass(frozen=True, slots=True)
class Bearings:
    """Where a family is found, what it is called, and how long it may take to stop."""

    name: str
    state_dir: str
    stop_timeout_ms: int
    config: Config | None
    """The whole configuration, None where it has a mistake."""


def find_family(path: str | None) -> Bearings:
    """The family of `-c`, else of ./config.toml; a mistake in it is a warning.

    ConfigError where the file is not there or cannot be read, or where the mistake is in the very
    line that says where the state directory is.
    """
    try:
        config = load_config(path)
    except ConfigError as error:
        found = _salvaged(path or "config.toml", error)
        end = "" if str(error).endswith("?") else "."
        say(f"warning: {error}{end} Going by [supervisor] state_dir alone: {found.state_dir}")
        return found
    family = config.family
    return Bearings(family.name, family.state_dir, family.stop_timeout_ms, config)


def _salvaged(path: str, error: ConfigError) -> Bearings:
    written = _supervisor_section(path, error)
    folder = os.path.dirname(os.path.abspath(path))
    at = _read(written, _STATE_DIR, folder).family
    name, stop_timeout_ms = at.name, at.stop_timeout_ms
    with contextlib.suppress(ConfigError):
        name = _read(written, _NAME, folder).family.name
    with contextlib.suppress(ConfigError):
        stop_timeout_ms = _read(written, _STOP_TIMEOUT, folder).family.stop_timeout_ms
    return Bearings(name, at.state_dir, stop_timeout_ms, None)


def _read(written: dict[str, Any], key: str, folder: str) -> Config:
    """A configuration that says nothing but this key, so that no other can be wrong."""
    variable = f"JOBVISOR_{_SECTION}_{key}".upper()
    environ = {variable: os.environ[variable]} if os.environ.get(variable) else {}
    said = {key: written[key]} if key in written else {}
    # No module is imported; the file may have none, which would be one more mistake.
    mapping = {"tasks": {"modules": ["none"]}, _SECTION: said}
    return Config.of(mapping, folder, environ)


def _supervisor_section(path: str, error: ConfigError) -> dict[str, Any]:
    """What the file says under [supervisor], as far as it can be read; `error` where it cannot."""
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_BYTES_MAX).decode(errors="replace")
    except (OSError, ValueError):
        raise error from None
    try:
        section = tomllib.loads(text).get(_SECTION, {})
    except (ValueError, RecursionError):
        section = _line_by_line(text, error)
    if not isinstance(section, dict):
        raise error
    return section


def _line_by_line(text: str, error: ConfigError) -> dict[str, Any]:
    """The section of a file that is no TOML as a whole: each line that is one by itself."""
    found: dict[str, Any] = {}
    header = ""
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            header = line
        try:
            section = tomllib.loads(f"{header}\n{line}" if line is not header else line)
        except (ValueError, RecursionError):
            if _STATE_DIR in line:
                raise error from None
            continue
        said = section.get(_SECTION)
        if isinstance(said, dict):
            found |= said
    return found
