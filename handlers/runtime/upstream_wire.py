"""
Connections to the upstream that take no byte for an answer which nobody asked for.

aiohttp reads heads leniently, and keeps a connection whose peer said more than it was asked (3.14.5, also after the
answer): the next request on it would get those bytes as its own answer. Here heads follow RFC 9112 to the letter, and
a connection with leftover bytes is closed. Bodies, chunks and lengths are aiohttp's.
"""

import re
import socket
import ssl
from asyncio import AbstractEventLoop
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import StreamReader

# Real heads have some 2,000 bytes; interim answers (100, 103) count with the one that they announce.
MAX_HEAD_BYTES = 256 * 1024
MAX_INTERIM_ANSWERS = 10
KEEPALIVE_SECONDS = 30
# RFC 9112, sections 4 and 5, without obsolete folding, with CRLF alone as the end of a line. What aiohttp refuses in
# any case (a lonely CR, a line without a name, a name with other characters) is not looked for twice.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r|\Z)")
_SPACE_IN_NAME = re.compile(rb"\n[!-9;-~]*+[^!-~]")  # before it, too: a folded line
_TEXT = bytes([ord("\t"), *range(0x20, 0x7F), *range(0x80, 0x100)])
_HEAD_END = b"\r\n\r\n"
_SWITCHING_PROTOCOLS = b"101"


class Unanswered(aiohttp.ServerDisconnectedError):
    """The connection broke before the first byte of an answer."""


class Wire(ResponseHandler):
    """One connection: at most one answer to each request, and none without a request."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._asked = False
        self._head: bytes | None = b""  # what has come of it; `None` once it is complete
        self._interim_answers = 0
        self._reading = False

    def set_response_params(self, **options: Any) -> None:
        """Expect the answer to one request; aiohttp calls this before it sends one."""
        self._asked = True
        self._head = b""
        self._interim_answers = 0
        super().set_response_params(**options)

    def rest(self) -> None:
        """Expect nothing until the next request."""
        self._asked = False
        if not self._reading:  # within its own callback the parser cannot be asked; `data_received` does it then
            self._close_with_leftovers()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer that is expected; anything else ends the connection."""
        if not self._asked:
            if data:  # nothing comes when reading goes on after a pause
                self._refuse("bytes without a request")
            return
        if self._head is not None and data:
            wrong = self._read_head(data)
            if wrong:
                self._refuse(wrong)
                return
        self._reading = True
        try:
            super().data_received(data)
        finally:
            self._reading = False
        if not self._asked:  # the answer was complete, so the connection was given back meanwhile
            self._close_with_leftovers()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take a head that has been read; aiohttp calls this."""
        message = data[0]
        if "Transfer-Encoding" in message.headers:
            # A body is framed in one way that everybody reads alike (RFC 9112, section 6.1).
            codings = [coding.strip().lower() for coding in message.headers.getall("Transfer-Encoding")]
            if codings != ["chunked"] or message.version != HttpVersion11:
                self._refuse("a transfer coding that nobody asked for")
                return
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell a connection that broke without an answer from one that broke within it."""
        silent = self._asked and self._head == b"" and not self._interim_answers and self.exception() is None
        if silent and (exc is None or isinstance(exc, ConnectionError)):  # the kernel's own timeout is another matter
            self.set_exception(Unanswered("Connection lost before an answer"))
        super().connection_lost(exc)

    def _read_head(self, data: bytes) -> str:
        """Hold the head against the grammar; says what is wrong with it."""
        known = len(self._head or b"")
        head = self._head + data if self._head else data
        end = head.find(_HEAD_END, max(0, known - len(_HEAD_END) + 1))
        while end >= 0:
            if end > MAX_HEAD_BYTES:
                return "too long a head"
            status, wrong = _check_head(head[:end])
            if wrong:
                return wrong
            if not status.startswith(b"1"):
                self._head = None
                return ""
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                return "too many interim answers"
            head = head[end + len(_HEAD_END) :]
            end = head.find(_HEAD_END)
        self._head = head
        if len(head) > MAX_HEAD_BYTES:
            return "too long a head"
        # Told now: aiohttp would see the end of the head in two bare line feeds.
        return "a bare line feed" if head.count(b"\n") != head.count(b"\r\n") else ""

    def _refuse(self, why: str) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.close()
        self.set_exception(BadHttpMessage(why))

    def _close_with_leftovers(self) -> None:
        if self.transport is None:
            return
        try:
            # Whoever has the beginning of another answer makes a message of it here.
            clean = not self._buffer and self._parser is not None and self._parser.feed_eof() is None
        except Exception:  # noqa: BLE001 - whatever it is that it cannot end
            clean = False
        if not clean:
            self.close()


class Pool(aiohttp.TCPConnector):
    """
    The connections to one upstream.

    Args:
        tls: For https addresses.
        idle_timeout_seconds: How long sent bytes may stay unacknowledged.
        resolver: Finds the addresses of names; the system's by default.
    """

    def __init__(
        self, tls: ssl.SSLContext, idle_timeout_seconds: float, resolver: AbstractResolver | None = None
    ) -> None:
        super().__init__(
            limit=0,  # `handlers.runtime.upstream_slots` limits, and tells those who wait
            keepalive_timeout=KEEPALIVE_SECONDS,
            ssl=tls,
            socket_factory=partial(_open_socket, round(idle_timeout_seconds * 1000)),
            resolver=resolver,
        )
        self._factory = cast("partial[ResponseHandler]", partial(Wire, self._loop))

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if isinstance(protocol, Wire):
            protocol.rest()


def new_session(
    tls: ssl.SSLContext, idle_timeout_seconds: float, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """
    Make what the transport sends requests with; needs a running loop.

    Args:
        tls: And the others as for `Pool`.
    """
    session = aiohttp.ClientSession(
        connector=Pool(tls, idle_timeout_seconds, resolver),
        cookie_jar=aiohttp.DummyCookieJar(),  # upstream's cookies must not travel from one client to another
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        trust_env=False,
        auto_decompress=False,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
        read_bufsize=64 * 1024,
    )
    # aiohttp would repeat a request once by itself, unseen; `handlers.runtime.upstream_retries` decides that.
    session._retry_connection = False
    return session


def _check_head(head: bytes) -> tuple[bytes, str]:
    """The status, and what is wrong with a head, given without the empty line behind it."""
    found = _STATUS_LINE.match(head)
    if found is None or found[1] == _SWITCHING_PROTOCOLS:
        return b"", "no status line of HTTP/1.1"
    controls = head.translate(None, _TEXT)
    if controls != b"\r\n" * (len(controls) // 2):
        return b"", "a control character"
    if _SPACE_IN_NAME.search(head):
        return b"", "a folded line, or a space behind a name"
    return found[1], ""


def _open_socket(user_timeout_milliseconds: int, address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # aiohttp's read timeout starts when a body has been sent; an upstream that stops reading is the kernel's.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_milliseconds)
    return opened
