"""
What one worker has counted since its start, in plain numbers: cheap to add to, and read only when somebody asks.

Labels are operationIds, codes and status classes of the contract: never a path, a key, a model or what a client sent.
Not for: names and text formats (`handlers.runtime.metric_families`).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.runtime.connection import Connection

# From an answer of the relay itself to an answer that takes its time; streams last as long as they want.
DURATION_BOUNDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
UNMATCHED = "unmatched"  # no operation of the contract: unknown path or method, or no HTTP at all
ANSWERED = "answered"
CLIENT_GONE = "client_gone"
FAILED = "failed"
CANCELLED = "cancelled"
_NO_REFUSAL = frozenset({ANSWERED, CLIENT_GONE})
_CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx", *[""] * 4)  # the upstream may answer anything up to 999


class Histogram:
    """Durations by upper bound, the last one unbounded."""

    __slots__ = ("numbers", "seconds")

    def __init__(self) -> None:
        self.numbers = [0] * (len(DURATION_BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.numbers[bisect_left(DURATION_BOUNDS, seconds)] += 1
        self.seconds += seconds


class OperationCounts:
    """
    All of one operation.

    Args:
        bucket: Of the operation, as the contract says.
    """

    __slots__ = (
        "bucket",
        "bytes_in",
        "bytes_out",
        "duration",
        "inside",
        "operation",
        "requests",
        "retries",
        "upstream_calls",
        "upstream_duration",
    )

    def __init__(self, operation: str, bucket: str) -> None:
        self.operation = operation
        self.bucket = bucket
        self.requests: defaultdict[tuple[str, str], int] = defaultdict(int)  # by outcome and status class
        self.inside: defaultdict[str, int] = defaultdict(int)  # of those, calls of tools, by outcome
        self.duration = Histogram()
        self.bytes_in = 0
        self.bytes_out = 0
        self.upstream_calls: defaultdict[str, int] = defaultdict(int)  # by status class
        self.upstream_duration = Histogram()
        self.retries = 0


class Counts:
    """Everything that one worker counts."""

    def __init__(self) -> None:
        self.operations: dict[str, OperationCounts] = {}
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.refused_before_upstream: defaultdict[str, int] = defaultdict(int)
        self.socket_ends: defaultdict[tuple[str, str], int] = defaultdict(int)  # by cause and close code
        self.active: set[Connection] = set()
        self.sockets = 0
        self.unmatched = self.of(UNMATCHED, "none")

    def of(self, operation: str, bucket: str) -> OperationCounts:
        """The counts of an operation; the same object for the same operation."""
        counts = self.operations.get(operation)
        if counts is None:
            counts = self.operations[operation] = OperationCounts(operation, bucket)
        return counts

    @property
    def event_streams(self) -> int:
        """How many event streams are open."""
        return sum(connection.event_stream for connection in self.active)

    def end(self, connection: "Connection", outcome: str, seconds: float, *, inside: bool) -> None:
        """
        Count a request that is over.

        Args:
            outcome: `answered`, `client_gone` or the code of the error that it ended with.
            inside: Whether a tool asked for it.
        """
        observation = connection.observation
        counts = observation.counts
        counts.requests[outcome, status_class(connection.status)] += 1
        counts.duration.add(seconds)
        counts.bytes_in += connection.bytes_in
        counts.bytes_out += connection.bytes_out
        if inside:
            counts.inside[outcome] += 1
        if outcome not in _NO_REFUSAL:
            self.refuse(outcome, upstream_calls=observation.calls)

    def refuse(self, code: str, *, upstream_calls: int) -> None:
        """
        Count a request that ended with an error of the relay's own.

        Args:
            upstream_calls: How many it had cost by then.
        """
        self.refusals[code] += 1
        if not upstream_calls:
            self.refused_before_upstream[code] += 1

    def refuse_unread(self, code: str, status: int) -> None:
        """Count what was refused before it was a request, such as broken HTTP."""
        self.unmatched.requests[code, status_class(status)] += 1
        self.refuse(code, upstream_calls=0)

    @contextmanager
    def socket(self) -> Iterator[None]:
        """Count a socket while it is open."""
        self.sockets += 1
        try:
            yield
        finally:
            self.sockets -= 1


def status_class(status: int) -> str:
    """`2xx` for 204 and so on; empty without a status."""
    return _CLASSES[status // 100]
