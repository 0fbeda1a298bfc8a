"""
uvicorn's HTTP/1.1 protocol, made strict and impatient: it answers by itself, before an application hears of it.

What can be read in two ways, is too large or comes too slowly gets the relay's error and ends its connection.

Not for: bodies that are too large and who may ask what, which need the matched operation (`handlers.runtime.pipeline`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from handlers.runtime.admission import SURPLUS
from handlers.runtime.connection import DEPARTURE, Departure, new_request_id
from handlers.runtime.errors import ERROR_TABLE, error_to_reply
from handlers.runtime.exceptions import (
    HeadersTooLarge,
    MalformedRequest,
    Overloaded,
    RelayError,
    RequestTimeout,
    UriTooLong,
)
from handlers.runtime.request_heads import check_head
from handlers.runtime.settings import Settings

# Less than this within the time for a body counts as none, so that single bytes do not hold a request open.
MIN_BODY_BYTES: Final = 1024
# So many connections beyond the limit are still answered, with 503; the others are cut at once.
ANSWERED_SURPLUS: Final = 100
REFUSED_OPEN_SECONDS: Final = 1.0  # for the client to read why, and to close first
_LINE_OVERHEAD_BYTES: Final = len("GET  HTTP/1.1\r\n")
_HEADER_OVERHEAD_BYTES: Final = len(": \r\n")

_log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """
    What a client's connection must keep to.

    Args:
        max_connections: Requests on further ones are refused.
        header_timeout_seconds: From a request's first byte to the end of its headers.
        body_idle_timeout_seconds: In which `MIN_BODY_BYTES` must arrive, while the relay takes them.
        send_idle_timeout_seconds: In which the client must take something of a reply that waits for it.
        linger_seconds: How long connections stay open for the requests that are on their way when the relay ends.
        refused: Told code and status of each request that is refused before it reaches the app.
    """

    max_connections: int = 5000
    max_request_line_bytes: int = 16 * 2**10
    max_header_bytes: int = 64 * 2**10
    max_headers: int = 100
    header_timeout_seconds: float = 20.0
    body_idle_timeout_seconds: float = 30.0
    send_idle_timeout_seconds: float = 60.0
    linger_seconds: float = 0.25
    refused: Callable[[str, int], None] = lambda _code, _status: None

    @classmethod
    def of(cls, settings: Settings, refused: Callable[[str, int], None]) -> "ClientLimits":
        """Those that are set."""
        return cls(
            settings.RELAY_MAX_CONNECTIONS,
            settings.RELAY_MAX_REQUEST_LINE_BYTES,
            settings.RELAY_MAX_HEADER_BYTES,
            settings.RELAY_MAX_HEADERS,
            settings.RELAY_HEADER_TIMEOUT_SECONDS,
            settings.RELAY_BODY_IDLE_TIMEOUT_SECONDS,
            settings.RELAY_SEND_IDLE_TIMEOUT_SECONDS,
            min(1.0, settings.RELAY_SHUTDOWN_TIMEOUT_SECONDS / 4),
            refused,
        )


DEFAULT_CLIENT_LIMITS = ClientLimits()


class HttpProtocol(HttpToolsProtocol):
    """
    One client's connection.

    The parser (llhttp) refuses nearly all that is ambiguous; `check_head` refuses the rest. Whatever is refused here
    ends the connection: nobody knows where the next request would begin.

    Args:
        limits: By keyword; uvicorn gives the others.
    """

    def __init__(self, *args: Any, limits: ClientLimits = DEFAULT_CLIENT_LIMITS, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._over = False  # nothing that comes is read any more
        self._surplus = False
        self._draining = False
        self._in_body = False
        self._head = b""  # bytes of the request line and headers that are still arriving
        self._begins_chunk = True
        self._pipelined = False
        self._since = 0.0  # when the head, or the present stretch of the body, began; 0 between requests
        self._idle_since = 0.0  # when the last request or its reply was complete, whichever came later
        self._stretch_bytes = 0
        self._trailer_bytes = 0
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._running: RequestResponseCycle | None = None
        self._departure: Departure  # of the newest request

    # ── What the transport reports ────────────────────
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; the time for the first request runs at once."""
        super().connection_made(transport)
        self._since = self.loop.time()
        surplus = len(self.connections) - self._limits.max_connections
        self._surplus = surplus > 0
        if surplus > ANSWERED_SURPLUS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; what is not one plain request after the other is refused."""
        self._unset_keepalive_if_required()
        if self._over:
            return
        if not self._in_body:
            if not self._head:
                self._since = self.loop.time()
            self._head += data
        self._begins_chunk = not self._in_body
        self._chunk = data
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:  # nobody has to agree to one; but what follows may be in the other protocol
                self._over = True
                self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, RelayError) else MalformedRequest())
        else:
            if len(self._head) > self._limits.max_header_bytes + self._limits.max_request_line_bytes:
                self._refuse(HeadersTooLarge())
        self._chunk = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client."""
        super().connection_lost(exc)
        self._tell_departure()

    def resume_writing(self) -> None:
        """Go on writing: the client has taken what was held back for it."""
        self._unsent_bytes = 0
        super().resume_writing()

    # ── What the parser reports ───────────────────────
    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._pipelined = not self._begins_chunk
        if self._pipelined:
            self._head = self._chunk
            self._since = self.loop.time()
        self._begins_chunk = False

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        if len(self.url) + _LINE_OVERHEAD_BYTES > self._limits.max_request_line_bytes:
            raise UriTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those behind a body are dropped: they would come after all decisions."""
        if self._in_body:
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > self._limits.max_header_bytes:
                raise HeadersTooLarge
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head as a whole, then hand the request over."""
        check_head(
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version(),
            self.headers,
            raw=self._head,
            pipelined=self._pipelined,
            upgrade=self.parser.should_upgrade(),
        )
        self._check_size()
        scope = cast("dict[str, object]", self.scope)
        self._departure = scope[DEPARTURE] = Departure(self.flow.resume_reading)
        if self._surplus:
            scope[SURPLUS] = True
        if self.parser.should_upgrade() and self._should_upgrade():
            if self._surplus or self._draining:
                raise Overloaded
            if self._busy:  # the reply that is on its way would end up among the frames
                raise MalformedRequest
        super().on_headers_complete()
        self._head = b""
        self._begins_chunk = False  # the next one in it stands behind this one
        self._in_body = True
        self._since = self.loop.time()
        self._stretch_bytes = 0
        self._trailer_bytes = 0
        if self._surplus or self._draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._stretch_bytes += len(body)
        super().on_body(body)
        if self.flow.read_paused and self._departure.expected:  # no body is taken, and the client may still leave
            self.cycle.body.clear()
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        """Note that the whole request has arrived."""
        self._in_body = False
        self._since = 0.0
        self._idle_since = self.loop.time()  # the reply may have gone before
        super().on_message_complete()

    # ── What the server reports ───────────────────────
    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for it: only for a moment when the relay is ending."""
        # uvicorn's own sets a timer for every reply, which the next request ends; `check_progress` looks instead.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()
        if self._draining:
            self._linger()

    def shutdown(self) -> None:
        """End soon: what runs is finished, and requests that are on their way are answered with `Connection: close`."""
        self._draining = True
        if not self._busy:
            self._linger()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def check_progress(self, now: float) -> None:
        """
        End the connection when its client is too slow; to be called every now and then.

        Args:
            now: The loop's time in seconds.
        """
        if self._stalled(now):
            _log.info("connection", outcome="reply_not_taken")
            self.transport.abort()
        elif self._over or self.transport.is_closing():
            return
        elif not self._since:
            if not self._busy and now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
        elif self.flow.read_paused:  # the relay does not take what comes, so the client cannot be slow
            self._since = now
            self._stretch_bytes = 0
        elif self._in_body:
            if now - self._since > self._limits.body_idle_timeout_seconds:
                if self._stretch_bytes < MIN_BODY_BYTES:
                    self._refuse(RequestTimeout())
                self._since = now
                self._stretch_bytes = 0
        elif now - self._since > self._limits.header_timeout_seconds:
            if self._head:
                self._refuse(RequestTimeout())
            else:  # it never asked for anything
                self.transport.close()

    @property
    def _busy(self) -> bool:
        """Whether a reply is on its way or being made."""
        newest = cast("RequestResponseCycle | None", self.cycle)
        return newest is not None and not newest.response_complete

    def _stalled(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        written = self.flow.write_paused or self.transport.is_closing() or not self._busy
        if not unsent or not written or not self._unsent_bytes or unsent < self._unsent_bytes:
            self._unsent_bytes = unsent if written else 0
            self._unsent_since = now
            return False
        return now - self._unsent_since > self._limits.send_idle_timeout_seconds

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_departure(self) -> None:
        """Only what runs has somebody to tell; what waits behind it has not begun."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn marks the newest alone
            self._running.message_event.set()
            cast("Departure", cast("dict[str, object]", self._running.scope)[DEPARTURE]).leave()

    def _check_size(self) -> None:
        if len(self.headers) > self._limits.max_headers:
            raise HeadersTooLarge
        # All that has arrived is more than the headers, and hardly ever too much.
        if len(self._head) > self._limits.max_header_bytes:
            size = sum(len(name) + len(value) + _HEADER_OVERHEAD_BYTES for name, value in self.headers)
            if size > self._limits.max_header_bytes:
                raise HeadersTooLarge

    def _refuse(self, error: RelayError) -> None:
        """Read no further; answer the error unless an earlier reply is on its way, and close."""
        if self._over:
            return
        self._over = True
        self._head = b""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self._in_body:
            if self.pipeline and self.pipeline[0][0] is cycle:  # it has not begun, and others before it have
                self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else self._running
                cast("RequestResponseCycle", last).keep_alive = False
                return
            if cycle.response_complete:
                self.transport.close()
                return
            # Whoever works for it must stop, and must not write behind what is written here.
            cycle.disconnected = True
            cycle.message_event.set()
            self._tell_departure()
            if cycle.response_started:
                self.transport.abort()
                return
        elif self._busy:
            cycle.keep_alive = False  # the client's fault comes behind that reply; the end of the connection tells it
            return
        self._answer(error)

    def _answer(self, error: RelayError) -> None:
        reply = error_to_reply(error)
        body = cast("bytes", reply.body)
        request_id = new_request_id()
        headers = [
            *reply.headers,
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            (b"x-relay-request-id", request_id.encode()),
        ]
        status = b"HTTP/1.1 %d %b" % (reply.status, HTTPStatus(reply.status).phrase.encode())
        self.transport.write(b"\r\n".join([status, *(b": ".join(header) for header in headers), b"", body]))
        # Bytes that nobody has read make the kernel answer with a reset, which can overtake the reply.
        self.transport.write_eof()
        self.loop.call_later(REFUSED_OPEN_SECONDS, self.transport.close)
        code = ERROR_TABLE[type(error)].code
        self._limits.refused(code, reply.status)
        _log.info("request", request_id=request_id, status=reply.status, outcome=code)

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self.loop.call_later(self._limits.linger_seconds, self._close_unless_busy)

    def _close_unless_busy(self) -> None:
        if self in self.connections and not self._in_body and not self._busy:
            self.transport.close()
