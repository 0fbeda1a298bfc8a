"""What was measured: figures of cells, one for each pass, their medians and spreads, and the order of a pass."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")

# Figures of a cell, by what they are and their unit.
PER_SECOND = "requests/s"
P50_MS = "p50 ms"
P99_MS = "p99 ms"
CPU_US = "CPU µs"  # for one request, or one event
MEMORY_MB = "MB"  # of 10^6 bytes, resident, right after the load
GROWTH_MIB = "growth MiB"
STREAM_MB = "MB a stream"
OTHERS = "share of the machine that others took"
FIRST_EVENT_MS = "first event ms"
LOST = "lost events"
REORDERED = "reordered events"
MB_PER_SECOND = "MB/s"


@dataclass(frozen=True)
class Series:
    """One figure over all passes."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)


@dataclass
class Results:
    """All figures of a run, and what was not measured."""

    not_measured: dict[str, str] = field(default_factory=dict)  # title of a subject, or one with a workload: reason
    _values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def add(self, subject: str, workload: str, figure: str, value: float) -> None:
        """Add the figure of one pass."""
        self._values.setdefault((subject, workload, figure), []).append(value)

    def of(self, subject: str, workload: str, figure: str) -> Series | None:
        """The figure of all passes; `None` when it was not measured."""
        values = self._values.get((subject, workload, figure))
        return Series(tuple(values)) if values else None

    def median(self, subject: str, workload: str, figure: str) -> float | None:
        """The median of all passes; `None` when it was not measured."""
        series = self.of(subject, workload, figure)
        return None if series is None else series.median

    def all_of(self, figure: str) -> list[Series]:
        """One figure of all cells that have it."""
        return [Series(tuple(values)) for (_, _, name), values in self._values.items() if name == figure]


def rotated(items: Sequence[Item], number: int) -> list[Item]:
    """The order of one pass: each begins with the next one, so that none always runs behind the same other."""
    if not items:
        return []
    start = number % len(items)
    return [*items[start:], *items[:start]]
