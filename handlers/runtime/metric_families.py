"""
The metrics that the relay has: names, labels and meanings, and how those of several workers add up.

The table in `docs/operations.md`, the dashboard and the alert rules are held against this list.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import add

from handlers.runtime.counts import Histogram

# What stands behind a name: the numbers of each combination of labels; of a histogram its numbers, then its seconds.
Samples = dict[tuple[str, ...], list[float]]
Snapshot = dict[str, Samples]


class Kind(StrEnum):
    """What may be done with the numbers."""

    COUNTER = "counter"  # only grows
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """
    One metric.

    Args:
        name: As in queries; counters end in `_total`.
        labels: Their values come from the contract or from lists in this program, so there are few.
        meaning: One sentence.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
FAMILIES = (
    Family(
        "relay_requests_total",
        _C,
        ("operation", "bucket", "outcome", "status"),
        "Requests that are over; `status` is the class, empty where nobody was left to answer.",
    ),
    Family(
        "relay_request_duration_seconds", _H, ("operation",), "From the headers of a request to the end of its reply."
    ),
    Family("relay_received_bytes_total", _C, ("operation",), "Bodies and socket messages from clients."),
    Family("relay_sent_bytes_total", _C, ("operation",), "Bodies and socket messages to clients."),
    Family("relay_refusals_total", _C, ("code",), "Requests that ended with an error of the relay's own, by its code."),
    Family(
        "relay_refused_before_upstream_total",
        _C,
        ("code",),
        "Those of them that have not cost a single call to the upstream.",
    ),
    Family(
        "relay_tool_calls_total", _C, ("operation", "outcome"), "Requests that came from inside, as calls of MCP tools."
    ),
    Family("relay_running_requests", _G, (), "Requests that are being worked on, calls of tools included."),
    Family("relay_open_event_streams", _G, (), "Event streams that are being sent."),
    Family("relay_open_sockets", _G, (), "Sockets that are open."),
    Family("relay_socket_ends_total", _C, ("cause", "close_code"), "Sockets that are over."),
    Family(
        "relay_upstream_calls_total",
        _C,
        ("operation", "status"),
        "Calls to the upstream, repetitions included; `failed` where no status came back.",
    ),
    Family("relay_upstream_duration_seconds", _H, ("operation",), "From a call to the headers of its answer."),
    Family("relay_upstream_retries_total", _C, ("operation",), "Calls that repeat one which failed."),
    Family("relay_upstream_slots_used", _G, (), "Calls to the upstream under way, streams included."),
    Family("relay_upstream_slots", _G, (), "How many there may be, all workers together."),
    Family("relay_upstream_waiting", _G, (), "Calls that wait for their turn."),
    Family("relay_upstream_circuit", _G, ("state",), "Workers whose circuit to the upstream is in this state."),
    Family("relay_readiness", _G, ("check", "state"), "Workers by the state of each check of `/readyz`."),
    Family("relay_draining", _G, (), "Workers that finish what they have and take nothing new."),
    Family("relay_workers", _G, (), "Workers that run."),
    Family("relay_artifact_bytes", _G, (), "What files for assistants take in their store."),
    Family("relay_memory_bytes", _G, (), "Resident memory of all workers."),
    Family("relay_cpu_seconds_total", _C, (), "User and system time of all workers, ended ones included."),
    Family("relay_start_time_seconds", _G, (), "When the oldest running worker started, in seconds since 1970."),
    Family("relay_build_info", _G, ("version",), "Always 1; the label is the contract's version."),
)
BY_NAME = {family.name: family for family in FAMILIES}
# Of several workers the sum makes no sense here: the first one's start, and stores that all of them share.
_ADDED_OTHERWISE: Mapping[str, Callable[[float, float], float]] = {
    "relay_start_time_seconds": min,
    "relay_build_info": min,
    "relay_artifact_bytes": max,
}


def histogram_sample(histogram: Histogram) -> list[float]:
    """A histogram as it stands in a snapshot."""
    return [*histogram.numbers, histogram.seconds]


def merged(running: Iterable[Snapshot], ended: Iterable[Snapshot] = ()) -> Snapshot:
    """
    Add workers up.

    Args:
        running: All of theirs counts.
        ended: Their counters and histograms go on counting, or they would go backwards; their gauges are over.
    """
    whole: Snapshot = {}
    for snapshots, kinds in ((running, tuple(Kind)), (ended, (Kind.COUNTER, Kind.HISTOGRAM))):
        for snapshot in snapshots:
            for name, samples in snapshot.items():
                family = BY_NAME.get(name)
                if family is not None and family.kind in kinds:
                    _add(whole.setdefault(name, {}), samples, _ADDED_OTHERWISE.get(name, add))
    return whole


def _add(
    whole: Samples, samples: Mapping[tuple[str, ...], list[float]], together: Callable[[float, float], float]
) -> None:
    for labels, numbers in samples.items():
        known = whole.get(labels)
        whole[labels] = [*numbers] if known is None else [*map(together, known, numbers)]
