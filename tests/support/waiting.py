"""Waits for what another thread or process is about to do."""

import time
from collections.abc import Callable

DEADLINE_SECONDS = 5.0


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds; fail when it does not within `DEADLINE_SECONDS`."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.002)
