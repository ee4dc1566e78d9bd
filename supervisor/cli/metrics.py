"""`metrics`: what a monitor needs beside the numbers: a dashboard and alert rules, which the package has."""

from __future__ import annotations

from importlib.resources import files

import click

from jobvisor.supervisor.cli import examples

__all__ = ["metrics"]

FILES = {"dashboard": "dashboard.json", "rules": "rules.yml"}


@click.command(
    epilog=examples(
        "jobvisor metrics rules > /etc/prometheus/jobvisor.yml",
        "jobvisor metrics dashboard > jobvisor.json   # to be imported into Grafana",
    )
)
@click.argument("what", type=click.Choice(tuple(FILES)))
def metrics(what: str) -> None:
    """Print a dashboard for Grafana, or rules for Prometheus.

    The numbers themselves are at /metrics of the web role; see [web] in config.toml.
    """
    folder = files("jobvisor.supervisor").joinpath("monitoring")
    click.echo(folder.joinpath(FILES[what]).read_text(encoding="utf-8"), nl=False)
