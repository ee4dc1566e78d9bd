"""Tasks for the command's tests."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from jobvisor.jobs.registry import task


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(queue="mail", retries=1, timeout="30s")
def send(to: str, *, subject: str = "") -> str:
    return f"{to}: {subject}"


@task(retries=0)
def boom() -> None:
    raise RuntimeError("\x1b[31mred\x1b[0m")


@task
def at(when: datetime, price: Decimal) -> str:
    return f"{when} {price}"
