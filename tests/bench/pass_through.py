"""
The floor under the relay: a bare ASGI application with the relay's client, and nothing else.

httpx types over the aiohttp transport, called directly. Run by the benchmark under uvicorn, BENCH_UPSTREAM_URL set.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Of one connection, not of what it carries.
HOP_HEADERS = frozenset({b"connection", b"host", b"keep-alive", b"transfer-encoding"})
_TIMEOUTS = {"timeout": {"connect": 5.0, "read": 60.0, "pool": 5.0}}
upstream_url = os.environ.get("BENCH_UPSTREAM_URL", "")
_tls = httpx.create_ssl_context()


def new_session() -> aiohttp.ClientSession:
    """As lean as the library makes it; needs a running loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        auto_decompress=False,
        read_bufsize=64 * 1024,
    )


_transport = AiohttpTransport(verify=_tls, client=new_session)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Pass one request on."""
    if scope["path"] == "/livez":
        await answer_probe(send)
        return
    headers = [header for header in scope["headers"] if header[0] not in HOP_HEADERS]
    first = await receive()
    body = first.get("body", b"")
    stream: httpx.AsyncByteStream = httpx.ByteStream(body)
    if first.get("more_body"):
        stream = RequestBody(body, receive)
    request = httpx.Request(
        scope["method"], f"{upstream_url}{scope['path']}", headers=headers, stream=stream, extensions=_TIMEOUTS
    )
    response = await _transport.handle_async_request(request)
    try:
        kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in HOP_HEADERS]
        await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
        async for piece in cast("httpx.AsyncByteStream", response.stream):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    finally:
        await response.aclose()


async def answer_probe(send: Send) -> None:
    """Tell that the application runs."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


class RequestBody(httpx.AsyncByteStream):
    """
    A body as it comes.

    Args:
        first: What has come of it.
        receive: For the rest.
    """

    def __init__(self, first: bytes, receive: Receive) -> None:
        self._first = first
        self._receive = receive

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        more = True
        while more:
            message = await self._receive()
            yield message.get("body", b"")
            more = message.get("more_body", False)
