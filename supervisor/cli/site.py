"""Where a command works: the database, and the configuration if there is one."""

from __future__ import annotations

import os
from dataclasses import dataclass

from jobvisor.jobs.client import Client
from jobvisor.jobs.errors import ConfigError, StoreUnavailable
from jobvisor.jobs.settings import URL_VARIABLE, Settings, file_here, find
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.config import Config

__all__ = ["Site", "find_site"]


@dataclass(frozen=True, slots=True)
class Site:
    """The database a command works on, and the configuration that named it."""

    settings: Settings
    config: Config | None

    @property
    def url(self) -> str:
        """The database's."""
        return self.settings.url

    def check(self) -> None:
        """StoreUnavailable where there is no file yet, which to connect would make."""
        target = parse_url(self.url)
        if target.kind == "sqlite" and not os.path.exists(target.path):
            raise StoreUnavailable(
                f"there is no database {target.path} yet; `jobvisor migrate` or the first enqueue "
                "makes it, -c names another configuration"
            )

    def client(self, *, create: bool = False) -> Client:
        """A client of this database; only `create` may make a file that is not there."""
        if parse_url(self.url).kind == "memory":
            raise ConfigError(
                "memory:// ends with this command; name a file, such as sqlite:///jobs.db"
            )
        if not create:
            self.check()
        return Client(settings=self.settings)


def find_site(config: str | None) -> Site:
    """By `-c`, else ./config.toml, else JOBVISOR_DATABASE_URL; ConfigError names all three."""
    path = file_here() if config is None else config
    if path is not None:
        loaded = Config.load(path)
        return Site(loaded.settings, loaded)
    if not os.environ.get(URL_VARIABLE):
        raise ConfigError(
            "no database is named here: `jobvisor init` writes a config.toml, -c names another one, "
            f"or {URL_VARIABLE} names a database without one"
        )
    return Site(find(), None)
