"""
One client connection during one request: reads its body, watches whether the client is still there, sends the reply.

Why it exists: when the client leaves, the task that works for it is cancelled, and with it the upstream call.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from handlers.runtime.counts import OperationCounts
from handlers.runtime.exceptions import PayloadTooLarge
from handlers.runtime.messages import Header, Reply
from handlers.runtime.observation import Observation
from handlers.runtime.page_headers import UNLESS_SAID
from handlers.runtime.stream_comments import StreamComments, is_event_stream

# Proxies between the relay and its client would hold events back, or keep them.
_UNBUFFERED: list[Header] = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


# Under which name the server puts a `Departure` into a request's scope.
DEPARTURE = "relay.departure"


def new_request_id() -> str:
    """A fresh id for one request, as in `x-relay-request-id`."""
    return f"rly_{secrets.token_hex(12)}"


class ClientGone(Exception):
    """The client left while its body was still being read."""


class Departure:
    """
    Tells at once that a client has left, where the server knows; it stands in the scope under `DEPARTURE`.

    Waiting for ASGI's "http.disconnect" tells it as well, in a task of its own for every request.

    Args:
        read_on: Called when somebody wants to be told: a server that does not read hears of no end.
    """

    __slots__ = ("_left", "_read_on", "_told")

    def __init__(self, read_on: Callable[[], None]) -> None:
        self._read_on = read_on
        self._left = False
        self._told: Callable[[], None] | None = None

    @property
    def expected(self) -> bool:
        """Whether somebody wants to be told; whatever the client still sends is then read by nobody."""
        return self._told is not None

    def tell(self, told: Callable[[], None]) -> None:
        """Call this once when the client leaves, now if it has left already."""
        if self._left:
            told()
            return
        self._told = told
        self._read_on()

    def forget(self) -> None:
        """Call nobody any more."""
        self._told = None

    def leave(self) -> None:
        """Note that the client has left; the server calls this."""
        self._left = True
        told, self._told = self._told, None
        if told is not None:
            told()


class Connection:
    """
    The client's side of one request; belongs to the task that creates it.

    Args:
        receive: ASGI's.
        send: ASGI's.
        method: `HEAD` replies are sent without their body.
        request_id: The relay's id; every reply carries it.
        observation: What is noticed about the request.
        departure: Tells when the client leaves; without it, a task waits for that.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        method: str,
        request_id: str,
        observation: Observation | None = None,
        departure: Departure | None = None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._method = method
        self.request_id = request_id
        self._task = asyncio.current_task()
        self._departure = departure
        self._watcher: asyncio.Task[None] | None = None
        self._finishing = False  # the server reports "disconnect" after a complete reply as well
        self.gone = False
        self.keep_alive_seconds = 0.0  # of silence, after which an event stream gets a comment; 0 is none
        self.reply_started = False
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.event_stream = False
        self.observation = Observation(OperationCounts("", "")) if observation is None else observation
        self.extra_headers: list[Header] = []
        self.log: dict[str, object] = {}

    async def read_body(self, limit_bytes: int) -> bytes:
        """
        Read the whole body and start to watch the client.

        Raises:
            PayloadTooLarge: It exceeds the limit (413).
            ClientGone: The client left.
        """
        message = await self._next()
        body: bytes = message.get("body", b"")
        if len(body) > limit_bytes:
            raise PayloadTooLarge(f"The body must be at most {limit_bytes} bytes.")
        if message.get("more_body", False):
            return b"".join([body, *[piece async for piece in self.stream_body(limit_bytes - len(body))]])
        self.watch()
        return body

    async def stream_body(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """
        Yield the body's pieces as they come, then start to watch the client.

        Raises:
            PayloadTooLarge: It exceeds the limit (413).
            ClientGone: The client left; the task that works for it is cancelled as well.
        """
        size = 0
        more = True
        while more:
            message = await self._next()
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > limit_bytes:
                raise PayloadTooLarge
            if piece:
                yield piece
        self.watch()

    def watch(self) -> None:
        """Cancel the task when the client leaves. The body must have been read."""
        if self._departure is not None:
            self._departure.tell(self._leave)
        elif self._watcher is None and not self.gone:
            self._watcher = asyncio.create_task(self._watch())

    def stop_watching(self) -> None:
        """Stop; the request is over and leaving has no consequence any more."""
        self._finishing = True
        if self._departure is not None:
            self._departure.forget()
        elif self._watcher is not None:
            self._watcher.cancel()

    async def send(self, reply: Reply) -> None:
        """
        Send a reply; a streamed body goes out piece by piece as it comes.

        A failure in mid-body is raised on: the server then breaks the connection, so that the client cannot take
        half an answer for a whole one.
        """
        headers: list[Header] = reply.headers
        head = self._method == "HEAD"
        if isinstance(reply.body, bytes):
            if reply.status not in {204, 304}:
                headers = [*headers, (b"content-length", str(len(reply.body)).encode())]
            await self._start(reply.status, headers)
            await self._finish(b"" if head else reply.body)
            return
        events = is_event_stream(reply)
        if events:
            self.event_stream = True
            headers = [*headers, *(header for header in _UNBUFFERED if all(header[0] != name for name, _ in headers))]
        await self._start(reply.status, headers)
        if not head:
            if events and self.keep_alive_seconds:
                await StreamComments(self._send_piece, self.keep_alive_seconds).pass_on(reply.body)
            else:
                async for piece in reply.body:
                    await self._send_piece(piece)
        await self._finish(b"")

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.reply_started = True
        self.status = status
        request_id = self.request_id.encode()
        headers = [*headers, *self.extra_headers, (b"x-relay-request-id", request_id)]
        said = {name for name, _ in headers}
        if b"x-request-id" not in said:  # upstream's own id is kept for its support
            headers.append((b"x-request-id", request_id))
        headers += [header for header in UNLESS_SAID if header[0] not in said]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _send_piece(self, piece: bytes) -> None:
        self.bytes_out += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _finish(self, piece: bytes) -> None:
        self._finishing = True
        self.bytes_out += len(piece)
        await self._send({"type": "http.response.body", "body": piece})

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._leave()
            raise ClientGone
        self.bytes_in += len(message.get("body", b""))
        return message

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave()
                return

    def _leave(self) -> None:
        if self._finishing:
            return
        self.gone = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
