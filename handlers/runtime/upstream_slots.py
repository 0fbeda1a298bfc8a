"""
How many calls may be under way to the upstream at once, and the short queue of those that wait for their turn.

A slot is held until the answer has been read or closed. Not for the connections themselves.
"""

import asyncio
import contextlib
from collections import deque

from handlers.runtime.exceptions import UpstreamQueueFull


class Slots:
    """
    A limit with a bounded queue, first come first served; belongs to one event loop.

    Args:
        limit: Slots that can be held at once.
        max_waiting: Further callers are refused.
        timeout_seconds: Whoever waits longer is refused.
    """

    def __init__(self, limit: int, max_waiting: int, timeout_seconds: float) -> None:
        self._free = limit
        self._limit = limit
        self._max_waiting = max_waiting
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def held(self) -> int:
        """How many are held now."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def take(self) -> "Slot | None":
        """Take a slot if there is one; while one is free nobody waits."""
        if not self._free:
            return None
        self._free -= 1
        return Slot(self)

    async def wait(self) -> "Slot":
        """
        Wait for a slot.

        Raises:
            UpstreamQueueFull: Too many wait already, or it takes too long (503).
        """
        if len(self._waiting) >= self._max_waiting:
            raise UpstreamQueueFull
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        timer = loop.call_later(self._timeout_seconds, self._expire, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiting.remove(turn)
            elif turn.exception() is None:  # handed over in the very moment in which the client left
                self.give_back()
            raise
        finally:
            timer.cancel()
        return Slot(self)

    def give_back(self) -> None:
        """Hand a slot to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _expire(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._waiting.remove(turn)
            turn.set_exception(UpstreamQueueFull())


class Slot:
    """One held slot; given back once, at the latest when nobody knows it any more."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def release(self) -> None:
        """Give it back; may be called more than once."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()

    def __del__(self) -> None:
        self.release()
