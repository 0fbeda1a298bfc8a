"""A headless Chromium and pages in it that remember all they asked for and complained about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, Request, sync_playwright

CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",  # the tests may run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MILLISECONDS = 20_000


@dataclass
class Visit:
    """A page that is open, and everything that it did."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, running."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "install Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """
    A page that has gone to an address, in a browsing context of its own.

    Args:
        options: Of the context, such as `color_scheme`; the window is 1280 by 900 unless `viewport` says otherwise.
    """
    with browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        visit = Visit(page)
        page.on("request", lambda request: visit.requests.append(request))
        page.on("console", lambda m: visit.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("requestfailed", lambda request: visit.complaints.append(f"failed: {request.url}"))
        page.on("response", lambda r: visit.complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.goto(url)
        yield visit
