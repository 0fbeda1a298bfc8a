"""Many clients in one event loop: HTTP read piece by piece from raw connections, at little cost to the machine."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30.0  # a hang counts as no reply
_LIMIT_BYTES = 2**20


@dataclass
class RawReply:
    """
    One reply.

    Args:
        status: 0 when the connection ended without one.
        headers: Names in lower case.
        complete: Whether the body ended as its framing announces.
        seconds: From the connection's beginning to the end.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    seconds: float = 0.0

    def header(self, name: str) -> str | None:
        """First value of a header (name in lower case)."""
        return next((value for key, value in self.headers if key == name), None)


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a server."""
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=_LIMIT_BYTES)


async def ask_once(url: str, request: bytes) -> RawReply:
    """Send the bytes of one request over a connection of its own; whatever goes wrong is told by the reply."""
    reply = RawReply()
    began = time.monotonic()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await connected(url)
            try:
                await exchange(reader, writer, request, reply)
            finally:
                writer.transport.abort()
    reply.seconds = time.monotonic() - began
    return reply


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, reply: RawReply
) -> RawReply:
    """
    Send one request over a connection and read its reply into `reply`.

    Raises:
        OSError: The connection broke; what came before stands in `reply`.
    """
    writer.write(request)
    await writer.drain()
    with contextlib.suppress(asyncio.IncompleteReadError):
        await read_head(reader, reply)
        async for piece in read_body(reader, reply):
            reply.body += piece
        reply.complete = True
    return reply


async def read_head(reader: asyncio.StreamReader, reply: RawReply) -> None:
    """
    Read status and headers.

    Raises:
        asyncio.IncompleteReadError: The connection ended before.
    """
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    reply.headers = [
        (name.lower(), value.strip()) for name, _, value in (text.partition(":") for text in lines) if name
    ]
    reply.status = int(line.split(" ", 2)[1])


async def read_body(reader: asyncio.StreamReader, reply: RawReply) -> AsyncIterator[bytes]:
    """
    Read the body as it comes: its pieces, or its chunks.

    Raises:
        asyncio.IncompleteReadError: It broke off.
    """
    if reply.header("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return
    left = int(reply.header("content-length") or 0)
    while left:
        piece = await reader.read(min(left, _LIMIT_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece
