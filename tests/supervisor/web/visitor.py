"""Somebody at the application: a client as one of this machine, which needs no sign-in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

SITE = "http://127.0.0.1:8321"


def visitor(app: FastAPI, address: str = "127.0.0.1", **how: Any) -> TestClient:
    """A client of the application that comes from this address."""
    return TestClient(app, base_url=SITE, client=(address, 50_000), **how)
