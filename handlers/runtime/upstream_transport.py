"""
httpx types over aiohttp: the transport of httpx-aiohttp, without what it works out anew for every request.

Not for: what may be sent, how long that may take as a whole, and what failures mean.
"""

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, Final, Self

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict
from yarl import URL

from handlers.runtime.messages import Header
from handlers.runtime.upstream_wire import new_session

# Most requests go to a few addresses; long ones are hardly ever asked for twice.
_KEPT_ADDRESSES: Final = 1024
_MAX_KEPT_CHARACTERS: Final = 512
# A body up to this goes out in one go: the time of its answer begins with the request.
QUICK_BODY_BYTES: Final = 64 * 1024


class UpstreamStream(httpx.AsyncByteStream):
    """
    The body of one answer, undecoded, in pieces as they come.

    Args:
        response: Whose headers have been read.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._content.readany()
        except aiohttp.ClientError as error:
            raise httpx.ReadError(str(error)) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    def take_whole(self) -> bytes | None:
        """All of it where all has come already, so that nothing is left to be closed; else nothing is taken."""
        content = self._content
        return content.read_nowait() if content.is_eof() and content.exception() is None else None

    async def aclose(self) -> None:
        """Give the connection back, or up where the body has not been read to its end."""
        await self._response.__aexit__(None, None, None)


class Transport(AiohttpTransport):
    """
    The connections to one upstream.

    Args:
        connect_timeout_seconds: To look the name up and to try every address in turn; nothing waits in the pool itself.
        idle_timeout_seconds: Between the end of a long or streamed body and the answer; also how long sent bytes may
            stay unacknowledged.
        resolver: Finds the addresses of names; the system's by default.
    """

    def __init__(
        self, connect_timeout_seconds: float, idle_timeout_seconds: float, resolver: AbstractResolver | None = None
    ) -> None:
        tls = httpx.create_ssl_context()
        super().__init__(verify=tls, client=partial(new_session, tls, idle_timeout_seconds, resolver))
        self._session: aiohttp.ClientSession | None = None
        self._timeout = aiohttp.ClientTimeout(connect=connect_timeout_seconds, sock_connect=connect_timeout_seconds)
        self._long_body_timeout = aiohttp.ClientTimeout(
            connect=connect_timeout_seconds, sock_connect=connect_timeout_seconds, sock_read=idle_timeout_seconds
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request and read the headers of its answer.

        Args:
            request: Of `new_request`. Where `sent_at_once` nothing but connecting has a timeout.

        Raises:
            httpx.TransportError: From aiohttp's own exception, which says more.
        """
        if self._session is None:  # now, in the loop that will use it
            self._session = self.client = self.get_client()
        whole = isinstance(request.stream, httpx.ByteStream)
        if not whole:
            request.headers.pop("transfer-encoding", None)  # aiohttp says so itself
        try:
            response = await self._session.request(
                request.method,
                request.extensions["address"],
                headers=CIMultiDict(map(_decoded, request.headers.raw)),
                data=(request.read() or None) if whole else request.stream,
                allow_redirects=False,
                timeout=self._timeout if sent_at_once(request) else self._long_body_timeout,
            )
        except aiohttp.ClientError as error:
            raise httpx.TransportError(str(error)) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=UpstreamStream(response))


def new_request(method: str, url: str, headers: Iterable[Header], content: Any) -> httpx.Request:
    """
    Make a request that sends these headers and no others.

    Args:
        url: Absolute, encoded.
        content: Bytes, or their pieces (`AsyncIterator`); `None` sends no body.
    """
    parsed, address = _kept_address(url) if len(url) <= _MAX_KEPT_CHARACTERS else _parse_address(url)
    sent = _joined(headers)
    quick = content is None or (isinstance(content, bytes) and len(content) <= QUICK_BODY_BYTES)
    extensions = {"address": address, "sent_at_once": quick}
    if content is not None and not isinstance(content, bytes):
        request = httpx.Request(method, parsed, headers=sent, content=content, extensions=extensions)
        del request.headers["host"]  # httpx adds it by itself; only what the client sent may go out
        return request
    # A request with a `stream` gets no headers of httpx's own, and costs half of one with a `content`.
    if content is not None:
        sent.append((b"content-length", b"%d" % len(content)))
    return httpx.Request(method, parsed, headers=sent, stream=httpx.ByteStream(content or b""), extensions=extensions)


def sent_at_once(request: httpx.Request) -> bool:
    """Whether a request of `new_request` is so short that sending it takes no time of its own."""
    return bool(request.extensions["sent_at_once"])


def _joined(headers: Iterable[Header]) -> list[Header]:
    """Headers of one name in one line (RFC 9110, section 5.3), for those who read the first alone."""
    sent = list(headers)
    lines = dict(sent)
    if len(lines) == len(sent):
        return sent
    return [(name, b", ".join(value for other, value in sent if other == name)) for name in lines]


def _parse_address(url: str) -> tuple[httpx.URL, URL]:
    parsed = httpx.URL(url)
    return parsed, URL(str(parsed))


_kept_address = lru_cache(_KEPT_ADDRESSES)(_parse_address)


def _decoded(header: Header) -> tuple[str, str]:
    name, value = header
    try:
        return name.decode("ascii"), value.decode()
    except UnicodeDecodeError:
        return name.decode("ascii"), value.decode("latin-1")
