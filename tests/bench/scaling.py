"""What a start of the relay and a second worker cost: measurements of the relay alone."""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.load import LoadFigures, probe, run_wrk, warm_up
from tests.bench.measuring import Window, pss_mb, rss_mb, worker_seconds
from tests.bench.processes import LOAD_CORE, START_SECONDS, WORKER_CORES, DidNotStart, inherited
from tests.bench.results import CPU_US, OTHERS, PER_SECOND, Results
from tests.bench.subjects import JSON_32, RELAY, RELAY_KEY, RELAY_TWO_WORKERS, UPSTREAM_KEY, Relay
from tests.bench.upstream import UpstreamUrls
from tests.bench.workloads import WORKLOADS
from tests.support.documents import ROOT

# Words of their own beside the workloads.
START = "start"
WORKERS = "workers"

READY_SECONDS = "s until ready"
RSS_MB = "MB resident"
PSS_MB = "MB, shared pages divided"
LOAD_CORES = "cores that load and upstream took"
LEAST_BUSY = "cores that the less busy worker took"
MOST_BUSY = "cores that the busier worker took"
CONTRACT_KB = "KB an operation"
IMPORTS_MB = "MB before the contract"
OPERATIONS = "operations"
IDLE_AFTER_SECONDS = 1.0


def measure_start(upstream: UpstreamUrls, folder: Path, results: Results) -> None:
    """How long the relay takes until it answers, and what it holds after its first request; one start."""
    with RELAY.start(upstream.replies, folder) as started:
        assert started.pid is not None
        assert started.ready_seconds is not None
        probe(started, JSON_32, WORKLOADS[JSON_32])
        time.sleep(IDLE_AFTER_SECONDS)
        results.add(RELAY.name, START, READY_SECONDS, started.ready_seconds)
        results.add(RELAY.name, START, RSS_MB, rss_mb(started.pid))
        results.add(RELAY.name, START, PSS_MB, pss_mb(started.pid))


def measure_contract(results: Results) -> None:
    """
    How much memory the contract takes, in a process that only binds it.

    Raises:
        DidNotStart: It could not be bound.
    """
    settings = {"OPENAI_API_KEY": UPSTREAM_KEY, "RELAY_KEY": RELAY_KEY, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bench.contract_memory"],
        env={**inherited(), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    if ended.returncode != 0:
        raise DidNotStart(ended.stderr[-2000:])
    told = json.loads(ended.stdout)
    results.add(RELAY.name, START, IMPORTS_MB, told["before"] / 1e6)
    results.add(RELAY.name, START, CONTRACT_KB, (told["after"] - told["before"]) / 1000 / told["operations"])
    results.add(RELAY.name, START, OPERATIONS, told["operations"])


def measure_workers(relay: Relay, upstream: UpstreamUrls, seconds: float, folder: Path, results: Results) -> None:
    """What a relay of so many workers answers, on a core for each, and who took how much of the cores; one pass."""
    with relay.start(upstream.replies, folder) as started:
        assert started.pid is not None
        workload = WORKLOADS[JSON_32]
        probe(started, JSON_32, workload)
        warm_up(started, JSON_32, workload, folder)
        before = worker_seconds(started.pid)
        with Window(started.pid, upstream.pids) as window:
            figures = run_wrk(started, JSON_32, workload, seconds, folder)
        shares = [(a - b) / window.seconds for a, b in zip(worker_seconds(started.pid), before, strict=True)]
        _note(relay, started.pid, results, figures, window)
        if shares:
            results.add(relay.name, WORKERS, LEAST_BUSY, min(shares))
            results.add(relay.name, WORKERS, MOST_BUSY, max(shares))


def scale(results: Results) -> float | None:
    """
    How many times one worker's requests two workers answer, for each core that load and upstream left to them.

    Returns:
        `None` when either was not measured. On a machine with a core to spare nothing is taken from the workers, and
        this is the ratio as it stands.
    """
    one = results.median(RELAY.name, WORKERS, PER_SECOND)
    two = results.median(RELAY_TWO_WORKERS.name, WORKERS, PER_SECOND)
    taken = results.median(RELAY_TWO_WORKERS.name, WORKERS, LOAD_CORES)
    if one is None or two is None or taken is None:
        return None
    left = len(WORKER_CORES) - (taken if LOAD_CORE in WORKER_CORES else 0.0)
    return two / one * len(WORKER_CORES) / left


def whole_ratio(results: Results) -> float | None:
    """The ratio as it stands, whatever load and upstream took."""
    one = results.median(RELAY.name, WORKERS, PER_SECOND)
    two = results.median(RELAY_TWO_WORKERS.name, WORKERS, PER_SECOND)
    return None if one is None or two is None else two / one


def cost_ratio(results: Results) -> float | None:
    """The ratio that the processor's work for a request would give, were both cores all theirs."""
    one = results.median(RELAY.name, WORKERS, CPU_US)
    two = results.median(RELAY_TWO_WORKERS.name, WORKERS, CPU_US)
    return None if one is None or not two else len(WORKER_CORES) * one / two


def _note(relay: Relay, pid: int, results: Results, figures: LoadFigures, window: Window) -> None:
    results.add(relay.name, WORKERS, PER_SECOND, figures.per_second)
    results.add(relay.name, WORKERS, CPU_US, window.subject_seconds / figures.requests * 1e6)
    results.add(relay.name, WORKERS, LOAD_CORES, window.load_seconds / window.seconds)
    results.add(relay.name, WORKERS, OTHERS, window.other_share)
    results.add(relay.name, WORKERS, RSS_MB, rss_mb(pid))
    results.add(relay.name, WORKERS, PSS_MB, pss_mb(pid))
