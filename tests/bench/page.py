"""The page of results: machine and method, the bars, everything measured, and what the figures cannot say."""

from collections.abc import Iterator, Sequence

from tests.bench.bars import Verdict
from tests.bench.capacity import capacity
from tests.bench.machine import Machine
from tests.bench.results import (
    CPU_US,
    FIRST_EVENT_MS,
    GROWTH_MIB,
    LOST,
    MB_PER_SECOND,
    MEMORY_MB,
    OTHERS,
    P50_MS,
    P99_MS,
    PER_SECOND,
    REORDERED,
    STREAM_MB,
    Results,
    Series,
)
from tests.bench.scaling import (
    CONTRACT_KB,
    IMPORTS_MB,
    LEAST_BUSY,
    LOAD_CORES,
    MOST_BUSY,
    OPERATIONS,
    PSS_MB,
    READY_SECONDS,
    RSS_MB,
    START,
    WORKERS,
    cost_ratio,
    scale,
    whole_ratio,
)
from tests.bench.session import Plan
from tests.bench.subjects import (
    DIRECT,
    DOWNLOAD,
    JSON_1,
    JSON_32,
    NGINX,
    PASS_THROUGH_AIOHTTP,
    PASS_THROUGH_TUNED,
    RELAY,
    RELAY_TWO_WORKERS,
    SSE,
    UPLOAD,
    Subject,
)
from tests.bench.workloads import WORKLOADS

HEADER = "<!-- Written by scripts/bench --docs; never edited. -->"
_STREAMS = 200


def render(
    results: Results, verdicts: Sequence[Verdict], subjects: Sequence[Subject], plan: Plan, machine: Machine
) -> str:
    """
    Write the page.

    Args:
        subjects: In the order of the tables; those without figures are passed over.
        machine: Where it was measured.
    """
    lines = [HEADER, "# Performance", "", *_introduction(plan, machine), "", "## Bars", "", *_bars(verdicts)]
    lines += ["", "## Requests", "", *_requests(results, subjects)]
    for title, rows in (
        ("Event streams", _streams(results, subjects)),
        ("Large files", _transfers(results, subjects)),
        ("One relay", _relay(results)),
        ("Capacity", capacity(results)),
    ):
        found = list(rows)
        if len(found) > 2:  # more than the head of the table
            lines += ["", f"## {title}", "", *found]
    lines += ["", "## What was measured", "", *_versions(results, subjects), "", "## Limits", "", *_limits(results)]
    return "\n".join(lines) + "\n"


def _introduction(plan: Plan, machine: Machine) -> Iterator[str]:
    yield f"Measured on {machine.text}, all on loopback."
    yield "Each subject runs on one core; load generator and upstream run on another. The upstream is nginx with fixed"
    yield "replies of the simulated upstream, and for streams a server of paced events."
    yield ""
    yield f"Figures are medians of {plan.passes} passes with their spread in brackets. In each pass every subject is"
    yield f"started anew and measured in turn, {plan.seconds:g} s a workload, the order rotated. CPU is user and system"
    yield "time of the subject's whole process tree, divided by the answered requests: it holds on a busy machine,"
    yield "where requests/s do not. The relay serves its whole contract with validation by one worker, and logs each"
    yield "request as JSON into a file."


def _bars(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "| Bar | Rule | Measured | |"
    yield "|---|---|---|---|"
    for verdict in verdicts:
        yield f"| {verdict.what} | {verdict.rule} | {verdict.measured} | {'met' if verdict.met else 'NOT MET'} |"


def _requests(results: Results, subjects: Sequence[Subject]) -> Iterator[str]:
    yield "| Workload | Subject | requests/s | p50 ms | p99 ms | CPU µs | memory MB | added ms |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, workload in WORKLOADS.items():
        base = results.median(DIRECT.name, name, P50_MS)
        for subject in subjects:
            p50 = results.of(subject.name, name, P50_MS)
            if p50 is None:
                continue
            cells = [
                _cell(results.of(subject.name, name, PER_SECOND), 0),
                _cell(p50, 2),
                _cell(results.of(subject.name, name, P99_MS), 2),
                _cell(results.of(subject.name, name, CPU_US), 0),
                _plain(results.median(subject.name, name, MEMORY_MB), 0),
                # With many connections the median is the queue's, not the subject's.
                _plain(p50.median - base, 2) if name == JSON_1 and base is not None and subject != DIRECT else "",
            ]
            yield f"| {workload.title} | {subject.title} | {' | '.join(cells)} |"


def _streams(results: Results, subjects: Sequence[Subject]) -> Iterator[str]:
    yield (
        f"| Subject | first event ms | CPU µs an event | events/s | delay p50 ms | delay p99 ms | lost | reordered "
        f"| MB a stream, {_STREAMS} open |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for subject in subjects:
        first = results.of(subject.name, SSE, FIRST_EVENT_MS)
        if first is None:
            continue
        cells = [
            _cell(first, 2),
            _cell(results.of(subject.name, SSE, CPU_US), 1),
            _cell(results.of(subject.name, SSE, PER_SECOND), 0),
            _cell(results.of(subject.name, SSE, P50_MS), 2),
            _cell(results.of(subject.name, SSE, P99_MS), 2),
            _worst(results.of(subject.name, SSE, LOST)),
            _worst(results.of(subject.name, SSE, REORDERED)),
            _plain(results.median(subject.name, SSE, STREAM_MB), 3),
        ]
        yield f"| {subject.title} | {' | '.join(cells)} |"


def _transfers(results: Results, subjects: Sequence[Subject]) -> Iterator[str]:
    yield "| Workload | Subject | MB/s | CPU ms | memory growth MiB |"
    yield "|---|---|---|---|---|"
    for name, title in ((UPLOAD, "64 MiB up, multipart"), (DOWNLOAD, "64 MiB down")):
        for subject in subjects:
            speed = results.of(subject.name, name, MB_PER_SECOND)
            if speed is None:
                continue
            cpu_us = results.median(subject.name, name, CPU_US)
            cells = [
                _cell(speed, 0),
                _plain(None if cpu_us is None else cpu_us / 1000, 0),
                _cell(results.of(subject.name, name, GROWTH_MIB), 1),
            ]
            yield f"| {title} | {subject.title} | {' | '.join(cells)} |"


def _relay(results: Results) -> Iterator[str]:
    yield "| What | Measured |"
    yield "|---|---|"
    for title, workload, subject, figure, digits in (
        ("from the start of its process to the first answer, s", START, RELAY, READY_SECONDS, 2),
        ("memory after the first request, MB resident", START, RELAY, RSS_MB, 1),
        ("the same, shared pages divided", START, RELAY, PSS_MB, 1),
        ("of that, before the contract is bound, MB resident", START, RELAY, IMPORTS_MB, 1),
        ("operations in the contract", START, RELAY, OPERATIONS, 0),
        ("memory of the contract, KB an operation", START, RELAY, CONTRACT_KB, 1),
        ("one worker: requests/s", WORKERS, RELAY, PER_SECOND, 0),
        ("one worker: CPU µs a request", WORKERS, RELAY, CPU_US, 0),
        ("one worker: cores that load and upstream took beside it", WORKERS, RELAY, LOAD_CORES, 2),
        ("two workers: requests/s of both", WORKERS, RELAY_TWO_WORKERS, PER_SECOND, 0),
        ("two workers: CPU µs a request", WORKERS, RELAY_TWO_WORKERS, CPU_US, 0),
        ("two workers: cores that load and upstream took", WORKERS, RELAY_TWO_WORKERS, LOAD_CORES, 2),
        ("two workers: cores that the less busy one took", WORKERS, RELAY_TWO_WORKERS, LEAST_BUSY, 2),
        ("two workers: cores that the busier one took", WORKERS, RELAY_TWO_WORKERS, MOST_BUSY, 2),
        ("two workers and their supervisor: MB resident", WORKERS, RELAY_TWO_WORKERS, RSS_MB, 1),
        ("the same, shared pages divided", WORKERS, RELAY_TWO_WORKERS, PSS_MB, 1),
    ):
        series = results.of(subject.name, workload, figure)
        if series is not None:
            yield f"| {title} | {_cell(series, digits)} |"
    for other in (PASS_THROUGH_TUNED, PASS_THROUGH_AIOHTTP, NGINX):
        own, base = results.median(RELAY.name, JSON_32, CPU_US), results.median(other.name, JSON_32, CPU_US)
        if own is not None and base is not None:
            yield f"| CPU of a small JSON request, 32 connections, by that of {other.title} | {own / base:.2f} times |"
    for title, value in (
        ("two workers by one, requests/s as they stand", whole_ratio(results)),
        ("two workers by one, for the cores that load and upstream left to them", scale(results)),
        ("two workers by one, by CPU a request alone, were both cores all theirs", cost_ratio(results)),
    ):
        if value is not None:
            yield f"| {title} | {value:.2f} times |"


def _versions(results: Results, subjects: Sequence[Subject]) -> Iterator[str]:
    for subject in subjects:
        if subject.title not in results.not_measured:
            yield f"- {subject.title}{f': {subject.version}' if subject.version else ''}"
    for what, reason in results.not_measured.items():
        yield f"- {what}: **not measured**: {reason}"


def _limits(results: Results) -> Iterator[str]:
    shares = [series.median for series in results.all_of(OTHERS)]
    yield "- Loopback has no latency and no loss: what a network adds, it adds to every subject alike."
    yield "- p50 and p99 with 32 connections are those of a saturated subject: mostly the time that requests wait."
    yield "- Direct requests stay on one core; those through a subject pay for waking another core as well."
    yield "- CPU does not show what the kernel does for a process outside of it, in interrupts for example."
    yield "- `proxy_pass` as it comes opens a connection for each request; the other nginx keeps them."
    yield "- Two workers need two cores, so on a machine of two they share one with load and upstream. The table has"
    yield "  the ratio as it stands, the one for the cores that load and upstream left, and the one by CPU alone."
    yield "- Memory of requests is that after each cell in the order of the table, with what the cells above left."
    if shares:
        yield f"- Processes that have nothing to do with it took {max(shares):.0%} of the machine in the busiest cell."


def _cell(series: Series | None, digits: int) -> str:
    if series is None:
        return ""
    if len(series.values) == 1:
        return _plain(series.median, digits)
    return f"{_plain(series.median, digits)} ({_plain(series.low, digits)} to {_plain(series.high, digits)})"


def _worst(series: Series | None) -> str:
    return "" if series is None else _plain(series.high, 0)


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
