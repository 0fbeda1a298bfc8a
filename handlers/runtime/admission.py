"""
How much runs at once in this worker, and for whom: admits requests, counts them, and knows when the relay is draining.

Not for: how many requests a key may send over time, or who may ask at all.
"""

from collections import Counter

from handlers.runtime.exceptions import KeyConcurrencyExceeded, Overloaded

# Set in a request's scope where its connection is one too many.
SURPLUS = "relay.surplus"
# Whoever supervises the relay must see it alive while it is full.
PROBES = frozenset({"retrieveLiveness", "retrieveReadiness"})


class Admission:
    """
    The running requests of one worker; calls inside the process are part of the request that makes them.

    Args:
        max_requests: Of all callers together.
        max_requests_per_key: 0 is no limit.
    """

    def __init__(self, max_requests: int, max_requests_per_key: int = 0) -> None:
        self._max_requests = max_requests
        self._max_requests_per_key = max_requests_per_key
        self._running_by_key: Counter[str] = Counter()
        self.running = 0
        self.draining = False

    def enter(self, *, surplus: bool = False) -> "Admitted":
        """
        Admit a request.

        Args:
            surplus: Whether its connection is one too many.

        Returns:
            What must be left when the request is over, whatever its end.

        Raises:
            Overloaded: As many run as may (503).
        """
        if surplus or self.running >= self._max_requests:
            raise Overloaded
        self.running += 1
        return Admitted(self)

    def running_for(self, key_id: str) -> int:
        """How many requests run for a key; 0 where keys are not counted."""
        return self._running_by_key[key_id]

    def drain(self) -> None:
        """Note that the relay is about to end."""
        self.draining = True

    def enter_key(self, key_id: str) -> bool:
        """
        Count one more request for a key, where keys are counted.

        Raises:
            KeyConcurrencyExceeded: As many run for it as may (429).
        """
        if not self._max_requests_per_key:
            return False
        if self._running_by_key[key_id] >= self._max_requests_per_key:
            raise KeyConcurrencyExceeded
        self._running_by_key[key_id] += 1
        return True

    def leave(self, key_id: str | None) -> None:
        """Count one less, for the worker and for the key that was counted."""
        self.running -= 1
        if key_id is not None:
            self._running_by_key[key_id] -= 1
            if not self._running_by_key[key_id]:
                del self._running_by_key[key_id]  # or every subject of an access token would stay here for ever


class Admitted:
    """A request that runs."""

    __slots__ = ("_admission", "_key_id")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._key_id: str | None = None

    def count_for(self, key_id: str) -> None:
        """
        Count the request for its key as well.

        Raises:
            KeyConcurrencyExceeded: As many run for it as may (429).
        """
        if self._admission.enter_key(key_id):
            self._key_id = key_id

    def leave(self) -> None:
        """Note the request's end; to be called once."""
        self._admission.leave(self._key_id)
