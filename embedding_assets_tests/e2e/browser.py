"""Chromium, driven by Playwright: the one that the system has, since Playwright's own can't be had everywhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 30_000
"""How long an expectation is waited for: a loaded machine is slow, and a failure may take its time."""


def chromium() -> str | None:
    """Path of the system's Chromium; None where it has none."""
    return next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless browser; Playwright gives it a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield browser
        browser.close()


class Watched:
    """A page whose console is listened to.

    Attributes:
        complaints: console errors, warnings and uncaught exceptions so far.
        expected: parts of complaints that a test provokes.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.complaints: list[str] = []
        self.expected: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")

    def unexpected(self) -> list[str]:
        """Complaints that no test provoked."""
        return [
            complaint for complaint in self.complaints if not any(part in complaint for part in self.expected)
        ]


def file_payload(name: str, kind: str, content: bytes) -> dict[str, object]:
    """A file as Playwright's `set_input_files` takes it."""
    return {"name": Path(name).name, "mimeType": kind, "buffer": content}
