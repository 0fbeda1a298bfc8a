"""One run of the benchmark: installs, passes over all subjects in turn, and the measurements that have no rivals."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client_process import ClientFailed
from tests.bench.load import LoadFailed, probe, run_wrk, warm_up
from tests.bench.measuring import Window, rss_mb
from tests.bench.processes import LOAD_CORE, DidNotStart, on_cores
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
    rotated,
)
from tests.bench.scaling import START, WORKERS, measure_contract, measure_start, measure_workers
from tests.bench.streams import measure_streams
from tests.bench.subjects import (
    DOWNLOAD,
    RELAY,
    RELAY_TWO_WORKERS,
    SSE,
    UPLOAD,
    Relay,
    Started,
    Subject,
)
from tests.bench.tools import CannotInstall, Tools
from tests.bench.transfer_client import TransferFigures
from tests.bench.transfers import measure_download, measure_upload
from tests.bench.upstream import UpstreamUrls, running_upstream
from tests.bench.workloads import WORKLOADS

MIB = 2**20
# All workloads, in the order of a pass and of the page.
ORDER = (*WORKLOADS, SSE, UPLOAD, DOWNLOAD)
EXTRAS = (START, WORKERS)


@dataclass(frozen=True)
class Plan:
    """
    What is measured, and how long.

    Args:
        cells: Name of a subject to its workloads.
        extras: Of `EXTRAS`.
        seconds: Of each cell of wrk.
        events: Of each of the streams that are open at once.
        repetitions: Of each transfer in a pass.
        starts: Of the relay, for its time to be ready.
    """

    cells: dict[str, frozenset[str]]
    extras: frozenset[str]
    passes: int
    seconds: float
    events: int
    repetitions: int
    starts: int


class Session:
    """
    Carries a plan out.

    Args:
        subjects: Those that the plan names; others are left alone.
        say: Tells people how far it is.
    """

    def __init__(self, plan: Plan, subjects: Sequence[Subject], tools: Tools, say: Callable[[str], None]) -> None:
        self.results = Results()
        self._plan = plan
        self._subjects = [subject for subject in subjects if plan.cells.get(subject.name)]
        self._refused: dict[str, set[str]] = {subject.name: set() for subject in subjects}  # workloads
        self._tools = tools
        self._say = say

    def install(self) -> None:
        """
        Install what it takes; a subject that cannot be installed is left out and named.

        Raises:
            CannotInstall: Without wrk and nginx nothing can be measured.
        """
        self._tools.debian("wrk", "wrk")
        self._tools.debian("nginx", "nginx-light")
        for subject in tuple(self._subjects):
            try:
                subject.install(self._tools)
            except CannotInstall as error:
                self._leave_out(subject, str(error))

    def run(self) -> Results:
        """
        Measure everything.

        Raises:
            DidNotStart, LoadFailed, ClientFailed: The relay, or the upstream; another subject is left out and named.
        """
        # What starts, polls and reads must not do so on the subject's core.
        with on_cores(LOAD_CORE), tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            with running_upstream(_new(folder, "upstream")) as upstream:
                for number in range(self._plan.passes):
                    for subject in rotated(self._subjects, number):
                        self._say(f"pass {number + 1} of {self._plan.passes}: {subject.name}")
                        self._measure(subject, upstream, _new(folder, f"{subject.name}-{number}"))
                    if WORKERS in self._plan.extras:
                        for relay in rotated((RELAY, RELAY_TWO_WORKERS), number):
                            self._say(f"pass {number + 1} of {self._plan.passes}: workers, {relay.workers}")
                            workers_folder = _new(folder, f"workers-{relay.workers}-{number}")
                            measure_workers(relay, upstream, self._plan.seconds, workers_folder, self.results)
                if START in self._plan.extras:
                    for number in range(self._plan.starts):
                        self._say(f"start {number + 1} of {self._plan.starts}")
                        measure_start(upstream, _new(folder, f"start-{number}"), self.results)
                        measure_contract(self.results)
        return self.results

    def _measure(self, subject: Subject, upstream: UpstreamUrls, folder: Path) -> None:
        """One pass of one subject."""
        wanted = self._plan.cells[subject.name] & subject.workloads - self._refused[subject.name]
        try:
            if wanted & WORKLOADS.keys():
                with subject.start(upstream.replies, _new(folder, "replies")) as started:
                    names = [name for name in WORKLOADS if name in wanted]
                    for name in names:
                        with self._may_refuse(subject, name):
                            probe(started, name, WORKLOADS[name])
                            warm_up(started, name, WORKLOADS[name], folder, first=name == names[0])
                            self._measure_requests(subject, started, name, upstream, folder)
            # Each anew: memory that a load before has left free would hide growth.
            for name, measure in ((UPLOAD, measure_upload), (DOWNLOAD, measure_download)):
                if name in wanted:
                    with (
                        self._may_refuse(subject, name),
                        subject.start(upstream.replies, _new(folder, name)) as started,
                    ):
                        self._add_transfer(subject, name, measure(started, repetitions=self._plan.repetitions))
            if SSE in wanted:
                with self._may_refuse(subject, SSE), subject.start(upstream.events, _new(folder, SSE)) as started:
                    self._measure_streams(subject, started)
        except DidNotStart as error:
            if isinstance(subject, Relay):
                raise
            self._leave_out(subject, str(error))

    @contextmanager
    def _may_refuse(self, subject: Subject, workload: str) -> Iterator[None]:
        """What others do not pass on is left out and named; what the relay does not is an error."""
        try:
            yield
        except (LoadFailed, ClientFailed) as error:
            if isinstance(subject, Relay):
                raise
            self._say(f"    {workload} is left out: {error}")
            self.results.not_measured[f"{subject.title}, {workload}"] = _first_line(error)
            self._refused[subject.name].add(workload)

    def _measure_requests(
        self, subject: Subject, started: Started, name: str, upstream: UpstreamUrls, folder: Path
    ) -> None:
        with Window(started.pid, upstream.pids) as window:
            figures = run_wrk(started, name, WORKLOADS[name], self._plan.seconds, folder)
        told = f"{figures.per_second:8.0f}/s  p50 {figures.p50_ms:.2f} ms"
        self._add(subject, name, {PER_SECOND: figures.per_second, P50_MS: figures.p50_ms, P99_MS: figures.p99_ms})
        self._add(subject, name, {OTHERS: window.other_share})
        if started.pid is not None:
            cpu_us = window.subject_seconds / figures.requests * 1e6
            told += f"  {cpu_us:.0f} µs"
            self._add(subject, name, {CPU_US: cpu_us, MEMORY_MB: rss_mb(started.pid)})
        self._say(f"    {name:12} {told}")

    def _add_transfer(self, subject: Subject, name: str, figures: TransferFigures) -> None:
        self._say(f"    {name:12} {figures.bytes_per_second / 1e6:8.0f} MB/s")
        self._add(subject, name, {MB_PER_SECOND: figures.bytes_per_second / 1e6})
        if figures.growth_bytes is not None:
            self._add(subject, name, {GROWTH_MIB: figures.growth_bytes / MIB})
        if figures.cpu_seconds is not None:
            self._add(subject, name, {CPU_US: figures.cpu_seconds * 1e6})

    def _measure_streams(self, subject: Subject, started: Started) -> None:
        figures = measure_streams(started, events=self._plan.events)
        first_ms = figures.first_event_seconds * 1000
        self._say(f"    {SSE:12} first event {first_ms:.2f} ms, {figures.lost} lost, {figures.disordered} reordered")
        lost = figures.lost + figures.unfinished
        self._add(subject, SSE, {FIRST_EVENT_MS: first_ms, LOST: lost, REORDERED: figures.disordered})
        self._add(subject, SSE, {PER_SECOND: figures.events_per_second})
        self._add(subject, SSE, {P50_MS: figures.delay_p50_seconds * 1000, P99_MS: figures.delay_p99_seconds * 1000})
        if figures.cpu_seconds_per_event is not None:
            self._add(subject, SSE, {CPU_US: figures.cpu_seconds_per_event * 1e6})
        if figures.growth_bytes_per_stream is not None:
            self._add(subject, SSE, {STREAM_MB: figures.growth_bytes_per_stream / 1e6})

    def _add(self, subject: Subject, workload: str, figures: dict[str, float]) -> None:
        for figure, value in figures.items():
            self.results.add(subject.name, workload, figure, value)

    def _leave_out(self, subject: Subject, reason: str) -> None:
        self._say(f"    {subject.name} is left out: {reason}")
        self.results.not_measured[subject.title] = _first_line(reason)
        self._subjects = [other for other in self._subjects if other is not subject]


def _first_line(reason: object) -> str:
    return next(iter(str(reason).strip().splitlines()), "no reason was told")


def _new(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    return folder
