"""An event loop that does not wait: where it would sleep, its clock jumps. For code that opens no socket."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; how long the loop would have waited for it is added to the clock."""
        if timeout is None:
            return super().select()
        self.jumped_seconds += max(timeout, 0.0)
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds by the jumping clock; work itself takes none."""
        return self._jumping.jumped_seconds


def run_without_waiting(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """
    Run a coroutine to its end.

    Returns:
        What it returns, and how many seconds it would have taken.
    """
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        result = runner.run(work)
        return result, runner.get_loop().time()
