"""
An upstream of raw bytes in a process of its own: it can be killed and frozen, and does what a request asks it to.

A request says so by `rude-…` in its path or body (a model's name, a file's id). Without that it is answered politely.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from tests.support.raw_http import RawConnection
from tests.support.servers import HOST, STOP_TIMEOUT_SECONDS

STATISTICS = "/_statistics"
GIGABYTES_3 = 3 * 10**9
RECORDING_BYTES = 2**20  # too long to stand in a wrapper's reply
SLOW_SECONDS = 0.2
TRICKLED = b"{ }"  # one byte a second
_POLITE = b'{"object": "list", "data": [], "has_more": false}'
_PIECE = bytes(2**18)
_MODE = re.compile(rb"rude-([a-z0-9-]+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_SMUGGLED = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"a": "lie"}'


class UpstreamProcess:
    """
    The upstream in a process of its own.

    Attributes:
        url: Stays the same when it is killed and started again.
    """

    def __init__(self) -> None:
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, at its old address if it had one."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "tests.support.rude_upstream", "--port", port]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the upstream did not start"

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_SECONDS)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Any:
        """Stop it for as long as the block lasts; its kernel goes on taking connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def statistics(self) -> dict[str, int]:
        """How many requests of each kind have come, and under `active` how many are being answered."""
        with RawConnection(self.url) as connection:
            numbers: dict[str, int] = connection.exchange("GET", STATISTICS).json()
        return {"active": 0, **numbers}


class _Exchange:
    """One request and what is done about it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: str, number: int) -> None:
        self._reader = reader
        self._writer = writer
        self._mode = mode
        self._number = number  # of the request on its connection, from 1 on

    async def answer(self) -> bool:
        """Do it; whether the connection takes another request."""
        name, *numbers = re.split(r"-(?=\d)", self._mode)
        special: dict[str, Callable[..., Awaitable[bool]]] = {
            "events": self._events,
            "huge": partial(self._pour, b"200 OK", b"application/json"),
            "huge-error": partial(self._pour, b"500 Oh", b"application/json"),
            "huge-event": partial(self._pour, b"200 OK", b"text/event-stream"),
            "trickle": self._trickle,
            "slow": self._slow,
            "closing": self._closing,
            "headers": self._endless_headers,
            "recording": self._recording,
        }
        if name in special:
            return await special[name](*map(int, numbers))
        pieces, ending = {
            "silent": (b"", self._wait),
            "silent-in-body": (_JSON_HEAD + b"Content-Length: 100\r\n\r\n{", self._wait),
            "silent-in-stream": (_STREAM_HEAD + _chunk(b'data: {"number": 0}\n\n'), self._wait),
            "reset": (b"", self._reset),
            "reset-after-headers": (_JSON_HEAD + b"Content-Length: 100\r\n\r\n", self._reset),
            "reset-in-body": (_JSON_HEAD + b'Content-Length: 100\r\n\r\n{"a": ', self._reset),
            "reset-in-stream": (_STREAM_HEAD + _chunk(b'data: {"number": 0}\n\n'), self._reset),
            "announces-more": (_JSON_HEAD + b"Content-Length: 100\r\n\r\n{}", self._close),
            "sends-more": (_JSON_HEAD + b"Content-Length: 2\r\n\r\n{}" + _SMUGGLED, self._go_on),
            "garbage": (b"\x16\x03\x01 what is this?\r\n\r\n" * 10, self._close),
            "garbage-in-body": (_STREAM_HEAD + b"zz\r\nno chunk\r\n", self._wait),
        }.get(name, (_json(_POLITE), self._go_on))
        self._writer.write(pieces)
        await self._writer.drain()
        return await ending()

    async def _go_on(self) -> bool:
        return True

    async def _close(self) -> bool:
        return False

    async def _wait(self) -> bool:
        await self._reader.read()
        return False

    async def _reset(self) -> bool:
        await asyncio.sleep(0.05)  # what was written is to arrive first
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        return False

    async def _slow(self) -> bool:
        await asyncio.sleep(SLOW_SECONDS)
        self._writer.write(_json(_POLITE))
        return True

    async def _closing(self) -> bool:
        """Keep the connection, and drop it just as the next request comes over it."""
        if self._number > 1:
            return False
        self._writer.write(_json(_POLITE))
        return True

    async def _trickle(self) -> bool:
        self._writer.write(_JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(TRICKLED))
        for byte in TRICKLED:
            await asyncio.sleep(1.0)
            self._writer.write(bytes([byte]))
        return True

    async def _recording(self) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: %d\r\n\r\n"
        self._writer.write(head % RECORDING_BYTES + bytes(RECORDING_BYTES))
        return True

    async def _endless_headers(self) -> bool:
        self._writer.write(_JSON_HEAD)
        while True:
            self._writer.write(b"X-Padding: %b\r\n" % (b"x" * 1000))
            await self._writer.drain()

    async def _pour(self, status: bytes, media_type: bytes) -> bool:
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self._writer.write(head % (status, media_type, GIGABYTES_3))
        for _ in range(GIGABYTES_3 // len(_PIECE)):
            self._writer.write(_PIECE)
            await self._writer.drain()
        self._writer.write(_PIECE[: GIGABYTES_3 % len(_PIECE)])
        return True

    async def _events(self, count: int, milliseconds: int) -> bool:
        """So many numbered events, one after so many milliseconds each, on time also when one was late."""
        self._writer.write(_STREAM_HEAD)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(count):
            await asyncio.sleep(began + number * milliseconds / 1000 - loop.time())
            self._writer.write(_chunk(b'event: tick\ndata: {"number": %d}\n\n' % number))
            await self._writer.drain()
        self._writer.write(b"0\r\n\r\n")
        return True


class _Reader(asyncio.StreamReader):
    """Knows at once when the peer has left, also while nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


class _Server:
    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()

    async def serve(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._protocol, HOST, port, backlog=2048)
        sys.stdout.write(f"http://{HOST}:{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    def _protocol(self) -> asyncio.Protocol:
        reader = _Reader()
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._connection(reader, writer))

    async def _connection(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        number = 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            again = True
            while again:
                number += 1
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET " + STATISTICS.encode()):
                    writer.write(_json(json.dumps(self._numbers).encode()))
                    continue
                self._numbers["active"] += 1
                try:
                    mode = await self._mode(head, reader)
                    self._numbers[mode] += 1
                    again = await self._answer(_Exchange(reader, writer, mode, number), reader)
                finally:
                    self._numbers["active"] -= 1
        writer.close()

    async def _mode(self, head: bytes, reader: asyncio.StreamReader) -> str:
        found = _LENGTH.search(head)
        body = await reader.readexactly(int(found[1])) if found else b""
        mode = _MODE.search(head.partition(b"\r\n")[0]) or _MODE.search(body)
        return mode[1].decode() if mode else "polite"

    async def _answer(self, exchange: _Exchange, reader: _Reader) -> bool:
        answering = asyncio.ensure_future(exchange.answer())
        leaving = asyncio.ensure_future(reader.gone.wait())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            return answering.done() and await answering
        finally:
            answering.cancel()
            leaving.cancel()


def _json(body: bytes) -> bytes:
    return _JSON_HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def wait_for_idle(upstream: UpstreamProcess, seconds: float) -> float | None:
    """Seconds until nothing is being answered any more; `None` when something still is after that time."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if not upstream.statistics()["active"]:
            return time.monotonic() - began
        time.sleep(0.01)
    return None


if __name__ == "__main__":
    _parser = argparse.ArgumentParser()
    _parser.add_argument("--port", type=int, default=0)
    asyncio.run(_Server().serve(_parser.parse_args().port))
