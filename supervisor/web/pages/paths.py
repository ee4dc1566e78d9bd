"""The addresses of pages by their names: each is looked up once, for a list has hundreds of links."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import FastAPI

__all__ = ["Paths"]


class Paths:
    """Those of one application, below the place where it is mounted."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._patterns: dict[str, str] = {}

    def of(self, name: str, parameters: dict[str, Any]) -> str:
        """The path of a page; what stands in it is quoted."""
        pattern = self._patterns.get(name)
        if pattern is None:
            places = {place: f"{{{place}}}" for place in parameters}
            pattern = str(self._app.url_path_for(f"pages.{name}", **places))
            self._patterns[name] = pattern
        values = {place: quote(str(value).lstrip("/")) for place, value in parameters.items()}
        return pattern.format(**values)
