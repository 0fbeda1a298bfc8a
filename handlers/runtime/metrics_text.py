"""
Writes numbers as Prometheus reads them.

Imported when they are first asked for: a relay that nobody scrapes does without the library.
"""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from handlers.runtime.counts import DURATION_BOUNDS
from handlers.runtime.metric_families import FAMILIES, Family, Kind, Samples, Snapshot

__all__ = ["CONTENT_TYPE", "metrics_text"]


def metrics_text(snapshot: Snapshot) -> bytes:
    """
    Write a snapshot as Prometheus reads it.

    Returns:
        Its text format; every family is there, also those without a sample.
    """
    return generate_latest(_Written(snapshot))


class _Written(Collector):
    """A registry of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield _metric(family, self._snapshot.get(family.name, {}))


def _metric(family: Family, samples: Samples) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        written = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, (*numbers, seconds) in samples.items():
            written.add_metric(labels, _cumulative(numbers), seconds)
        return written
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    plain = kind(family.name, family.meaning, labels=family.labels)
    for labels, (number,) in samples.items():
        plain.add_metric(labels, number)
    return plain


def _cumulative(numbers: list[float]) -> list[tuple[str, float]]:
    total = 0.0
    buckets = []
    for bound, number in zip([*map(str, DURATION_BOUNDS), "+Inf"], numbers, strict=True):
        total += number
        buckets.append((bound, total))
    return buckets
