"""
Comments in idle event streams, so that nobody between the relay and its client takes silence for the end.

Source: WHATWG HTML, "Server-sent events", section 9.2.7. Not for: streams of the relay's own making.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

from handlers.runtime.headers import has_events
from handlers.runtime.messages import Reply

COMMENT = b": keep-alive\n\n"
# How an event ends: an empty line behind the end of another. A return alone may be the first half of a line's end.
_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_TAIL_BYTES = max(map(len, _EVENT_ENDS))


def is_event_stream(reply: Reply) -> bool:
    """Whether a reply is an event stream into which comments can be written: plain, and of no fixed length."""
    if reply.status != HTTPStatus.OK or isinstance(reply.body, bytes):
        return False
    headers = dict(reply.headers)
    return (
        has_events(reply.headers)
        and headers.get(b"content-encoding", b"identity") == b"identity"
        and b"content-length" not in headers
    )


class StreamComments:
    """
    Passes one event stream on and writes a comment after every so many seconds of silence between two events.

    Args:
        send: Takes bytes for the client; never called twice at once.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._tail = b""
        self._between_events = True
        self._silent_since = 0.0
        self._sending = False
        self._commented: asyncio.Event | None = None  # while a comment is on its way

    async def pass_on(self, pieces: AsyncIterator[bytes]) -> None:
        """
        Send all pieces as they come.

        Raises:
            Exception: Whatever the stream ends with.
        """
        loop = asyncio.get_running_loop()
        self._silent_since = loop.time()
        comments = asyncio.create_task(self._comment())
        try:
            async for piece in pieces:
                if self._commented is not None:  # it has begun, so it comes first
                    await self._commented.wait()
                self._sending = True
                self._note(piece)
                await self._send(piece)
                self._silent_since = loop.time()
                self._sending = False
        finally:
            comments.cancel()
            await asyncio.wait([comments])

    def _note(self, piece: bytes) -> None:
        self._tail = (self._tail + piece)[-_TAIL_BYTES:] if len(piece) < _TAIL_BYTES else piece[-_TAIL_BYTES:]
        self._between_events = self._tail.endswith(_EVENT_ENDS)

    async def _comment(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._silent_since + self._seconds - loop.time())
            if loop.time() < self._silent_since + self._seconds:
                continue
            if self._between_events and not self._sending:
                self._commented = asyncio.Event()
                try:
                    await self._send(COMMENT)
                finally:
                    self._commented.set()
                    self._commented = None
            self._silent_since = loop.time()
