"""Importing what the user's configuration names: a module, or an object in one; an error says where."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from jobvisor.jobs.errors import ConfigError, shown


def search_also(path: str) -> None:
    """Put a folder at the end of the search path.

    At the end, never in front: a user's tree must not take the place of an installed library.
    """
    folder = os.path.abspath(path)
    if folder not in sys.path:
        sys.path.append(folder)


def import_module(place: str, module: str) -> ModuleType:
    """The module of this name; `place` begins the ConfigError of one that cannot be imported.

    It names the file and line of the user's that failed, and the search path only where the module
    itself was not found.
    """
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ConfigError(
            f"{place}: {module!r} cannot be imported: {reason} {_where(module, error)}".rstrip()
        ) from error


def import_object(place: str, name: str) -> Any:
    """The object of "module:name"; `place` begins the ConfigError where there is none."""
    module, _, path = name.partition(":")
    found: Any = import_module(place, module)
    for step in path.split("."):
        try:
            found = getattr(found, step)
        except AttributeError:
            raise ConfigError(
                f"{place}: {shown(name)} names nothing: {shown(found)} has no {step!r}"
            ) from None
    return found


def _where(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module):
        package = sys.modules.get(module.partition(".")[0])
        if package is not None and error.name != module.partition(".")[0]:
            return f"({package.__name__} is {getattr(package, '__file__', None) or 'a folder'})"
        return f"(it is searched in {', '.join(place or '.' for place in sys.path)})"
    line = _failing_line(error)
    return "" if line is None else f"({line})"


def _is_part(missing: str | None, module: str) -> bool:
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _failing_line(error: BaseException) -> str | None:
    """`file:line`, of the innermost code that is neither a library's nor Python's own."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}"
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if not step.filename.startswith(("<", *_foreign()))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _foreign() -> list[str]:
    """The folders of Python itself, of installed libraries, and our own."""
    import sysconfig  # noqa: PLC0415 -- only an import that failed needs it

    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    ours = os.path.dirname(os.path.abspath(__file__))
    return [f"{sysconfig.get_path(kind)}{os.sep}" for kind in kinds] + [f"{ours}{os.sep}"]
