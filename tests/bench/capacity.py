"""
What one worker holds, and how many a team needs: a model of measured unit costs, linear and nothing more.

Each request and each event costs what it was measured to cost; what waits for the upstream takes a slot and memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from handlers.runtime.settings import Settings
from tests.bench.results import CPU_US, MEMORY_MB, STREAM_MB, Results
from tests.bench.scaling import scale
from tests.bench.subjects import JSON_32, RELAY, SSE

# What is assumed, and stands on the page; everything else is measured.
BUSY_SHARE = 0.6  # of a core: beyond that, requests begin to wait for each other
EVENTS_PER_SECOND = 30  # of one stream: models write some 30 to 100 tokens a second
ANSWER_SECONDS = 10.0  # of the upstream, for a request without a stream
# Requests a second without a stream, and streams open at once.
LOADS = ((10, 50), (100, 500), (1000, 5000))


@dataclass(frozen=True)
class UnitCosts:
    """
    What was measured.

    Args:
        request_us: Of the processor, for a small JSON request.
        event_us: The same for an event.
        worker_mb: Of a worker after load.
        stream_mb: Of an open stream.
        scaling: What a second worker adds, of a first one's.
    """

    request_us: float
    event_us: float
    worker_mb: float
    stream_mb: float
    scaling: float

    @classmethod
    def of(cls, results: Results) -> "UnitCosts | None":
        """`None` where one of them was not measured."""
        request_us = results.median(RELAY.name, JSON_32, CPU_US)
        event_us = results.median(RELAY.name, SSE, CPU_US)
        worker_mb = results.median(RELAY.name, JSON_32, MEMORY_MB)
        stream_mb = results.median(RELAY.name, SSE, STREAM_MB)
        scaled = scale(results)
        if request_us is None or event_us is None or worker_mb is None or stream_mb is None or scaled is None:
            return None
        return cls(request_us, event_us, worker_mb, stream_mb, min(1.0, scaled / 2))

    @property
    def requests_per_second(self) -> float:
        """Of one worker that does nothing else."""
        return BUSY_SHARE * 1e6 / self.request_us

    @property
    def streams(self) -> int:
        """Open at once in one worker that does nothing else, by the processor's work alone."""
        return int(BUSY_SHARE * 1e6 / (EVENTS_PER_SECOND * self.event_us))

    def workers(self, requests_per_second: float, streams: int) -> int:
        """How many workers the processor's work of a load takes."""
        work_us = requests_per_second * self.request_us + streams * EVENTS_PER_SECOND * self.event_us
        return math.ceil(work_us / (BUSY_SHARE * 1e6 * self.scaling))


def calls_under_way(requests_per_second: float, streams: int) -> int:
    """How many calls to the upstream a load has under way, each in a slot of its own."""
    return round(requests_per_second * ANSWER_SECONDS) + streams


def slots_per_worker() -> int:
    """How many calls to the upstream a worker has under way at most, as it comes."""
    default: int = Settings.model_fields["RELAY_MAX_UPSTREAM_CONNECTIONS"].default
    return default


def capacity(results: Results) -> Iterator[str]:
    """The section of the page; nothing where a cost is missing."""
    costs = UnitCosts.of(results)
    if costs is None:
        return
    slots = slots_per_worker()
    yield f"A model, not a measurement: a worker is one process on one core, kept at most {BUSY_SHARE:.0%} busy; a"
    yield f"stream has {EVENTS_PER_SECOND} events a second; an answer without a stream takes the upstream"
    yield f"{ANSWER_SECONDS:g} s; costs are the medians above and add up. A further worker counts {costs.scaling:.2f},"
    yield "as measured. What waits for the upstream holds a slot: where the table asks for more of them than"
    yield f"`RELAY_MAX_UPSTREAM_CONNECTIONS` allows a worker ({slots} as it comes), raise it, or run more workers."
    yield ""
    yield "| One worker that does nothing else | |"
    yield "|---|---|"
    yield f"| small JSON, requests/s | {costs.requests_per_second:,.0f} |"
    yield f"| event streams open at once, by the processor | {costs.streams:,} |"
    yield f"| the same as it comes, by slots | {slots:,} |"
    yield f"| memory, MB, without streams | {costs.worker_mb:.0f} |"
    yield f"| memory, MB, with {slots} streams | {costs.worker_mb + slots * costs.stream_mb:.0f} |"
    yield ""
    yield "| Requests/s | Streams | Workers | Slots of each | Replicas of 4 workers, one to spare | Memory, GB |"
    yield "|---|---|---|---|---|---|"
    for requests_per_second, streams in LOADS:
        workers = costs.workers(requests_per_second, streams)
        calls = calls_under_way(requests_per_second, streams)
        replicas = math.ceil(workers / 4) + 1
        memory_gb = (replicas * 4 * costs.worker_mb + calls * costs.stream_mb) / 1000
        yield (
            f"| {requests_per_second:,} | {streams:,} | {workers} | {math.ceil(calls / workers):,} "
            f"| {replicas} | {memory_gb:.1f} |"
        )
    yield ""
    yield "Replicas share nothing but the store and the folder of files (`docs/deployment.md`), so a fleet adds up like"
    yield "workers do. What it cannot add is upstream's own limits for the team's account."
