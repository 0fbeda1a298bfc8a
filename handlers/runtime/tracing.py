"""
OpenTelemetry: one span a request, one a call to the upstream, and the numbers of `/metrics`, sent by OTLP over HTTP.

Imported only where RELAY_OTEL is on. Where to send and what to sample stands in the standard `OTEL_…` variables. Spans
hold names of the contract, codes and statuses; no path, query, header, body, key or key id.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Histogram, Meter
from opentelemetry.metrics import Observation as Measured
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from handlers.runtime.counts import DURATION_BOUNDS, OperationCounts
from handlers.runtime.metric_families import FAMILIES, Kind, Snapshot
from handlers.runtime.observation import Header

NAME = "chatgpt-team-relay"
FLUSH_SECONDS = 5.0
POLL_SECONDS = 0.02
_TRACEPARENT = b"traceparent"
_CONTEXT = TraceContextTextMapPropagator()


class OpenTelemetry:
    """
    Traces of one worker; its block (`running`) starts the threads that send.

    Args:
        upstream_url: Its host stands in the spans of calls.
    """

    def __init__(self, upstream_url: str) -> None:
        self._upstream_host = urlsplit(upstream_url).hostname or ""
        self._tracer: Tracer = trace.NoOpTracer()
        self._request_seconds: Histogram | None = None
        self._call_seconds: Histogram | None = None

    def begin(self, method: str, headers: Iterable[Header], request_id: str) -> "RequestTrace":
        """Begin the span of a request; of its headers only `traceparent` is looked at."""
        # `tracestate` and `baggage` are what a client says to its own tools; they would travel on from here.
        parent = next((value.decode("latin-1") for name, value in headers if name == _TRACEPARENT), None)
        span = self._tracer.start_span(
            method,
            _CONTEXT.extract({"traceparent": parent}) if parent else None,
            SpanKind.SERVER,
            {"http.request.method": method, "relay.request_id": request_id},
        )
        return RequestTrace(span, self._tracer, self._upstream_host, self._request_seconds, self._call_seconds)

    @asynccontextmanager
    async def running(self, read: Callable[[], Snapshot]) -> AsyncIterator[None]:
        """
        Send spans and numbers while the block runs, and what is left at its end.

        Args:
            read: The numbers of this worker; called in the loop.
        """
        own = Resource({"service.name": NAME, "service.instance.id": str(os.getpid())})
        resource = own.merge(OTELResourceDetector().detect())
        spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        numbers = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource, shutdown_on_exit=False
        )
        meter = numbers.get_meter(NAME)
        _observe(meter, partial(_read_in_loop, asyncio.get_running_loop(), read))
        self._request_seconds = _durations(meter, "http.server.request.duration")
        self._call_seconds = _durations(meter, "http.client.request.duration")
        self._tracer = spans.get_tracer(NAME)
        try:
            yield
        finally:
            self._tracer = trace.NoOpTracer()
            await _end(spans, numbers)


class RequestTrace:
    """One request in a trace."""

    def __init__(
        self,
        span: Span,
        tracer: Tracer,
        upstream_host: str,
        request_seconds: Histogram | None,
        call_seconds: Histogram | None,
    ) -> None:
        self._span = span
        self._tracer = tracer
        self._upstream_host = upstream_host
        self._request_seconds = request_seconds
        self._call_seconds = call_seconds

    def begin_call(self, operation: str) -> "CallTrace":
        """Begin the span of a call to the upstream."""
        span = self._tracer.start_span(
            f"{operation} upstream",
            trace.set_span_in_context(self._span),
            SpanKind.CLIENT,
            {"server.address": self._upstream_host, "relay.operation": operation},
        )
        return CallTrace(span, self._call_seconds, operation)

    def end(self, counts: OperationCounts, status: int, outcome: str, seconds: float) -> None:
        """End the span; its name is the operation's."""
        self._span.update_name(counts.operation)
        attributes: dict[str, Any] = {
            "relay.operation": counts.operation,
            "relay.bucket": counts.bucket,
            "relay.outcome": outcome,
        }
        _end_span(self._span, status, attributes, failed=status >= 500)
        if self._request_seconds is not None:
            self._request_seconds.record(seconds, {"relay.operation": counts.operation, **_status(status)})


class CallTrace:
    """One call to the upstream in a trace."""

    def __init__(self, span: Span, seconds: Histogram | None, operation: str) -> None:
        self._span = span
        self._seconds = seconds
        self._operation = operation

    @property
    def traceparent(self) -> str:
        """W3C Trace Context, version 00."""
        context = self._span.get_span_context()
        flags = int(context.trace_flags)
        return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags:02x}"

    def end(self, status: int, seconds: float) -> None:
        """End the span at the headers of the answer, or without one."""
        _end_span(self._span, status, {}, failed=not status or status >= 400)
        if self._seconds is not None:
            self._seconds.record(seconds, {"relay.operation": self._operation, **_status(status)})


def _end_span(span: Span, status: int, attributes: dict[str, Any], *, failed: bool) -> None:
    span.set_attributes({**attributes, **_status(status)})
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _status(status: int) -> dict[str, int]:
    return {"http.response.status_code": status} if status else {}


def _durations(meter: Meter, name: str) -> Histogram:
    return meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=DURATION_BOUNDS)


def _observe(meter: Meter, read: Callable[[], Snapshot]) -> None:
    """Offer counters and gauges as they are in `/metrics`; durations have instruments of their own."""
    for family in FAMILIES:
        if family.kind is Kind.HISTOGRAM:
            continue
        create = meter.create_observable_counter if family.kind is Kind.COUNTER else meter.create_observable_gauge
        callback = partial(_measured, read, family.name, family.labels)
        create(family.name.removesuffix("_total"), [callback], description=family.meaning)


def _measured(
    read: Callable[[], Snapshot], name: str, labels: Sequence[str], _options: CallbackOptions
) -> list[Measured]:
    samples = read().get(name, {})
    return [Measured(numbers[0], dict(zip(labels, values, strict=True))) for values, numbers in samples.items()]


def _read_in_loop(loop: asyncio.AbstractEventLoop, read: Callable[[], Snapshot]) -> Snapshot:
    """Numbers change in the loop only, so they are read there; nothing at all when it does not answer."""
    answer: Future[Snapshot] = Future()
    try:
        loop.call_soon_threadsafe(lambda: answer.set_result(read()))
        return answer.result(FLUSH_SECONDS)
    except (RuntimeError, TimeoutError):  # closed, or too busy
        return {}


async def _end(spans: TracerProvider, numbers: MeterProvider) -> None:
    """Send what is left; a collector that does not answer holds the end up for a moment only."""
    # Exporters try again for as long as they please, so they are left behind with the process.
    threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in (spans, numbers)]
    for thread in threads:
        thread.start()
    with suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_SECONDS):
            while any(thread.is_alive() for thread in threads):  # noqa: ASYNC110 - threads only say so
                await asyncio.sleep(POLL_SECONDS)
