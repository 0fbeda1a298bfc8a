"""
What is noticed about one request on its way through the relay: for its log line, the metrics and a trace.

The code that asks the upstream finds the observation of its request by itself, however deep it is called.
"""

import re
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from handlers.runtime.counts import FAILED, OperationCounts, status_class

if TYPE_CHECKING:
    from handlers.runtime.metric_families import Snapshot

Header = tuple[bytes, bytes]
_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)


class Tracing(Protocol):
    """OpenTelemetry, where it is on (`handlers.runtime.tracing`)."""

    def begin(self, method: str, headers: Iterable[Header], request_id: str) -> "Trace":
        """Begin the span of a request; its `traceparent` says what it is a part of."""

    def running(self, read: "Callable[[], Snapshot]") -> AbstractAsyncContextManager[None]:
        """Send what there is to the collector while the block runs."""


class Trace(Protocol):
    """One request in a trace."""

    def begin_call(self, operation: str) -> "CallTrace":
        """Begin the span of a call to the upstream, which may outlast the request."""

    def end(self, counts: OperationCounts, status: int, outcome: str, seconds: float) -> None:
        """End the span; the status is 0 when nobody was left to answer."""


class CallTrace(Protocol):
    """One call to the upstream in a trace."""

    @property
    def traceparent(self) -> str:
        """What tells the upstream where in the trace it is (W3C Trace Context)."""

    def end(self, status: int, seconds: float) -> None:
        """End the span; the status is 0 when there was no answer."""


class Observation:
    """
    One request.

    Args:
        counts: Of the operation, once that is known.

    Attributes:
        trace: `None` unless OpenTelemetry is on.
        calls: To the upstream, repetitions included.
        upstream_seconds: Until the headers of its answers, all calls together.
        status: Of its last answer; 0 without one.
    """

    __slots__ = ("calls", "counts", "request_id", "retries", "status", "trace", "upstream_seconds")

    def __init__(self, counts: OperationCounts) -> None:
        self.counts = counts
        self.trace: Trace | None = None
        self.calls = 0
        self.retries = 0
        self.upstream_seconds = 0.0
        self.status = 0
        self.request_id = ""

    def fields(self) -> dict[str, object]:
        """What the log line says about the calls to the upstream; of several, status and id are the last one's."""
        if not self.calls:
            return {"upstream_calls": 0}
        fields: dict[str, object] = {
            "upstream_calls": self.calls,
            "upstream_ms": round(self.upstream_seconds * 1000, 1),
        }
        if self.retries:
            fields["retries"] = self.retries
        if self.status:
            fields["upstream_status"] = self.status
            if self.request_id:
                fields["upstream_request_id"] = self.request_id
        return fields


class ObservedCall:
    """One call to the upstream, from the request to the headers of its answer; begins where it is made."""

    __slots__ = ("_began", "_observation", "_trace")

    def __init__(self) -> None:
        observation = self._observation = OBSERVATION.get()
        self._trace: CallTrace | None = None
        if observation is not None:
            observation.calls += 1
            if observation.trace is not None:
                self._trace = observation.trace.begin_call(observation.counts.operation)
        self._began = time.perf_counter()

    @property
    def traceparent(self) -> str | None:
        """What tells the upstream where in the trace it is; `None` unless OpenTelemetry is on."""
        return self._trace.traceparent if self._trace is not None else None

    def answered(self, status: int, headers: Iterable[Header], secret: bytes) -> None:
        """
        Note the headers of the answer.

        Args:
            headers: As the upstream sent them; its request id is kept as far as it looks like one.
            secret: The relay's key, which it must not repeat there.
        """
        if self._observation is None:
            return
        request_id = ""
        for name, value in headers:
            if name.lower() == b"x-request-id":
                if _ID.fullmatch(value) and not (secret and secret in value):
                    request_id = value.decode("ascii")
                break
        seconds = self.end(status_class(status) or FAILED, status)
        self._observation.request_id = request_id
        self._observation.counts.upstream_duration.add(seconds)

    def end(self, kind: str, status: int = 0) -> float:
        """
        Note that no headers will come.

        Args:
            kind: `FAILED` or `CANCELLED`.

        Returns:
            How long it took, in seconds.
        """
        seconds = time.perf_counter() - self._began
        if self._trace is not None:
            self._trace.end(status, seconds)
        observation = self._observation
        if observation is not None:
            observation.upstream_seconds += seconds
            observation.status = status
            observation.counts.upstream_calls[kind] += 1
        return seconds


# Set by the edge for each request; work that outlasts its request keeps it.
OBSERVATION: ContextVar[Observation | None] = ContextVar("observation", default=None)


def note_retry() -> None:
    """Note that the call which follows repeats one that has failed."""
    observation = OBSERVATION.get()
    if observation is not None:
        observation.retries += 1
        observation.counts.retries += 1
