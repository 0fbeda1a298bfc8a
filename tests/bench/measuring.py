"""What a measurement uses of the processor and of memory: the subject's processes, the load's, and everybody else's."""

import resource
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import psutil

from tests.bench.client_process import ProcessTree
from tests.bench.processes import CORES


class Window:
    """
    The processor's work while the block runs; tools that ran and ended within it count as the load's.

    Args:
        pid: Of the root of the subject's process tree.
        load_pids: Of servers that belong to the load.

    Attributes:
        seconds: How long it took.
        subject_seconds: Of the processor, user and system; 0 without a subject.
        load_seconds: The same for the load.
        other_share: Of all cores, what processes took that have nothing to do with the measurement.
    """

    def __init__(self, pid: int | None, load_pids: Iterable[int] = ()) -> None:
        self._subject = ProcessTree(pid)
        self._load = [ProcessTree(load_pid) for load_pid in load_pids]
        self.seconds = self.subject_seconds = self.load_seconds = self.other_share = 0.0

    def __enter__(self) -> Self:
        self._began = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._read()
        self.seconds, self.subject_seconds, self.load_seconds, busy_seconds = (
            after - before for before, after in zip(self._began, ended, strict=True)
        )
        others = busy_seconds - self.subject_seconds - self.load_seconds
        self.other_share = max(0.0, others / self.seconds / CORES)

    def _read(self) -> tuple[float, float, float, float]:
        load = sum(tree.cpu_seconds() or 0.0 for tree in self._load)
        for whose in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF):
            used = resource.getrusage(whose)
            load += used.ru_utime + used.ru_stime
        times = psutil.cpu_times()
        busy = times.user + times.system + times.nice + times.irq + times.softirq
        return time.monotonic(), self._subject.cpu_seconds() or 0.0, load, busy


def rss_mb(pid: int) -> float:
    """Resident memory of a process tree in megabytes of 10^6 bytes; shared pages count in each process."""
    return sum(process.memory_info().rss for process in _tree(pid)) / 1e6


def pss_mb(pid: int) -> float:
    """The same, where pages that processes share are divided among them."""
    return sum(process.memory_full_info().pss for process in _tree(pid)) / 1e6


def worker_seconds(pid: int) -> list[float]:
    """What each child of a process has used of the processor."""
    return [sum(child.cpu_times()[:2]) for child in psutil.Process(pid).children()]


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
