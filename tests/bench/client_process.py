"""Clients of the benchmark that run in a process of their own, on the load's core, and what they ask of a subject."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.bench.processes import LOAD_CORE, on_cores

_ROOT = Path(__file__).parents[2]


class ClientFailed(Exception):
    """A client could not measure: the subject refused, broke off or hung."""


class ProcessTree:
    """
    A subject's processes as they are now; cheap to ask, also in the middle of a measurement.

    Args:
        pid: Of their root; without one everything is `None`.
    """

    def __init__(self, pid: int | None) -> None:
        root = None if pid is None else psutil.Process(pid)
        self._processes = [] if root is None else [root, *root.children(recursive=True)]

    def cpu_seconds(self) -> float | None:
        """What they have used of the processor, user and system."""
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times) if times else None

    def rss_bytes(self) -> int | None:
        """What they hold in memory; shared pages count once for each."""
        return sum(process.memory_info().rss for process in self._processes) if self._processes else None


def run_client(module: str, plan: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """
    Run a module, give it a plan on its standard input (it may hold a key), and return what it prints.

    Raises:
        ClientFailed: With what the module said of it.
    """
    command = [sys.executable, "-m", module]
    try:
        with on_cores(LOAD_CORE):
            ended = subprocess.run(
                command,
                input=json.dumps(plan),
                capture_output=True,
                text=True,
                cwd=_ROOT,
                timeout=timeout_seconds,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ClientFailed(f"{module} took more than {timeout_seconds:.0f} s.") from None
    if ended.returncode:
        last = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise ClientFailed(f"{module}: {last[-1]}")
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer
