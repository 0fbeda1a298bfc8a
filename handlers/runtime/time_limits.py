"""
Time limits of one length for many blocks at once, with one timer for all of them.

Blocks of one length end in the order in which they began, so only the oldest one needs a timer. `asyncio.timeout` sets
and cancels one for every block, which costs a request more than its routing does. Not for: limits of other lengths.
"""

import asyncio
from contextvars import Context
from types import TracebackType
from typing import Final, Self

_TIMER_SECONDS: Final = 0.001  # uvloop counts whole milliseconds, so its timers may come so much too soon


class TimeLimit:
    """
    A limit; `with limit.block():` lets what is awaited inside take only so long.

    Args:
        seconds: Of each block.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[Block, float] = {}  # the oldest first, with the time at which it ends
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def block(self) -> "Block":
        """What the work is put into; for one use."""
        return Block(self)

    def begin(self, block: "Block") -> None:
        """Note a block that begins."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # an earlier loop is over, and its timer with it
            self._loop, self._timer = loop, None
            self._running.clear()
        ends = loop.time() + self.seconds
        self._running[block] = ends
        if self._timer is None:
            self._arm(loop, ends)

    def end(self, block: "Block") -> None:
        """Note a block that is over in time. The timer stays: it looks at whoever is the oldest then."""
        self._running.pop(block, None)

    def _arm(self, loop: asyncio.AbstractEventLoop, ends: float) -> None:
        # In a context of its own, or it would keep that of whichever request came first.
        self._timer = loop.call_at(ends, self._expire, loop, context=Context())

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for block, ends in tuple(self._running.items()):
            if ends > now + _TIMER_SECONDS:
                self._arm(loop, ends)
                return
            del self._running[block]
            block.expire()


class Block:
    """
    One block, as `asyncio.timeout` has it, without its `await`.

    Raises:
        TimeoutError: Time ran out; whatever ran inside was cancelled.
    """

    __slots__ = ("_cancellations", "_expired", "_limit", "_task")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._task: asyncio.Task[object] | None = None
        self._cancellations = 0
        self._expired = False

    def __enter__(self) -> Self:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task that it can cancel")
        self._cancellations = task.cancelling()
        self._limit.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.end(self)
        task, self._task = self._task, None
        if self._expired and task is not None:
            # Somebody else may have cancelled the task as well; that is then not this block's to turn into an error.
            others = task.uncancel() > self._cancellations
            if not others and kind is asyncio.CancelledError:
                raise TimeoutError from None

    def expire(self) -> None:
        """End the block: its time is over."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()
