"""`grants`: the SQL that gives a role of PostgreSQL what it needs and no more; nothing is changed."""

from __future__ import annotations

import click

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.store.grants import grants as statements
from jobvisor.jobs.url import parse_url, shown_url
from jobvisor.supervisor.cli import config_option, load_config

__all__ = ["grants"]


@click.command()
@click.argument("role")
@click.option(
    "--enqueue", "purpose", flag_value="enqueue", help="May enqueue jobs and look at them."
)
@click.option(
    "--work", "purpose", flag_value="work", help="May do all that a family and a client do."
)
@click.option("--read", "purpose", flag_value="read", help="May look at everything.")
@config_option
def grants(role: str, purpose: str | None, config: str | None) -> None:
    """Print the SQL that lets a PostgreSQL role do its work.

    Whoever has run `jobvisor migrate` runs it, for example by: jobvisor grants app --enqueue | psql
    """
    if purpose is None:
        raise click.UsageError("say what the role is for: --enqueue, --work or --read")
    database = load_config(config).database
    if parse_url(database.url).kind != "postgresql":
        raise ConfigError(
            f"{shown_url(database.url)} has no roles: on SQLite the file's own permissions say who may "
            f"do what; grants are for a postgresql:// URL"
        )
    click.echo(statements(role, purpose, database.schema, database.prefix))
