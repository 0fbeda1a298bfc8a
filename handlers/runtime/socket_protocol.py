"""
uvicorn's WebSocket protocol, with the relay's answers to what is no handshake, and its way to end.

Not for: who may connect or what is passed on (`handlers.runtime.sockets`).
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.exceptions import HeaderLineTooLong, InvalidMethod, InvalidUpgrade, RequestLineTooLong, TooManyHeaders
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response

from handlers.runtime.connection import new_request_id
from handlers.runtime.errors import error_to_reply
from handlers.runtime.exceptions import (
    HeadersTooLarge,
    MalformedRequest,
    MethodNotAllowed,
    RelayError,
    UpgradeRequired,
    UriTooLong,
)
from handlers.runtime.settings import Settings

# In the message that ends a session because the relay stops; what clients send never has it.
DRAIN = "relay.drain"
CLOSE_TIMEOUT_SECONDS = 2.0
MAX_FRAGMENTS = 4096  # of one message, as the client library keeps it
_VERSION = ("Sec-WebSocket-Version", "13")  # RFC 6455, section 4.4


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """
    What the server's side of every socket keeps to.

    Args:
        max_message_bytes: A longer message ends its session with 1009.
        ping_interval_seconds: Between two pings to a client.
        ping_timeout_seconds: For the pong to come.
    """

    max_message_bytes: int = 32 * 2**20
    ping_interval_seconds: float = 20.0
    ping_timeout_seconds: float = 20.0

    @classmethod
    def of(cls, settings: Settings) -> "SocketLimits":
        """Those that are set."""
        return cls(
            settings.RELAY_SOCKET_MAX_MESSAGE_BYTES,
            settings.RELAY_SOCKET_PING_INTERVAL_SECONDS,
            settings.RELAY_SOCKET_PING_TIMEOUT_SECONDS,
        )


DEFAULT_SOCKET_LIMITS = SocketLimits()


class SocketProtocol(WebSocketsSansIOProtocol):
    """One client's socket; the ASGI messages are uvicorn's, but for `relay.drain` in the one that ends a session."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = CLOSE_TIMEOUT_SECONDS
        self._last_resort: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes; what cannot be read as a handshake is answered, where uvicorn would keep silent."""
        super().data_received(data)
        error = self.conn.handshake_exc
        if error is None or self.handshake_initiated or self.transport.is_closing():
            return
        self.handshake_complete = True
        self.close_sent = True
        self.transport.write(_refusal(error).serialize())
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Begin with a handshake, or refuse what is none without repeating any of it."""
        accept = self.conn.accept

        def accept_or_refuse(request: Request) -> Response:
            response = accept(request)
            return response if self.conn.handshake_exc is None else _refusal(self.conn.handshake_exc)

        self.conn.accept = accept_or_refuse  # type: ignore[method-assign]
        super().handle_connect(event)
        del self.conn.accept

    def handle_cont(self, event: Frame) -> None:
        """Take a further piece of a message; one in too many pieces would cost far more memory than it has bytes."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell a client that vanished (1006) from one that gave no code (1005)."""
        if self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE, "reason": ""})
        if self._last_resort is not None:
            self._last_resort.cancel()
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        """
        End with a client that does not answer, unless its pong may lie behind what the relay holds back.

        A session that is held back ends by its idle limit.
        """
        if self.read_paused or not self.writable.is_set():
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a refusal completes the handshake, which uvicorn would log as a mistake."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def shutdown(self) -> None:
        """Have the session end in order, so that a client that is sending still reads why."""
        self.stop_keepalive()
        if self.close_sent:
            super().shutdown()
            return
        message = {"type": "websocket.disconnect", "code": CloseCode.SERVICE_RESTART, "reason": "", DRAIN: True}
        self.queue.put_nowait(cast("Any", message))

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Give the client a moment to take what is left; one that does not is cut off."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._last_resort = self.loop.call_later(2 * self.close_timeout, self.transport.abort)


def _refusal(error: Exception) -> Response:
    reply = error_to_reply(_named(error))
    request_id = new_request_id()
    headers = Headers((name.decode("ascii"), value.decode("ascii")) for name, value in reply.headers)
    body = cast("bytes", reply.body)
    for name, value in (
        ("content-length", str(len(body))),
        ("connection", "close"),
        ("x-request-id", request_id),
        ("x-relay-request-id", request_id),
    ):
        headers[name] = value
    return Response(reply.status, HTTPStatus(reply.status).phrase, headers, body)


def _named(error: Exception) -> RelayError:
    match error:
        case RequestLineTooLong():
            return UriTooLong()
        case HeaderLineTooLong() | TooManyHeaders():
            return HeadersTooLarge()
        case InvalidMethod():
            return MethodNotAllowed("A WebSocket handshake must be a `GET`.", headers=[("Allow", "GET")])
        case InvalidUpgrade():
            return UpgradeRequired(headers=[_VERSION])
    return MalformedRequest(
        "The WebSocket handshake must be as in RFC 6455, section 4.1, version 13.", headers=[_VERSION]
    )
