"""A real Chromium, and a plain static server beside it. Debian's package; what is missing, tests are skipped for."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

# Read here: no test has these settings of the person who runs it.
_NAMED = os.environ.get("MIRROR_CHROMIUM")
AXE = os.environ.get("MIRROR_AXE")
"""A file of axe-core, which looks for what people with disabilities would stumble over."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where it is: as MIRROR_CHROMIUM says, else as the path does."""
    return _NAMED or next(filter(None, map(shutil.which, _NAMES)), None)


def why_not() -> str:
    """Why there is no browser to try the page in; nothing where there is one."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install playwright)"
    return "" if chromium() else "no Chromium is installed (apt-get install chromium, or name one with MIRROR_CHROMIUM)"


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """One for many tests: each opens a page of its own."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    # As root there is no sandbox; nothing but our own pages is opened.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and what should not happen on it: requests elsewhere, errors, what the policy had to refuse."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[Request] = []
        self.errors: list[str] = []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation', (event) =>"
            " window.refused.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`))"
        )

    def _asked(self, request: Request) -> None:
        self.requests.append(request)

    def open(self, url: str) -> Page:
        """Open a gallery, and wait for its first card: what it counts stands there before that."""
        self.page.goto(url)
        self.page.locator(".card").first.wait_for()
        return self.page

    def loaded(self, part: str) -> list[str]:
        """The last parts of the addresses that were asked for and hold this."""
        return [request.url.rpartition("/")[2] for request in self.requests if part in request.url]

    def close(self, base: str) -> None:
        """Check that nothing of this happened, and close the page."""
        refused = self.page.evaluate("window.refused")
        self.page.context.close()
        assert [request.url for request in self.requests if not request.url.startswith((base, "data:"))] == []
        assert (self.errors, refused) == ([], [])


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder on a server that knows nothing of us; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
