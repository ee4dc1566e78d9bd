"""`jobvisor top`: the command."""

from __future__ import annotations

import sys

import click

from jobvisor.supervisor.cli import config_option, examples
from jobvisor.supervisor.cli.site import Site, find_site
from jobvisor.supervisor.cli.top.database import Database
from jobvisor.supervisor.cli.top.local import Local
from jobvisor.supervisor.cli.top.screen import Screen
from jobvisor.supervisor.cli.top.seen import Seen
from jobvisor.supervisor.cli.top.terminal import Terminal
from jobvisor.supervisor.cli.top.texts import Texts
from jobvisor.supervisor.family import StateDir

__all__ = ["top"]


@click.command(epilog=examples("jobvisor top", "jobvisor top -c /srv/app/config.toml"))
@config_option
def top(config: str | None) -> None:
    """Watch the family on a full screen, live, and steer it by keys.

    ? shows the keys. It needs a terminal: `status` tells the same once, `status --watch` again and again.
    Exit code 0, or 128 and the number of the signal that ended it, as 130 for Ctrl-C.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "top needs a terminal to read keys from and to draw on; `jobvisor status` tells the same "
            "in lines, `jobvisor status --watch` again and again"
        )
    site = find_site(config)
    terminal = Terminal()
    if not terminal.drawable:
        raise click.UsageError(
            "this terminal cannot be drawn on, by its TERM; `jobvisor status --watch` writes lines"
        )
    local, database = _local(site), Database(site)
    with terminal.taken():
        leaving = Screen(terminal, database, Seen(local), Texts(database, local)).run()
    if leaving is not None:
        click.get_current_context().exit(128 + leaving)


def _local(site: Site) -> Local | None:
    """The family of this configuration; None where only a database is named."""
    if site.config is None:
        return None
    family = site.config.family
    return Local(StateDir(family.state_dir), family.name)
