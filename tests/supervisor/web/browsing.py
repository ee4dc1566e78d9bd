"""A browser, and a site with a real family behind it that it looks at."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from jobvisor import Client
from jobvisor.supervisor.config import Config, Web
from jobvisor.supervisor.web.app import create_app
from tests.waiting import eventually

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PATIENCE_MS = 60_000
"""Of the browser with a page: a machine that runs other tests beside is slow."""

USER, PASSWORD = "ann", "a_pass_word"
ARTEFACTS_VARIABLE = "JOBVISOR_TEST_ARTEFACTS"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's own browser; where there is none the tests are skipped."""
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"there is no {CHROMIUM} here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Server:
    """The pages of a family, served by a thread of this process: stopped and started at one address."""

    def __init__(self, config: Path) -> None:
        loaded = Config.load(str(config), environ={})
        self.client = Client(settings=loaded.settings)
        self._settings = Web(user=USER, password=PASSWORD, allow_tasks=("app:*",))
        self._state_dir = loaded.family.state_dir
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._app: FastAPI | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        app = self._app = create_app(
            self.client, settings=self._settings, state_dir=self._state_dir
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, "127.0.0.1", self._port, log_level="error", timeout_graceful_shutdown=1
            )
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        eventually(
            lambda: self._server is not None and self._server.started, what="the server is up"
        )

    def stop(self) -> None:
        if self._server is not None and self._thread is not None and self._app is not None:
            self._server.should_exit = True
            self._app.state.live.close()
            self._thread.join()
        self._server = None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Visit:
    """One window of the browser, which keeps all that it had to complain about."""

    def __init__(self, browser: Browser, url: str, **how: Any) -> None:
        self.url = url
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(base_url=url, **how)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("requestfailed", self._note_request)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(
                f"{message.type}: {message.text} ({message.location.get('url')})"
            )

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(self.url):
            self.complaints.append(f"asked for {request.url}")

    def sign_in(self, then: str = "/") -> Page:
        """Through the form, as a person does it."""
        self.page.goto(f"/sign-in?next={then}")
        self.page.get_by_label("Name").fill(USER)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda found: "sign-in" not in found)
        return self.page

    def shot(self, name: str) -> None:
        """A picture of the page, where somebody wants them."""
        folder = os.environ.get(ARTEFACTS_VARIABLE)
        if folder:
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"{re.sub('[^a-z0-9-]+', '-', name)}.png")
            self.page.screenshot(path=path, full_page=True)

    def close(self) -> None:
        self.context.close()


@contextmanager
def visit(browser: Browser, url: str, **how: Any) -> Iterator[Visit]:
    """A window that is closed in the end, and was not to complain."""
    made = Visit(browser, url, **how)
    try:
        yield made
    finally:
        made.close()
