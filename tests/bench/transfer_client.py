"""
The client of `tests.bench.transfers`, in a process of its own: large files up or down, over plain sockets.

Carries out the plan on its standard input and prints the figures as JSON.
"""

import contextlib
import http.client
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.bench.client_process import ClientFailed, ProcessTree

PIECE_BYTES = 2**20
SAMPLE_SECONDS = 0.01
QUIET_SECONDS = 30.0  # without a byte; a hang fails
_SHOWN_BYTES = 300
_PIECE = memoryview(bytes(range(256)) * (PIECE_BYTES // 256))


@dataclass(frozen=True)
class TransferFigures:
    """
    What came of the same transfer several times.

    Args:
        bytes_per_second: Of the file, from a request's first byte to its reply's last: the median.
        cpu_seconds: Of the subject's process tree for one transfer; `None` without one.
        growth_bytes: Of its resident memory at the highest, over what it was before the first transfer.
    """

    bytes_per_second: float
    cpu_seconds: float | None
    growth_bytes: int | None


class _Peak:
    """
    The highest resident memory of a subject while the block runs, sampled every `SAMPLE_SECONDS`.

    Args:
        tree: The subject's processes.
    """

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._before = tree.rss_bytes()
        self._highest = self._before

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def growth_bytes(self) -> int | None:
        """Above what it was before."""
        return None if self._before is None or self._highest is None else self._highest - self._before

    def _sample(self) -> None:
        while self._before is not None and not self._ended.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        now = self._tree.rss_bytes()
        if now is not None and self._highest is not None:
            self._highest = max(self._highest, now)


def transfer(address: tuple[str, int], plan: Mapping[str, Any]) -> float:
    """
    Make one transfer over a connection of its own.

    Returns:
        Seconds from the request's first byte to the reply's last.

    Raises:
        ClientFailed: As `exchange`.
    """
    with socket.create_connection(address, QUIET_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.monotonic()
        exchange(connection, plan)
        return time.monotonic() - began


def exchange(connection: socket.socket, plan: Mapping[str, Any]) -> None:
    """
    Send a request with `sent_bytes` between `head` and `tail`, and read a reply of `received_bytes` (`None`: of any).

    Raises:
        ClientFailed: The status is not 200, it came too early, or the reply has another length.
    """
    sent = False
    with contextlib.suppress(ConnectionError):  # a server that refuses early; its reply says why
        _send(connection, plan["head"].encode("latin-1"), plan["sent_bytes"], plan["tail"].encode("latin-1"))
        sent = True
    response = http.client.HTTPResponse(connection, method=plan["method"])
    response.begin()
    if response.status != 200:
        shown = " ".join(response.read(_SHOWN_BYTES).decode("utf-8", "replace").split())
        raise ClientFailed(f"The transfer was refused: status {response.status}, {shown}")
    if not sent:
        raise ClientFailed("The transfer was answered before all of it was sent.")
    received, expected = _receive(response), plan["received_bytes"]
    if expected is not None and received != expected:
        raise ClientFailed(f"{received} bytes came instead of {expected}.")


def _send(connection: socket.socket, head: bytes, size: int, tail: bytes) -> None:
    connection.sendall(head)
    while size:
        piece = _PIECE[:size]
        connection.sendall(piece)
        size -= len(piece)
    connection.sendall(tail)


def _receive(response: http.client.HTTPResponse) -> int:
    received = 0
    buffer = memoryview(bytearray(PIECE_BYTES))
    while count := response.readinto(buffer):
        received += count
    return received


def main() -> int:
    """
    Carry out the plan on the standard input and print the figures as JSON.

    Returns:
        Exit code: 0, or 1 when there are none; the last line of the standard error then says why.
    """
    plan = json.load(sys.stdin)
    parts = urlsplit(plan["url"])
    address = (str(parts.hostname), int(parts.port or 80))
    repetitions = plan["repetitions"]
    tree = ProcessTree(plan["pid"])
    try:
        if plan["warming"] is not None:
            transfer(address, plan["warming"])
        cpu_before = tree.cpu_seconds()
        with _Peak(tree) as peak:
            seconds = [transfer(address, plan["transfer"]) for _ in range(repetitions)]
        cpu_after = tree.cpu_seconds()
    except (ClientFailed, OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    cpu = None if cpu_before is None or cpu_after is None else (cpu_after - cpu_before) / repetitions
    figures = TransferFigures(plan["size"] / statistics.median(seconds), cpu, peak.growth_bytes)
    json.dump(asdict(figures), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
