"""
A circuit breaker: after failures in a row nobody asks for a while, then one asks first.

Kept here in few lines because no library fits: see `Circuit`.
"""

import math
import time
from collections.abc import Callable
from enum import StrEnum

from handlers.runtime.exceptions import UpstreamCircuitOpen


class CircuitState(StrEnum):
    """Whether the upstream is asked."""

    CLOSED = "closed"  # as always
    OPEN = "open"  # nobody asks
    HALF_OPEN = "half_open"  # one may ask, or does so now


class Circuit:
    """
    Counts failures in a row towards one upstream; belongs to one event loop.

    An answer of any status is a success: it says what is wrong and when to come back, and one broken operation must
    not take the others along. Looked at and passed over: purgatory 3.0.1 (of 2024) and aiobreaker 1.2.0 (of 2021) let
    everybody in once the time is over and go by the wall clock; what pybreaker 1.4.1 has for coroutines is Tornado's.

    Args:
        failures: After so many in a row it opens; 0 never does.
        open_seconds: For so long.
        clock: Seconds that never go back.
    """

    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> CircuitState:
        """Whether the upstream is asked now."""
        if self._open_until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if self._clock() < self._open_until else CircuitState.HALF_OPEN

    def check(self) -> None:
        """
        Say whether asking makes sense.

        Raises:
            UpstreamCircuitOpen: It is open, or somebody probes (503).
        """
        if self._open_until is None:
            return
        rest = self._open_until - self._clock()
        if rest > 0 or self._probing:
            raise UpstreamCircuitOpen(headers=[("Retry-After", str(max(1, math.ceil(rest))))])

    def enter(self) -> bool:
        """
        Begin to ask.

        Returns:
            Whether this is the probe; to be told to the method that ends it.

        Raises:
            UpstreamCircuitOpen: It is open, or somebody probes (503).
        """
        if self._open_until is None:
            return False
        self.check()
        self._probing = True
        return True

    def succeed(self) -> None:
        """Whoever asked was answered."""
        self._failures = 0
        self._open_until = None
        self._probing = False

    def fail(self, probe: bool) -> None:
        """Whoever asked was not answered."""
        if self._open_until is not None:
            if probe:  # others have begun before it opened and tell nothing new
                self._open()
            return
        self._failures += 1
        if self._failures == self._limit:
            self._open()

    def leave(self, probe: bool) -> None:
        """Whoever asked has left before the answer: nobody knows more than before."""
        if probe:
            self._probing = False

    def _open(self) -> None:
        self._open_until = self._clock() + self._open_seconds
        self._probing = False
