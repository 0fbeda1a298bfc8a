"""
Clients that leave in the middle of a request, and how long it takes until the relay's upstream notices.

Used by the tests and by `scripts/measure`. Speaks raw bytes, so that nothing tidies up behind the client.
"""

import asyncio
import itertools
import json
import math
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import psutil

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.raw_http import raw_request
from tests.support.servers import HOST, RelayProcess

BOUND_SECONDS = 0.25
DEADLINE_SECONDS = 10.0  # a hang fails
POLL_SECONDS = 0.002
BOUNDARY = "departure"
ANNOUNCED_BYTES = 64 * 2**20  # more than all buffers between client and upstream hold
SLOW_BYTES_PER_SECOND = 8 * 2**20
# Who needs longer for this much than the slow upstream has to is held back.
HELD_BACK_PIECE = bytes(2**20)
HELD_BACK_SECONDS = 0.1

_PART = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
).encode() + bytes(2**15)
_FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
_LONG_FORM = {**_FORM, "Content-Length": str(ANNOUNCED_BYTES)}
_numbers = itertools.count(1)

T = TypeVar("T")


@dataclass(frozen=True)
class Phase:
    """
    One moment of a request at which a client leaves.

    Args:
        body: What the client sends before it leaves. An upload is never complete.
        fault: What the upstream does meanwhile.
        until_received: The client leaves when what it has received holds this. Without it, when the upstream has
            received the whole `body`.
        held_back: The client sends more and leaves when the relay takes it only slowly. The upstream notices once it
            has read what is on its way, so there is no bound.
    """

    name: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: Fault | None = None
    until_received: bytes = b""
    held_back: bool = False


def _asking(name: str, fault: Fault, *, stream: bool = False, until_received: bytes = b"") -> Phase:
    body = json.dumps({"model": "gpt-6-luna", "input": "Say hello.", "stream": stream}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return Phase(name, "POST", "/v1/responses", headers, body, fault, until_received)


def _uploading(name: str, headers: dict[str, str], fault: Fault | None = None, *, held_back: bool = False) -> Phase:
    return Phase(name, "POST", "/v1/files", headers, _PART, fault, held_back=held_back)


PHASES = (
    _asking("before the headers", Fault(silent=True)),
    _asking("in mid-JSON", Fault(silent_after_bytes=16), until_received=b'\r\n\r\n{"'),
    _asking("in mid-SSE", Fault(silent_after_bytes=256), stream=True, until_received=b"\ndata: {"),
    Phase("in mid-download", "GET", f"/v1/files/file-size-{2**30}/content", until_received=b"\x00\x01\x02"),
    _uploading("in mid-upload", _LONG_FORM),
    _uploading("in mid-upload without a length", {**_FORM, "Transfer-Encoding": "chunked"}),
    _uploading(
        "in an upload that is held back",
        _LONG_FORM,
        Fault(slow_read_bytes_per_second=SLOW_BYTES_PER_SECOND),
        held_back=True,
    ),
)


async def leave(phase: Phase, relay: RelayProcess, upstream: SimulatedUpstream, *, clients: int) -> list[float]:
    """
    Let so many clients leave at once, every second one by a reset instead of an orderly end.

    Returns:
        Seconds from each client's leaving to the upstream's notice; infinity when none came within `DEADLINE_SECONDS`.
    """
    upstream.faults.clear()
    if phase.fault is not None:
        upstream.faults.add(phase.fault)
    try:
        return await asyncio.gather(*(_leave_once(phase, relay, upstream) for _ in range(clients)))
    finally:
        upstream.faults.clear()


async def leave_in_groups(
    phase: Phase, relay: RelayProcess, upstream: SimulatedUpstream, *, clients: int
) -> list[float]:
    """Let so many clients leave, a few at a time (many where each takes long), until a notice fails to come."""
    group = 25 if phase.held_back else 5
    seconds: list[float] = []
    while len(seconds) < clients and math.inf not in seconds:
        seconds += await leave(phase, relay, upstream, clients=min(group, clients - len(seconds)))
    return seconds


def open_connections(relay: RelayProcess, upstream_url: str) -> int:
    """How many connections the relay holds to its upstream, idle ones included."""
    port = int(upstream_url.rpartition(":")[2])
    connections = psutil.Process(relay.pid).net_connections(kind="tcp")
    return sum(bool(c.raddr) and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in connections)


async def _leave_once(phase: Phase, relay: RelayProcess, upstream: SimulatedUpstream) -> float:
    number = next(_numbers)
    mark = f"departure={number}"
    headers = {**relay.headers, **phase.headers}
    body = phase.body
    if "Transfer-Encoding" in headers:
        body = b"%x\r\n%b\r\n" % (len(body), body)

    def arrived() -> RecordedRequest | None:
        found = next((record for record in upstream.recorder.requests if record.query == mark), None)
        return found if found is not None and found.body_size >= len(phase.body) else None

    client = socket.create_connection((HOST, int(relay.url.rpartition(":")[2])), DEADLINE_SECONDS)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            writer.write(raw_request(phase.method, f"{phase.path}?{mark}", headers.items()) + body)
            if phase.until_received:
                await reader.readuntil(phase.until_received)
            record = await _until(arrived)
            if phase.held_back:
                await _send_until_held_back(writer)
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        left_at = time.monotonic()
        writer.transport.abort()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await _until(lambda: record.disconnected_at) - left_at
    except TimeoutError:
        return math.inf


async def _send_until_held_back(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(HELD_BACK_PIECE)
        try:
            async with asyncio.timeout(HELD_BACK_SECONDS):
                await writer.drain()
        except TimeoutError:
            return


async def _until(value: Callable[[], T | None]) -> T:
    while (found := value()) is None:
        await asyncio.sleep(POLL_SECONDS)
    return found
