"""
Brings one fault after the other about around a real relay, and prints what it did as one Markdown table.

    scripts/chaos [--disconnects | --streams] [--only TEXT]

Everything runs on loopback and ends by itself.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support.chaos_bench import GROWTH_LIMIT_MIB, Fault, Line, a_bench
from tests.support.chaos_clients import FAULTS as CLIENT_FAULTS
from tests.support.chaos_disks import DISK_FAULTS
from tests.support.chaos_processes import PROCESS_FAULTS, process_line
from tests.support.chaos_upstream import FAULTS as UPSTREAM_FAULTS
from tests.support.disconnect_matrix import Result, cells, leave_in_cell, matrix_text
from tests.support.disconnects import BOUND_SECONDS
from tests.support.servers import ServerThread, running_relay, simulated_upstream
from tests.support.stream_load import SECONDS, stream_lines

RUNS = 100
HEAD = "| Fault | Expected | Observed | |\n|---|---|---|---|"


def one_relay(faults: Iterable[Fault]) -> Iterator[Line]:
    """Put faults to one relay that lives through all of them."""
    with tempfile.TemporaryDirectory() as name, a_bench(Path(name)) as bench:
        for fault in faults:
            yield bench.put(fault)
        growth = bench.growth_mib
        expected = f"memory grown by less than {GROWTH_LIMIT_MIB} MiB"
        yield Line("all of these, one after the other", expected, f"{growth:.1f} MiB", growth < GROWTH_LIMIT_MIB)


def all_lines(part_of_name: str = "") -> Iterator[Line]:
    """The whole report, or those lines whose fault has this in its name."""
    faults = [fault for fault in (*UPSTREAM_FAULTS, *CLIENT_FAULTS) if part_of_name in fault.name]
    if faults:
        yield from one_relay(faults)
    for name, expected, work in (*PROCESS_FAULTS, *DISK_FAULTS):
        if part_of_name in name:
            yield process_line(name, expected, work)


def disconnect_results(runs: int) -> list[Result]:
    """Clients that leave in each phase of each kind of call, so often each."""
    upstream = simulated_upstream()
    with (
        tempfile.TemporaryDirectory() as name,
        ServerThread(upstream) as server,
        running_relay(Path(name), server.url) as relay,
    ):
        return [asyncio.run(leave_in_cell(cell, relay, upstream, server.url, runs)) for cell in cells()]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the faults, print the table, and tell whether every line is as expected.

    Returns:
        Exit code: 0 when all lines are, 1 otherwise.
    """
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Faults of the upstream, of clients and of the machine around a real relay on loopback, each with "
        "what is expected and what was observed, as one Markdown table. Takes about two minutes; clock jumps need "
        "libfaketime and full disks root, else those lines say that they are left out. "
        "Exit codes: 0 every line is as expected, 1 one is not.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--disconnects", action="store_true", help="instead: clients that leave, in every phase")
    which.add_argument("--streams", action="store_true", help="instead: many event streams at once")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each cell with --disconnects; {RUNS} by default")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"that --streams takes; {SECONDS} by default")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose name holds this")
    chosen = parser.parse_args(arguments)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # the upstream double goes on writing to clients that left
    began = time.monotonic()
    if chosen.disconnects:
        results = disconnect_results(chosen.runs)
        _say(matrix_text(results))
        met = all(result.met for result in results)
        _say(f"\nEach within {BOUND_SECONDS * 1000:.0f} ms and nothing left: {'ok' if met else 'NOT OK'}.")
    else:
        met = True
        _say(HEAD)
        for line in stream_lines(seconds=chosen.seconds) if chosen.streams else all_lines(chosen.only):
            _say(str(line))
            met = met and line.ok is not False
    _say(f"\n{time.monotonic() - began:.0f} s.")
    return 0 if met else 1


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command prints


if __name__ == "__main__":
    sys.exit(main())
