"""
Answers what the relay has counted: of this worker, or of all workers together.

Workers share nothing while they work. Each writes its numbers into a file of a private folder, now and then and before
it answers, so that no number that was ever told goes back when a worker dies.
"""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from handlers.runtime.circuit import CircuitState
from handlers.runtime.counts import OperationCounts
from handlers.runtime.metric_families import Samples, Snapshot, histogram_sample, merged
from handlers.runtime.metric_files import MetricFiles

if TYPE_CHECKING:
    from handlers.runtime.services import Services

PUBLISH_SECONDS = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEMORY = Path("/proc/self/statm")


class Metrics:
    """
    The numbers of one relay; `read` must have been given its services.

    Args:
        shared: Whether several workers of this relay, forked from this process, put theirs together.
    """

    def __init__(self, *, shared: bool = False) -> None:
        # Gone with the process that has made it; workers end without looking at it.
        self._folder = TemporaryDirectory(prefix="relay-metrics-") if shared else None
        self._files = MetricFiles(Path(self._folder.name)) if self._folder is not None else None
        self._services: Services | None = None
        self.started = time.time()

    def read(self, services: "Services") -> None:
        """Read the numbers of these services from now on."""
        self._services = services

    def own(self) -> Snapshot:
        """This worker alone."""
        if self._services is None:
            raise RuntimeError("`read` must come before the first number")
        return measure(self._services, self.started)

    def snapshot(self) -> Snapshot:
        """All workers together."""
        own = self.own()
        if self._files is None:
            return own
        self._files.write(own)
        running, ended = self._files.read_others()
        return merged([own, *running], ended)

    async def text(self) -> bytes:
        """All workers together, as Prometheus reads it."""
        # With every operation in use a megabyte, which takes 80 ms: too long for the loop.
        return await asyncio.to_thread(_text, self.snapshot())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write the numbers of this worker while the block runs, where there are others, and a last time at its end."""
        self.started = time.time()
        if self._files is None:
            yield
            return
        self._files.open(str(os.getpid()))
        self._files.write(self.own())
        writing = asyncio.create_task(self._keep_writing(self._files))
        try:
            yield
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            self._files.write(self.own())
            self._files.close()

    async def _keep_writing(self, files: MetricFiles) -> None:
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            files.write(self.own())


def measure(services: "Services", started: float) -> Snapshot:
    """
    Read what one worker has counted.

    Args:
        started: When it did, in seconds since 1970.
    """
    counts = services.counts
    asked = [operation for operation in counts.operations.values() if operation.requests or operation.upstream_calls]
    return {
        **_operations(asked),
        "relay_refusals_total": {(code,): [number] for code, number in counts.refusals.items()},
        "relay_refused_before_upstream_total": {
            (code,): [number] for code, number in counts.refused_before_upstream.items()
        },
        "relay_running_requests": _one(len(counts.active)),
        "relay_open_event_streams": _one(counts.event_streams),
        "relay_open_sockets": _one(counts.sockets),
        "relay_socket_ends_total": {labels: [number] for labels, number in counts.socket_ends.items()},
        **_upstream(services),
        "relay_readiness": {(name, state): [1] for name, state in services.readiness.checks().items()},
        "relay_draining": _one(int(services.admission.draining)),
        "relay_workers": _one(1),
        "relay_artifact_bytes": _one(services.artifacts.used_bytes),
        "relay_memory_bytes": _one(memory_bytes()),
        "relay_cpu_seconds_total": _one(_cpu_seconds()),
        "relay_start_time_seconds": _one(started),
        "relay_build_info": {(services.contract.version,): [1]},
    }


def memory_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return int(_MEMORY.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _text(snapshot: Snapshot) -> bytes:
    from handlers.runtime.metrics_text import metrics_text  # when first asked for: it takes 10 ms and 1 MB

    return metrics_text(snapshot)


def _operations(asked: list[OperationCounts]) -> Snapshot:
    requests: Samples = {
        (counts.operation, counts.bucket, outcome, status): [number]
        for counts in asked
        for (outcome, status), number in counts.requests.items()
    }
    return {
        "relay_requests_total": requests,
        "relay_request_duration_seconds": {(c.operation,): histogram_sample(c.duration) for c in asked},
        "relay_received_bytes_total": {(c.operation,): [c.bytes_in] for c in asked},
        "relay_sent_bytes_total": {(c.operation,): [c.bytes_out] for c in asked},
        "relay_tool_calls_total": {
            (c.operation, outcome): [number] for c in asked for outcome, number in c.inside.items()
        },
        "relay_upstream_calls_total": {
            (c.operation, status): [number] for c in asked for status, number in c.upstream_calls.items()
        },
        "relay_upstream_duration_seconds": {
            (c.operation,): histogram_sample(c.upstream_duration) for c in asked if c.upstream_calls
        },
        "relay_upstream_retries_total": {(c.operation,): [c.retries] for c in asked if c.upstream_calls},
    }


def _upstream(services: "Services") -> Snapshot:
    upstream = services.upstream
    return {
        "relay_upstream_slots_used": _one(upstream.slots.held),
        "relay_upstream_slots": _one(services.settings.RELAY_MAX_UPSTREAM_CONNECTIONS),
        "relay_upstream_waiting": _one(upstream.slots.waiting),
        "relay_upstream_circuit": {(state.value,): [int(state is upstream.circuit.state)] for state in CircuitState},
    }


def _one(number: float) -> Samples:
    return {(): [number]}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
