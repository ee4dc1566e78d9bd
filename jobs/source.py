"""Where configured values come from: a file or mapping, and its environment twins, which win.

The one reader of both. Whoever asks for a table gets all of its keys, judged; a name that nothing
reads is refused with the nearest known one, because it is a misspelt one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.keys import DEFAULT_NAME, TABLES, Key, Shape, Table, folded, toml_text
from jobvisor.jobs.nearest import nearest, suggestion

CONFIG_VARIABLE = "JOBVISOR_CONFIG"
"""Names the file, for programs and commands alike."""

FILE_NAME = "config.toml"
FILE_BYTES_MAX = 1 << 20
"""A longer file is no configuration (and `-c /dev/zero` must end)."""

NEAR = 0.6
"""How alike two names are that differ by a slip: DB_URL is 0.67 like DATABASE_URL, POSTGRES_URL 0.5."""

_PREFIX = "JOBVISOR_"
# What Kubernetes and Docker set in every container for a service called jobvisor or jobvisor-web.
_OF_A_SERVICE = re.compile(
    r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One configuration, not judged yet."""

    name: str
    """What messages call it: the path of the file, or "config"."""
    mapping: Mapping[str, Any]
    folder: str
    """Where relative paths of the mapping start."""
    environ: Mapping[str, str]
    tables: tuple[Table, ...] = TABLES

    def one(self, table: str) -> dict[str, Any]:
        """The values of `[table]`, by key."""
        found = self.mapping.get(table, {})
        if not isinstance(found, Mapping):
            raise ConfigError(f"{self.name}: {table} is not a table; write [{table}] above it")
        return self._values(self._table(table), found, f"[{table}]", "")

    def listed(self, table: str) -> list[dict[str, Any]]:
        """The values of each `[[table]]`, in the order written; no two of one name."""
        known = self._table(table)
        entries = list(self._entries(known))
        found = []
        for entry, written in entries:
            among = f" {toml_text(entry)}:" if len(entries) > 1 else ""
            found.append(self._values(known, written, f"[{table}]{among}", entry))
        self._check_apart(known, [entry for entry, _ in entries])
        return found

    def named(self, table: str) -> dict[str, dict[str, Any]]:
        """The values of each `[table.NAME]`, by name."""
        known = self._table(table)
        entries = dict(self._entries(known))
        self._check_apart(known, list(entries))
        return {
            entry: self._values(known, written, f"[{table}.{entry}]", entry)
            for entry, written in entries.items()
        }

    def check_names(self) -> None:
        """Refuse a table or a variable that nothing reads."""
        names = [table.name for table in self.tables]
        for name in self.mapping:
            if name not in names:
                raise ConfigError(
                    f"{self.name}: [{name}] is not a section; {suggestion(name, names)}"
                )
        known = {
            table.variable(key, entry)
            for table in self.tables
            for entry in self._names(table)
            for key in table.keys
            if table.has_twin(key)
        }
        check_variables(self.environ, known, self.tables)

    def _names(self, table: Table) -> list[str]:
        """The names of the tables of one kind; [""] of one that is written once."""
        return [""] if table.shape is Shape.ONE else [entry for entry, _ in self._entries(table)]

    def _table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)

    def _entries(self, table: Table) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(name, what is written) of each table of a list, or of each named one."""
        if table.shape is Shape.LIST:
            for written in self._list(table):
                yield str(written.get("name", DEFAULT_NAME)), written
            return
        found = self.mapping.get(table.name, {})
        if not isinstance(found, Mapping) or not all(
            isinstance(one, Mapping) for one in found.values()
        ):
            raise ConfigError(f"{self.name}: {table.name} holds names; write {table.heading}")
        yield from found.items()

    def _list(self, table: Table) -> list[Mapping[str, Any]]:
        found = self.mapping.get(table.name, [{}] if table.implied else [])
        where = f"{self.name}: {table.name}"
        if isinstance(found, Mapping):
            raise ConfigError(f"{where} is one table; write {table.heading} above each")
        if not isinstance(found, (list, tuple)) or (table.implied and not found):
            raise ConfigError(f"{where} is not a list of tables; write {table.heading}")
        for written in found:
            if not isinstance(written, Mapping):
                raise ConfigError(f"{where} holds {toml_text(written)}; write {table.heading}")
        return list(found)

    def _check_apart(self, table: Table, entries: list[str]) -> None:
        # Two names that differ in punctuation only would share their environment twins.
        taken: dict[str, str] = {}
        for entry in entries:
            if folded(entry) in taken:
                raise ConfigError(
                    f'{self.name}: [{table.name}] name = "{entry}" is taken by '
                    f'"{taken[folded(entry)]}" (case and punctuation do not count); give each '
                    f"{table.heading} its own name"
                )
            taken[folded(entry)] = entry

    def _values(
        self, table: Table, written: Mapping[str, Any], where: str, entry: str
    ) -> dict[str, Any]:
        names = [key.name for key in table.keys]
        for name in written:
            if name not in names:
                near = suggestion(str(name), names, "`jobvisor init` writes every key")
                raise ConfigError(f'{self.name}: {where} "{name}" is not a key; {near}')
        return {key.name: self._value(table, key, written, where, entry) for key in table.keys}

    def _value(
        self, table: Table, key: Key, written: Mapping[str, Any], where: str, entry: str
    ) -> Any:
        variable = table.variable(key, entry)
        text = self.environ.get(variable, "") if table.has_twin(key) else ""
        if text and not _is_of_a_service(variable, text):
            return _judged(key, text, variable, os.getcwd(), key.form.from_text)
        value = written.get(key.name, key.default)
        return _judged(key, value, f"{self.name}: {where} {key.name}", self.folder)


def _judged(
    key: Key, value: Any, where: str, folder: str, convert: Callable[[Any], Any] | None = None
) -> Any:
    try:
        return key.form.read(convert(value) if convert else value, folder)
    except ConfigError as error:
        # A URL can hold a password: its own error knows what may be shown.
        raise ConfigError(f"{where}: {error}") from error
    except (ValueError, OverflowError) as error:
        if key.form.hidden:
            raise ConfigError(f"{where} is not valid: write {key.form.expects}") from None
        if key.name == "url":
            raise ConfigError(f"{where} is not valid: write {key.form.expects}") from error
        raise ConfigError(
            f"{where} = {toml_text(value)} is not valid: write {key.form.expects}"
        ) from error


def _is_of_a_service(variable: str, text: str) -> bool:
    """Whether Kubernetes or Docker have set it: JOBVISOR_WEB_PORT of a service called jobvisor-web."""
    address = re.match(r"(tcp|udp|sctp)://", text)
    return bool(address and _OF_A_SERVICE.fullmatch(variable))


def file_source(path: str, environ: Mapping[str, str]) -> Source:
    """The configuration of this file; ConfigError where it cannot be read."""
    return Source(path, _parsed(path), os.path.dirname(os.path.abspath(path)), environ)


def _parsed(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; `jobvisor init` writes one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read: {reason}; name another with -c") from error
    if len(text) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than 1 MiB; name a jobvisor config.toml with -c")
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).replace("\n", " ")


def check_variables(
    environ: Mapping[str, str], known: set[str], tables: tuple[Table, ...] = TABLES
) -> None:
    """Refuse a variable that looks like one of ours and is none: a typo works on a wrong database.

    That is: it begins as the twins of a table do, or resembles one. Others are left alone, because
    they are the deployment's (JOBVISOR_VERSION), Kubernetes' (JOBVISOR_PORT), or a newer release's
    on a machine that still has this one; `strange_variables` names them.
    """
    for variable in _unknown(environ, known):
        section = any(f"{variable}_".startswith(f"{_PREFIX}{t.name.upper()}_") for t in tables)
        close = _closest(variable, known)
        if section or close:
            near = f'did you mean "{close}"?' if close else "`jobvisor init` writes every key"
            raise ConfigError(f"the variable {variable} sets no key that there is; {near}")


def strange_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables JOBVISOR_... that nothing reads, for a warning."""
    return [variable for variable in _unknown(environ, set()) if not _is_twin(variable)]


def _unknown(environ: Mapping[str, str], known: set[str]) -> list[str]:
    return [
        variable
        for variable in sorted(environ)
        if variable.startswith(_PREFIX)
        and environ[variable]  # an empty one is not set
        and variable not in known
        and variable != CONFIG_VARIABLE
        and not _OF_A_SERVICE.fullmatch(variable)
    ]


def _is_twin(variable: str) -> bool:
    """Whether it has the form of a twin; of a table that is named, whatever its name."""
    return any(
        re.fullmatch(table.variable(key, "0").replace("_0_", "_.+_"), variable)
        for table in TABLES
        for key in table.keys
        if table.has_twin(key)
    )


def _closest(variable: str, known: set[str]) -> str | None:
    bare = {name.removeprefix(_PREFIX): name for name in sorted({*known, CONFIG_VARIABLE})}
    close = nearest(variable.removeprefix(_PREFIX), bare, NEAR)
    return None if close is None else bare[close]


def client_variables(environ: Mapping[str, str]) -> set[str]:
    """The twins that a client accepts: every one of the file, and those of pools it does not know."""
    plain = {
        table.variable(key) for table in TABLES if table.shape is Shape.ONE for key in table.keys
    }
    return plain | {variable for variable in environ if _is_twin(variable)}
