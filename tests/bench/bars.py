"""The bars that the project has set itself, each with its figure; one without a figure is not met."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.results import (
    CPU_US,
    FIRST_EVENT_MS,
    GROWTH_MIB,
    LOST,
    MB_PER_SECOND,
    MEMORY_MB,
    P50_MS,
    REORDERED,
    Results,
)
from tests.bench.scaling import READY_SECONDS, RSS_MB, START, scale
from tests.bench.subjects import (
    DIRECT,
    DOWNLOAD,
    JSON_1,
    JSON_32,
    NGINX,
    NGINX_PLAIN,
    PASS_THROUGH,
    RELAY,
    SSE,
    UPLOAD,
)

# Of `tests.bench.peers`.
FASTAPI = "fastapi"
LITELLM = "litellm"
PORTKEY = "portkey"

Figure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Bar:
    """
    One thing that must hold.

    Args:
        what: What is held against it.
        limit: That the figure must not go beyond.
        figure: The measured value; `None` when it was not measured.
        unit: Stands behind the limit and the figure.
        at_least: The figure must not be below the limit instead of above.
    """

    what: str
    limit: float
    figure: Figure
    unit: str = ""
    at_least: bool = False
    digits: int = 2

    @property
    def rule(self) -> str:
        """As people read it."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:.3g}{self.unit}"


@dataclass(frozen=True)
class Verdict:
    """
    One line of the table of bars.

    Args:
        measured: The figure, or that there is none.
    """

    what: str
    rule: str
    measured: str
    met: bool


def cpu_ratio(other: str) -> Figure:
    """CPU of the relay for a small JSON request, by that of another subject."""

    def figure(results: Results) -> float | None:
        return _ratio(results.median(RELAY.name, JSON_32, CPU_US), results.median(other, JSON_32, CPU_US))

    return figure


def beyond(workload: str, measure: str) -> Figure:
    """A figure of the relay less that of the upstream asked directly."""

    def figure(results: Results) -> float | None:
        own = results.median(RELAY.name, workload, measure)
        base = results.median(DIRECT.name, workload, measure)
        return None if own is None or base is None else own - base

    return figure


def of_relay(workload: str, measure: str) -> Figure:
    """A figure of the relay as it stands."""
    return lambda results: results.median(RELAY.name, workload, measure)


def throughput_ratio(workload: str) -> Figure:
    """Throughput of the relay by that of nginx."""

    def figure(results: Results) -> float | None:
        own = results.median(RELAY.name, workload, MB_PER_SECOND)
        return _ratio(own, results.median(NGINX.name, workload, MB_PER_SECOND))

    return figure


def damage(results: Results) -> float | None:
    """Events that were lost or reordered, in the worst pass."""
    lost, reordered = results.of(RELAY.name, SSE, LOST), results.of(RELAY.name, SSE, REORDERED)
    return None if lost is None or reordered is None else lost.high + reordered.high


_CPU = "CPU of a small JSON request, 32 connections, by that of"
# In the order of the issue that set them.
BARS: tuple[Bar, ...] = (
    Bar(f"{_CPU} the bare pass-through, httpx types over aiohttp", 1.3, cpu_ratio(PASS_THROUGH.name), " times"),
    Bar(f"{_CPU} FastAPI and httpx", 1 / 10, cpu_ratio(FASTAPI), " times", digits=4),
    Bar(f"{_CPU} Portkey", 1 / 4, cpu_ratio(PORTKEY), " times", digits=4),
    Bar(f"{_CPU} LiteLLM", 1 / 30, cpu_ratio(LITELLM), " times", digits=4),
    Bar(f"{_CPU} nginx `proxy_pass` as it comes", 11, cpu_ratio(NGINX_PLAIN.name), " times"),
    Bar("median latency beyond direct, small JSON, 1 connection", 0.6, beyond(JSON_1, P50_MS), " ms", digits=3),
    Bar("first event of a stream beyond direct", 1, beyond(SSE, FIRST_EVENT_MS), " ms", digits=3),
    Bar("CPU of an event, 200 streams at once", 40, of_relay(SSE, CPU_US), " µs", digits=1),
    Bar("events lost or reordered, 200 streams at once, worst pass", 0, damage, digits=0),
    Bar("throughput of 64 MiB up, by nginx's", 0.5, throughput_ratio(UPLOAD), " times", at_least=True),
    Bar("throughput of 64 MiB down, by nginx's", 0.5, throughput_ratio(DOWNLOAD), " times", at_least=True),
    Bar("memory growth, 64 MiB up", 16, of_relay(UPLOAD, GROWTH_MIB), " MiB", digits=1),
    Bar("memory growth, 64 MiB down", 16, of_relay(DOWNLOAD, GROWTH_MIB), " MiB", digits=1),
    Bar("time until ready", 1.5, of_relay(START, READY_SECONDS), " s"),
    Bar("memory of a worker after its first request", 100, of_relay(START, RSS_MB), " MB", digits=1),
    Bar("memory of a worker after the load of small JSON", 100, of_relay(JSON_32, MEMORY_MB), " MB", digits=1),
    Bar("two workers by one, for the cores that were left to them", 1.8, scale, " times", at_least=True),
)


def judge(results: Results, bars: tuple[Bar, ...] = BARS) -> list[Verdict]:
    """Hold a run against its bars."""
    verdicts = []
    for bar in bars:
        value = bar.figure(results)
        if value is None:
            verdicts.append(Verdict(bar.what, bar.rule, "not measured", met=False))
            continue
        met = value >= bar.limit if bar.at_least else value <= bar.limit
        verdicts.append(Verdict(bar.what, bar.rule, f"{value:.{bar.digits}f}{bar.unit}", met))
    return verdicts


def _ratio(own: float | None, other: float | None) -> float | None:
    return None if own is None or not other else own / other
