"""
Measures a real relay against the bars that the project has set itself, and prints one Markdown table.

    scripts/measure

Everything runs on this machine: the relay in a process of its own, clients and the simulated upstream in this one.
"""

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.disconnects import BOUND_SECONDS, PHASES, leave_in_groups
from tests.support.servers import RelayProcess, ServerThread, running_relay, simulated_upstream
from tests.support.transfers import (
    GROWTH_LIMIT_MIB,
    MIB,
    PeakMemory,
    download,
    expected_sha256,
    upload,
)

READY_SECONDS = 1.5
IDLE_MB = 100.0  # megabytes of 10^6 bytes, resident
STARTS = 5
IDLE_AFTER_SECONDS = 1.0
LARGE_BYTES = 2**30
CLIENTS = 50


@dataclass(frozen=True)
class Row:
    """
    One line of the table.

    Args:
        met: `None` when the line is only information.
    """

    what: str
    measured: str
    bar: str
    met: bool | None


def measure_starts(folder: Path, upstream_url: str, environment: dict[str, str]) -> Iterator[Row]:
    """How long `relay serve` takes from the start of its process to the first 200 of /livez, and what it then holds."""
    seconds = []
    idle = []
    for _ in range(1 + STARTS):
        with running_relay(folder, upstream_url, environment) as relay:
            seconds.append(relay.started_seconds)
            time.sleep(IDLE_AFTER_SECONDS)
            idle.append(psutil.Process(relay.pid).memory_info().rss / 1e6)
    first, *others = seconds
    median = statistics.median(others)
    spread = f"{median:.2f} s ({min(others):.2f} to {max(others):.2f})"
    yield Row(f"ready, median of {STARTS} starts", spread, f"{READY_SECONDS:.1f} s", median < READY_SECONDS)
    yield Row("ready, first start, nothing compiled to bytecode", f"{first:.2f} s", "", None)
    highest = max(idle[1:])
    yield Row(f"idle memory, highest of {STARTS}", f"{highest:.1f} MB", f"{IDLE_MB:.0f} MB", highest < IDLE_MB)


def measure_transfers(relay: RelayProcess, upstream: SimulatedUpstream) -> Iterator[Row]:
    """How much the relay's memory grows at its peak while a large body passes, and whether that arrives whole."""
    upload(relay, MIB)
    download(relay, MIB)
    for name in ("up", "down"):
        memory = PeakMemory(relay.pid)
        began = time.monotonic()
        with memory:
            transfer = upload(relay, LARGE_BYTES) if name == "up" else download(relay, LARGE_BYTES)
        seconds = time.monotonic() - began
        record = upstream.recorder.requests[-1]
        arrived = record.body_sha256 if name == "up" else expected_sha256(LARGE_BYTES)
        whole = transfer.status == 200 and transfer.sha256 == arrived
        measured = f"{memory.growth_mib:.1f} MiB ({'whole' if whole else 'DAMAGED'}, {seconds:.1f} s)"
        met = whole and memory.growth_mib < GROWTH_LIMIT_MIB
        yield Row(f"memory growth, 1 GiB {name}", measured, f"{GROWTH_LIMIT_MIB} MiB", met)


def measure_disconnects(relay: RelayProcess, upstream: SimulatedUpstream) -> Iterator[Row]:
    """How long it takes until the upstream notices that a client has left, in every phase of a request."""
    for phase in PHASES:
        seconds = asyncio.run(leave_in_groups(phase, relay, upstream, clients=CLIENTS))
        noticed = [value for value in seconds if value != math.inf]
        slowest = max(noticed, default=0.0)
        measured = f"{len(noticed)} of {CLIENTS} cancelled, slowest {slowest * 1000:.1f} ms"
        every = len(noticed) == CLIENTS
        if phase.held_back:
            yield Row(f"clients leaving {phase.name}", measured, "all, once what is on its way is read", every)
        else:
            bar = f"all, {BOUND_SECONDS * 1000:.0f} ms"
            yield Row(f"clients leaving {phase.name}", measured, bar, every and slowest < BOUND_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Measure, print the table, and tell whether every bar is met.

    Returns:
        Exit code: 0 when all bars are met, 1 otherwise.
    """
    argparse.ArgumentParser(
        prog="scripts/measure",
        description="Measures a real relay before the simulated upstream on this machine: start, memory, large bodies, "
        "clients that leave. Takes about a minute and prints one Markdown table. "
        "Exit codes: 0 all bars are met, 1 one is not.",
    ).parse_args(arguments)
    met = True
    _say("| What | Measured | Bar | |\n|---|---|---|---|")
    for row in _rows():
        verdict = {True: "met", False: "NOT MET", None: ""}[row.met]
        _say(f"| {row.what} | {row.measured} | {row.bar} | {verdict} |")
        met = met and row.met is not False
    return 0 if met else 1


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command prints


def _rows() -> Iterator[Row]:
    upstream = simulated_upstream()
    with tempfile.TemporaryDirectory() as name, ServerThread(upstream) as server:
        folder = Path(name)
        # pip compiles what it installs; a folder of its own brings that state about, and the one before it, anywhere.
        compiled = {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        yield from measure_starts(folder, server.url, compiled)
        with running_relay(folder, server.url, compiled) as relay:
            yield from measure_transfers(relay, upstream)
            yield from measure_disconnects(relay, upstream)


if __name__ == "__main__":
    sys.exit(main())
