"""
The client of `tests.bench.streams`, in a process of its own: streams one after another, then many at once.

Carries out the plan on its standard input and prints the figures as JSON.
"""

import asyncio
import gc
import json
import socket
import statistics
import sys
import time
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from tests.bench.client_process import ClientFailed, ProcessTree
from tests.bench.event_reader import EventReader

WARMING = 5  # single streams that do not count
OPENING_SECONDS = 0.5  # over which the many come
QUIET_SECONDS = 30.0  # without a byte; a hang fails
_RECEIVE_BYTES = 65_536


@dataclass(frozen=True)
class StreamFigures:
    """
    What came of it. Delays and costs are those while all streams were open.

    Args:
        first_event_seconds: From a request's last byte to the first event, one stream after another: the median.
        steady: Whether all streams were ever open at once; otherwise delays and costs are those of the whole run.
        delay_p50_seconds: From making an event to its arrival, the upstream's and the client's part included.
        expected: How many events the upstream was asked for.
        lost: How many of them did not come.
        disordered: How many came after one that was made later, or twice.
        unfinished: How many streams had no proper end.
        events_per_second: That arrived.
        events_per_read: That arrived at a time; above 1 a subject lags and saves work by passing several on in one.
        cpu_seconds_per_event: Of the subject's process tree; `None` without one.
        growth_bytes_per_stream: Of its resident memory; says something of a subject that has just been started.
    """

    first_event_seconds: float
    steady: bool
    delay_p50_seconds: float
    delay_p99_seconds: float
    expected: int
    lost: int
    disordered: int
    unfinished: int
    events_per_second: float
    events_per_read: float
    cpu_seconds_per_event: float | None
    growth_bytes_per_stream: float | None


def _first_event_seconds(address: tuple[str, int], request: bytes, singles: int) -> float:
    """The median over streams one after another, over one connection where the server lets it live."""
    arrivals: list[int] = []
    found = []
    reader = EventReader(lambda _: arrivals.append(time.monotonic_ns()))
    connection = _connected(address)
    try:
        for number in range(WARMING + singles):
            arrivals.clear()
            sent = time.monotonic_ns()  # before: a server on the same core may answer before `sendall` returns
            connection.sendall(request)
            reader.over = reader.whole = False
            while not reader.over and (data := connection.recv(_RECEIVE_BYTES)):
                reader.feed(data)
            if not reader.whole or not arrivals:
                raise ClientFailed(f"A stream was refused or broke off: {reader.refusal}")
            if number >= WARMING:
                found.append((arrivals[0] - sent) / 1e9)
            if reader.closing:
                connection.close()
                connection = _connected(address)
                reader = EventReader(lambda _: arrivals.append(time.monotonic_ns()))
    finally:
        connection.close()
    return statistics.median(found)


def _connected(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, QUIET_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Load:
    """
    Many streams at once, and what the subject uses from the moment that all are open to the end of the first.

    Args:
        streams: At once.
        tree: The subject's processes.
    """

    def __init__(self, streams: int, tree: ProcessTree) -> None:
        self.readers: list[EventReader] = []
        self.over = asyncio.get_running_loop().create_future()
        self.steady = False
        self._streams = streams
        self._tree = tree
        self._rss_before = tree.rss_bytes()
        self._rss_open: int | None = None
        self._started = 0
        self._ended = 0
        self._measuring = False
        self._begin()

    def note(self, stamp_ns: int) -> None:
        """An event has come."""
        if self._measuring:
            self._delays.append(time.monotonic_ns() - stamp_ns)

    def read(self) -> None:
        """One or more events have come at a time."""
        self._reads += 1

    def started(self) -> None:
        """A stream has sent its first event."""
        self._started += 1
        if self._started == self._streams and not self._ended:
            self.steady = True
            self._begin()

    def ended(self) -> None:
        """A stream is over, one way or the other."""
        self._ended += 1
        if self._ended == 1 and self.steady:
            self.finish()
        if self._ended == self._streams and not self.over.done():
            self.over.set_result(None)

    def _begin(self) -> None:
        self._delays = array("q")
        self._reads = 0
        self._cpu_before = self._tree.cpu_seconds()
        self._began_ns = time.monotonic_ns()
        self._measuring = True

    def finish(self) -> None:
        """End the measurement, unless it has ended."""
        if not self._measuring:
            return
        self._measuring = False
        self._measured_reads = self._reads
        self._seconds = (time.monotonic_ns() - self._began_ns) / 1e9
        self._cpu_after = self._tree.cpu_seconds()
        self._rss_open = self._tree.rss_bytes()

    def figures(self, first_event_seconds: float, events: int) -> StreamFigures:
        """What came of it; of a stream of so many events."""
        whole = sorted(self._delays)
        if not whole:
            raise ClientFailed("No event came.")
        cpu = growth = None
        if self._cpu_before is not None and self._cpu_after is not None:
            cpu = (self._cpu_after - self._cpu_before) / len(whole)
        if self._rss_before is not None and self._rss_open is not None:
            growth = (self._rss_open - self._rss_before) / self._streams
        expected = self._streams * events
        return StreamFigures(
            first_event_seconds=first_event_seconds,
            steady=self.steady,
            delay_p50_seconds=whole[len(whole) // 2] / 1e9,
            delay_p99_seconds=whole[len(whole) * 99 // 100] / 1e9,
            expected=expected,
            lost=max(0, expected - sum(reader.received for reader in self.readers)),
            disordered=sum(reader.disordered for reader in self.readers),
            unfinished=sum(not reader.whole for reader in self.readers),
            events_per_second=len(whole) / self._seconds,
            events_per_read=len(whole) / max(1, self._measured_reads),
            cpu_seconds_per_event=cpu,
            growth_bytes_per_stream=growth,
        )


class _Stream(asyncio.Protocol):
    """
    One of many.

    Args:
        request: To send.
    """

    def __init__(self, load: _Load, request: bytes) -> None:
        self._load = load
        self._request = request
        self._reader = EventReader(load.note)
        load.readers.append(self._reader)
        self._started = False
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server has accepted."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Part of the reply."""
        before = self._reader.received
        try:
            self._reader.feed(data)
        except httptools.HttpParserError:
            self._transport.abort()
            return
        if self._reader.received > before:
            self._load.read()
        if not self._started and self._reader.received:
            self._started = True
            self._load.started()
        if self._reader.over:
            self._end()
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Either side has closed."""
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._load.ended()


async def _many(address: tuple[str, int], plan: Mapping[str, Any], first_event_seconds: float) -> StreamFigures:
    loop = asyncio.get_running_loop()
    load = _Load(plan["streams"], ProcessTree(plan["pid"]))
    request = plan["many"].encode("latin-1")
    try:
        async with asyncio.timeout(plan["limit_seconds"]):
            for _ in range(plan["streams"]):
                await loop.create_connection(lambda: _Stream(load, request), *address)
                await asyncio.sleep(OPENING_SECONDS / plan["streams"])
            await load.over
    except TimeoutError:
        pass  # what did not come is lost
    load.finish()
    refused = [reader for reader in load.readers if reader.status not in (0, 200)]
    if refused:
        raise ClientFailed(f"{len(refused)} of {plan['streams']} streams were refused: {refused[0].refusal}")
    return load.figures(first_event_seconds, plan["events"])


def main() -> int:
    """
    Carry out the plan on the standard input and print the figures as JSON.

    Returns:
        Exit code: 0, or 1 when there are none; the last line of the standard error then says why.
    """
    plan = json.load(sys.stdin)
    gc.disable()  # a pause here would look like one of the subject's
    parts = urlsplit(plan["url"])
    address = (str(parts.hostname), int(parts.port or 80))
    try:
        first = _first_event_seconds(address, plan["single"].encode("latin-1"), plan["singles"])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(_many(address, plan, first))
    except (ClientFailed, OSError, httptools.HttpParserError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    json.dump(asdict(figures), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
