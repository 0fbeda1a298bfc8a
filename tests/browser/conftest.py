"""One Chromium per test module."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browsing import chromium


@pytest.fixture(scope="module")  # not longer: while it lives it holds the thread's event loop, which async tests need
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with chromium() as browser:
        yield browser
