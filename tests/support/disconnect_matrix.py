"""
Clients that leave in each phase of each kind of call, many times, and how long it takes until the upstream notices.

Used by the tests and by `scripts/chaos --disconnects`. Speaks raw bytes; every second client ends by a reset. More
special moments, such as an upload that nobody takes, stand in `tests.support.disconnects`.
"""

import asyncio
import contextlib
import itertools
import json
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import psutil

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.disconnects import ANNOUNCED_BYTES, BOUND_SECONDS, DEADLINE_SECONDS, open_connections
from tests.support.raw_http import raw_request
from tests.support.servers import HOST, RelayProcess
from tests.support.sockets import HANDSHAKE, PATH

GROUP = 5  # at once, so that what one costs does not delay the notice of another
POLL_SECONDS = 0.002
FLOWING_SECONDS = 0.05
SETTLE_SECONDS = 5.0
PHASES = ("while the request arrives", "before the answer", "in mid-answer", "in a pause")
KINDS = ("JSON", "SSE", "upload", "socket")
_FORM_START = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + bytes(2**15)
)
_FORM = _FORM_START + b"\r\n--b--\r\n"
_BEGUN = b"session.created"
_ASKED = b"\x81\x9b" + bytes(4) + b'{"type": "response.create"}'  # a text; the mask of a client may be zero
_ANSWERS = 400  # of 20 KB each, one after 10 ms; the client leaves in the middle of the fourth
_ASKED_BYTES_PER_SECOND = 100 * len(_ASKED)
_TALK_BYTES = 70_000
_LARGE_BYTES = 2**30
_HELD_BYTES = 2**21  # what a client of a flowing answer has read when it leaves
_numbers = itertools.count(1)

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """
    One kind of call in one phase.

    Args:
        body: What of the body the client sends.
        announced: Bytes of the body as the headers say; those of `body` by default.
        fault: What the upstream does meanwhile.
        until_received: The client leaves once it has received this.
        bytes_received: And so many bytes.
        then: What the client sends once it has received that.
        sends_on: The client goes on sending for a moment before it leaves.
        cut_head: So many bytes of the head are never sent.
    """

    kind: str
    phase: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    announced: int | None = None
    fault: Fault | None = None
    until_received: bytes = b""
    then: bytes = b""
    bytes_received: int = 0
    sends_on: bool = False
    cut_head: int = 0

    @property
    def reaches_upstream(self) -> bool:
        """Whether there is a call to cancel: JSON is read whole before one begins, and so is a head."""
        return not self.cut_head and (self.kind == "upload" or self.announced is None)


@dataclass
class Result:
    """
    What came of a cell.

    Args:
        seconds: From each client's leaving to the upstream's notice, or to the relay's where the upstream was not
            asked; infinity when none came in time.
        left: What stays behind.
    """

    cell: Cell
    seconds: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def noticed(self) -> int:
        """How many were noticed within the bound."""
        return sum(value < BOUND_SECONDS for value in self.seconds)

    @property
    def slowest_seconds(self) -> float:
        """Of all notices."""
        return max(self.seconds, default=math.inf)

    @property
    def met(self) -> bool:
        """Whether each was noticed in time and nothing stays behind."""
        return self.noticed == len(self.seconds) > 0 and not self.left


def cells() -> Iterator[Cell]:
    """All sixteen, phase by phase."""
    for phase in PHASES:
        yield _asking("JSON", phase, stream=False)
        yield _asking("SSE", phase, stream=True)
        yield _uploading(phase)
        yield _talking(phase)


async def leave_in_cell(cell: Cell, relay: RelayProcess, upstream: SimulatedUpstream, url: str, runs: int) -> Result:
    """
    Let so many clients leave, `GROUP` at a time, until a notice fails to come.

    Args:
        url: Of the upstream.
    """
    result = Result(cell)
    before = _held(relay, url)
    upstream.faults.clear()
    if cell.fault is not None:
        upstream.faults.add(cell.fault)
    try:
        while len(result.seconds) < runs and math.inf not in result.seconds:
            upstream.recorder.clear()
            group = min(GROUP, runs - len(result.seconds))
            files = psutil.Process(relay.pid).num_fds()
            clients = (_leave_once(cell, relay, upstream, files) for _ in range(group))
            result.seconds += await asyncio.gather(*clients)
    finally:
        upstream.faults.clear()
    deadline = time.monotonic() + SETTLE_SECONDS
    while (held := _held(relay, url)) > before and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
    if held > before:
        result.left.append(f"{held - before} files or connections")
    return result


def matrix_text(results: list[Result]) -> str:
    """The results as a Markdown table, one line a phase."""
    lines = [f"| Client leaves | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    for phase in PHASES:
        shown = [_shown(result) for result in results if result.cell.phase == phase]
        lines.append(f"| {phase} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(result: Result) -> str:
    text = f"{result.noticed} of {len(result.seconds)}, slowest {result.slowest_seconds * 1000:.0f} ms"
    return "; ".join([text, *(f"{left} left" for left in result.left)])


def _asking(kind: str, phase: str, *, stream: bool) -> Cell:
    body = json.dumps({"model": "gpt-6-luna", "input": "Say hello.", "stream": stream}).encode()
    cell = Cell(kind, phase, "POST", "/v1/responses", {"Content-Type": "application/json"}, body)
    match PHASES.index(phase), stream:
        case 0, _:
            return _with(cell, body=body[:20], announced=len(body))
        case 1, _:
            return _with(cell, fault=Fault(silent=True))
        case 2, False:
            return _with(cell, fault=Fault(repeat_body_to_bytes=_LARGE_BYTES), bytes_received=_HELD_BYTES)
        case 2, True:
            events = ["event: tick\ndata: {}\n\n"] * 100_000
            return _with(cell, fault=Fault(events=events, event_interval_seconds=0.002), bytes_received=1_000)
        case _, False:
            return _with(cell, fault=Fault(silent_after_bytes=16), until_received=b'\r\n\r\n{"')
    return _with(cell, fault=Fault(silent_after_bytes=256), until_received=b"\ndata: {")


def _uploading(phase: str) -> Cell:
    cell = Cell("upload", phase, "POST", "/v1/files", {"Content-Type": "multipart/form-data; boundary=b"}, _FORM)
    match PHASES.index(phase):
        case 0:
            return _with(cell, body=_FORM_START, announced=ANNOUNCED_BYTES * 16, sends_on=True)
        case 1:
            return _with(cell, fault=Fault(silent=True))
        case 2:
            return _with(cell, fault=Fault(repeat_body_to_bytes=_LARGE_BYTES), bytes_received=_HELD_BYTES)
    return _with(cell, body=_FORM_START, announced=ANNOUNCED_BYTES)


def _talking(phase: str) -> Cell:
    cell = Cell("socket", phase, "GET", f"{PATH}?model=gpt-realtime", HANDSHAKE)
    match PHASES.index(phase):
        case 0:
            return _with(cell, cut_head=4)
        case 1:
            return _with(cell, fault=Fault(silent=True))
        case 2:
            fault = Fault(slow_read_bytes_per_second=_ASKED_BYTES_PER_SECOND)
            return _with(cell, fault=fault, until_received=_BEGUN, then=_ASKED * _ANSWERS, bytes_received=_TALK_BYTES)
    return _with(cell, until_received=_BEGUN)


def _with(cell: Cell, **changes: object) -> Cell:
    return Cell(**{**vars(cell), **changes})


async def _leave_once(cell: Cell, relay: RelayProcess, upstream: SimulatedUpstream, files: int) -> float:
    number = next(_numbers)
    mark = f"departure={number}"
    client = socket.create_connection((HOST, int(relay.url.rpartition(":")[2])), DEADLINE_SECONDS)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    reader, writer = await asyncio.open_connection(sock=client)
    record: RecordedRequest | None = None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            writer.write(_request(cell, relay, mark))
            await _read(cell, reader, writer)
            if cell.reaches_upstream:
                record = await _until(lambda: _arrived(cell, upstream, mark))
            else:
                await asyncio.sleep(FLOWING_SECONDS)
            if cell.sends_on:
                await _send_on(writer)
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return math.inf
    finally:
        left_at = time.monotonic()
        writer.transport.abort()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS):
            if record is not None:
                return max(await _until(lambda: _noticed(cell, upstream, record)) - left_at, 0.0)
            # Nobody upstream can tell, so the relay's open files do: once as few as before all of the group.
            process = psutil.Process(relay.pid)
            await _until(lambda: True if process.num_fds() <= files else None)
            asked = any(mark in request.query for request in upstream.recorder.requests)
            return math.inf if asked else time.monotonic() - left_at
    return math.inf


def _request(cell: Cell, relay: RelayProcess, mark: str) -> bytes:
    target = f"{cell.target}{'&' if '?' in cell.target else '?'}{mark}"
    headers = {**relay.headers, **cell.headers}
    if cell.method == "POST":
        headers["Content-Length"] = str(len(cell.body) if cell.announced is None else cell.announced)
    head = raw_request(cell.method, target, headers.items())
    return (head[: -cell.cut_head] if cell.cut_head else head) + cell.body


async def _read(cell: Cell, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if cell.until_received:
        await reader.readuntil(cell.until_received)
    writer.write(cell.then)
    received = 0
    while received < cell.bytes_received:
        piece = await reader.read(2**16)
        if not piece:
            raise asyncio.IncompleteReadError(b"", None)
        received += len(piece)


async def _send_on(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLOWING_SECONDS):
            while True:
                writer.write(bytes(2**16))
                await writer.drain()


def _arrived(cell: Cell, upstream: SimulatedUpstream, mark: str) -> RecordedRequest | None:
    found = next((record for record in upstream.recorder.requests if mark in record.query.split("&")), None)
    return found if found is not None and found.body_size >= len(cell.body) else None


def _noticed(cell: Cell, upstream: SimulatedUpstream, record: RecordedRequest) -> float | None:
    if cell.kind != "socket":
        return record.disconnected_at
    return next((opened.ended_at for opened in upstream.recorder.sockets if opened.request is record), None)


def _held(relay: RelayProcess, url: str) -> int:
    """Files and connections of the relay, except those that are kept for the next call to the upstream."""
    return psutil.Process(relay.pid).num_fds() - open_connections(relay, url)


async def _until(value: Callable[[], T | None]) -> T:
    while (found := value()) is None:
        await asyncio.sleep(POLL_SECONDS)
    return found
