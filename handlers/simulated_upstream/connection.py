"""
One HTTP exchange over ASGI: reads the body, sends the reply, notices at any moment that the client has gone.

Carries out the faults that concern the wire (delay, silence, cut, slow reading).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client left before its request was complete."""


class ConnectionCut(Exception):
    """Raised out of the application on purpose, so that the server drops the connection in mid-reply."""


@dataclass(frozen=True)
class Reply:
    """
    What goes out.

    Args:
        pieces: The body; one ASGI message each.
        interval_seconds: Pause before every piece but the first.
    """

    status: int
    headers: list[tuple[str, str]]
    pieces: Iterable[bytes]
    interval_seconds: float = 0.0


class Connection:
    """The two directions of one exchange, and what is recorded about them."""

    def __init__(self, receive: Receive, send: Send, record: RecordedRequest) -> None:
        self._receive = receive
        self._send = send
        self._record = record
        self._body_ended = asyncio.Event()
        self._reply_ended = False

    async def supervise(self, work: Awaitable[None]) -> None:
        """
        Answer while watching for the client to leave; when it leaves, the work is cancelled and the time recorded.

        Raises:
            ConnectionCut: A fault asks the server to drop the connection.
        """
        task = asyncio.ensure_future(work)
        watcher = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self._reply_ended:
                self._client_left()
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, ClientGone):
                self._client_left()
            elif error is not None:
                raise error
        finally:
            task.cancel()
            watcher.cancel()
            await asyncio.gather(task, watcher, return_exceptions=True)
            self._record.finished_at = time.monotonic()

    async def body(self, bytes_per_second: float | None) -> AsyncIterator[bytes]:
        """
        The request's body, recorded as it is read.

        Raises:
            ClientGone: The client left in mid-body.
        """
        more = not self._body_ended.is_set()
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            if piece:
                self._record.add_body(piece)
                if bytes_per_second:
                    await asyncio.sleep(len(piece) / bytes_per_second)
                yield piece
        self._body_ended.set()

    async def drain(self) -> None:
        """Read what is left of the body, only to record it."""
        async for _ in self.body(None):
            pass

    async def send(self, reply: Reply, fault: Fault) -> None:
        """
        Send a reply as a fault lets it through.

        Raises:
            ConnectionCut: The fault cuts the body.
        """
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.silent:
            await _for_ever()
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
        self._record.status = reply.status
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        left = _first_limit(fault)
        if left is None and isinstance(reply.pieces, tuple) and len(reply.pieces) == 1:
            self._reply_ended = True
            await self._send({"type": "http.response.body", "body": reply.pieces[0], "more_body": False})
            return
        first = True
        for piece in reply.pieces:
            if not first and reply.interval_seconds:
                await asyncio.sleep(reply.interval_seconds)
            first = False
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if piece:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # sending to a client that has left never waits, so the watcher needs a turn
            if left == 0:
                break
        if left is not None:
            if fault.cut_after_bytes is not None:
                raise ConnectionCut("cut by a fault")
            await _for_ever()
        self._reply_ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self) -> None:
        await self._body_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _client_left(self) -> None:
        if self._record.disconnected_at is None:
            self._record.disconnected_at = time.monotonic()


def _first_limit(fault: Fault) -> int | None:
    return fault.cut_after_bytes if fault.cut_after_bytes is not None else fault.silent_after_bytes


async def _for_ever() -> None:
    await asyncio.Event().wait()
