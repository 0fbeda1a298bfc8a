"""The same floor over the relay's own transport: what the relay adds to its client shows beside it."""

from typing import cast

import httpx

from handlers.runtime.upstream_transport import Transport, UpstreamStream, new_request
from tests.bench.pass_through import HOP_HEADERS, Message, Receive, RequestBody, Send, answer_probe, upstream_url

_transport = Transport(5.0, 60.0)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Pass one request on."""
    if scope["path"] == "/livez":
        await answer_probe(send)
        return
    headers = [header for header in scope["headers"] if header[0] not in HOP_HEADERS]
    first = await receive()
    body: bytes | RequestBody = first.get("body", b"")
    if first.get("more_body"):
        body = RequestBody(cast("bytes", body), receive)
    elif body:
        headers = [header for header in headers if header[0] != b"content-length"]
    response = await _transport.handle_async_request(
        new_request(scope["method"], f"{upstream_url}{scope['path']}", headers, body or None)
    )
    stream = cast("UpstreamStream", response.stream)
    kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in HOP_HEADERS]
    await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
    whole = stream.take_whole()
    if whole is not None:
        await send({"type": "http.response.body", "body": whole})
        return
    try:
        async for piece in cast("httpx.AsyncByteStream", stream):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    finally:
        await stream.aclose()
