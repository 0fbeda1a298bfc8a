"""
The upstream client: the only module that opens connections to the OpenAI API and the only one that holds its key.

httpx types over the aiohttp transport, which is called directly: the httpx client's own layers (redirects, cookies,
decoding) are not wanted here and cost several times more CPU. Bodies pass through undecoded, pieces as they come.
"""

import asyncio
import errno
import socket
import ssl
import zlib
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from handlers.runtime.connection import ClientGone
from handlers.runtime.exceptions import (
    RelayError,
    UpstreamErrorWithheld,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from handlers.runtime.headers import READABLE_CODINGS, response_headers
from handlers.runtime.messages import Header, Reply
from handlers.runtime.settings import Settings

MIRRORED_PREFIX = "/v1"
# Errors are read whole before they go on, to see whether they repeat our key. Real ones have a few hundred bytes.
MAX_ERROR_BYTES = 1024 * 1024


class Upstream:
    """
    One pool of connections to one upstream service.

    Args:
        settings: Address, credentials and timeouts.
    """

    def __init__(self, settings: Settings) -> None:
        self._base_url = settings.OPENAI_BASE_URL
        self._extensions = {
            "timeout": {
                "connect": settings.RELAY_CONNECT_TIMEOUT_SECONDS,
                "read": settings.RELAY_IDLE_TIMEOUT_SECONDS,
                "pool": None,
            }
        }
        self._idle_timeout_seconds = settings.RELAY_IDLE_TIMEOUT_SECONDS
        self._secret = settings.OPENAI_API_KEY.get_secret_value().encode()
        self._own_headers = _credentials(settings)
        tls = httpx.create_ssl_context()
        self._transport = AiohttpTransport(
            verify=tls, client=partial(_new_session, tls, settings.RELAY_IDLE_TIMEOUT_SECONDS)
        )
        self.calls = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: bytes = b"",
        headers: list[Header],
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Reply:
        """
        Send one request; the reply's body is streamed and must be read or closed.

        Args:
            path: Starts with `/v1/`, values encoded.
            headers: Already reduced to what may travel upstream.
            content: `None` sends no body.

        Returns:
            Upstream's status, the headers that may travel to the client, and the body as it comes, still encoded.

        Raises:
            UpstreamUnreachable: No connection (502).
            UpstreamProtocolError: No valid HTTP answer (502).
            UpstreamErrorWithheld: Its error repeats the relay's key, or may do so (502).
            UpstreamTimeout: No connection, no headers or no byte in time (504).
        """
        url = f"{self._base_url}{path.removeprefix(MIRRORED_PREFIX)}"
        if query:
            url = f"{url}?{query.decode('ascii')}"
        request = httpx.Request(
            method,
            url,
            headers=[*headers, *self._own_headers],
            content=content,
            extensions=self._extensions,
        )
        # httpx adds these by itself; only what the client sent may go out.
        for name in (b"host",) if content is not None else (b"host", b"content-length"):
            request.headers.pop(name.decode(), None)
        self.calls += 1
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.TransportError, aiohttp.ClientError, OSError) as error:
            raise _transport_error(error) from None
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            return await self._without_echoed_key(response)
        return Reply(
            status=response.status_code,
            headers=response_headers(response.headers.raw),
            body=self._pieces(response),
            close=response.aclose,
        )

    def check_echo(self, content: bytes) -> None:
        """
        Look into what is about to be told to a client as an answer of the relay's own making.

        Args:
            content: As it came from the upstream, without a coding.

        Raises:
            UpstreamErrorWithheld: It repeats the relay's key (502).
        """
        if self._secret and self._secret in content:
            raise UpstreamErrorWithheld

    async def _without_echoed_key(self, response: httpx.Response) -> Reply:
        """Read an error whole; hold it back when it repeats our credentials."""
        body = b""
        try:
            async for piece in self._pieces(response):
                body += piece
                if len(body) > MAX_ERROR_BYTES:
                    break
        finally:
            await response.aclose()
        if len(body) > MAX_ERROR_BYTES or (self._secret and self._secret in _decoded(response, body)):
            raise UpstreamErrorWithheld
        headers = [header for header in response_headers(response.headers.raw) if header[0] != b"content-length"]
        return Reply(response.status_code, headers, body)

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        pieces = aiter(cast("httpx.AsyncByteStream", response.stream))  # the transport makes no other kind
        while True:
            try:
                # aiohttp 3.14 forgets both its reader and its own timeout when a chunk behind the headers is malformed.
                async with asyncio.timeout(self._idle_timeout_seconds):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except (httpx.TransportError, aiohttp.ClientError, OSError) as error:
                raise _transport_error(error) from None
            yield piece


def _decoded(response: httpx.Response, body: bytes) -> bytes:
    """
    Undo the content coding of an error.

    Raises:
        UpstreamErrorWithheld: It cannot be undone, so nobody knows what it says (502).
    """
    coding = response.headers.get("content-encoding", "identity").lower()
    if coding == "identity" or not body:
        return body
    if coding.encode() not in READABLE_CODINGS:
        raise UpstreamErrorWithheld
    try:
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip and deflate apart by itself
        decoded = decoder.decompress(body, MAX_ERROR_BYTES)
    except zlib.error:
        raise UpstreamErrorWithheld from None
    # Cut short, or it unfolds into more than an error may have, or a second member follows, which nobody has read.
    if not decoder.eof or decoder.unused_data:
        raise UpstreamErrorWithheld
    return decoded


def _transport_error(error: Exception) -> Exception:
    # The transport maps a broken connection and a late answer to overlapping httpx types; aiohttp's own are exact.
    cause = error.__cause__ or error
    # What stopped the client's body while it was being sent comes back wrapped.
    wrapped: BaseException | None = error
    while wrapped is not None:
        if isinstance(wrapped, (RelayError, ClientGone)):
            return wrapped
        wrapped = wrapped.__cause__
    if isinstance(cause, (aiohttp.ServerTimeoutError, TimeoutError)) or getattr(cause, "errno", 0) == errno.ETIMEDOUT:
        return UpstreamTimeout()
    if isinstance(cause, aiohttp.ClientConnectorError):
        return UpstreamUnreachable()
    return UpstreamProtocolError()


def _credentials(settings: Settings) -> list[Header]:
    own = []
    key = settings.OPENAI_API_KEY.get_secret_value()
    if key:
        own.append((b"authorization", f"Bearer {key}".encode()))
    if settings.OPENAI_ORG_ID:
        own.append((b"openai-organization", settings.OPENAI_ORG_ID.encode()))
    if settings.OPENAI_PROJECT_ID:
        own.append((b"openai-project", settings.OPENAI_PROJECT_ID.encode()))
    return own


def _new_session(tls: ssl.SSLContext, idle_timeout_seconds: float) -> aiohttp.ClientSession:
    def open_socket(address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, _ = address
        opened = socket.socket(family, kind, protocol)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # aiohttp's read timeout starts when a body has been sent; an upstream that stops reading is the kernel's.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(idle_timeout_seconds * 1000))
        return opened

    return aiohttp.ClientSession(
        # No limit here: a queue in front of the upstream would hold requests back without telling anybody.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=tls, socket_factory=open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),  # upstream's cookies must not travel from one client to another
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        trust_env=False,
        auto_decompress=False,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
        read_bufsize=64 * 1024,
    )
