"""The user's modules in a process of ours: what they are told of the family, and their import."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from jobvisor.jobs.codec import NamedCodec, named_codec
from jobvisor.jobs.log import take_in_others
from jobvisor.jobs.registry import registry
from jobvisor.jobs.settings import Settings, environment, use_settings
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.autopsy.saying import KEPT, Saying
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.hook_calls import prepare


@dataclass(frozen=True, slots=True)
class Application:
    """What was imported, for who runs its tasks: in this process, or in a copy of it."""

    codec: NamedCodec | None
    saying: Saying
    """What hears the jobs speak, by streams that the modules may have taken."""


def application_settings(config: Config) -> Settings:
    """What a task's client is told. A connection to SQLite must not be open while a task runs."""
    return replace(config.settings, hold=parse_url(config.database.url).kind == "postgresql")


def load_application(config: Config) -> NamedCodec | None:
    """Import the modules of `[tasks]` and the codec of `[database]`, which is returned.

    Raises JobsError where one of them cannot be imported.
    """
    settings = application_settings(config)
    # First: a module may make its Client() while it is imported.
    use_settings(settings)
    os.environ |= environment(settings, config.path)
    registry.load(config.tasks.modules, config.tasks.path)
    codec = named_codec(settings.codec, config.tasks.path)
    if codec is not None:
        codec.load()
    return codec


def prepare_application(
    config: Config, around_hooks: AbstractContextManager[None] | None = None
) -> Application:
    """Import it, for a process that runs its tasks or is copied into some that do.

    The hooks before a fork are called within `around_hooks`. Raises JobsError where that cannot be done.
    """
    saying = Saying()
    if KEPT[config.log.keep]:
        saying.install()
    codec = load_application(config)
    with around_hooks or nullcontext():
        prepare(registry.hooks)
    take_in_others()  # after the import, in which an application says where its own lines go
    return Application(codec, saying)
