"""A bare ASGI application with an aiohttp session: what the httpx types of the other one cost shows beside it."""

from typing import Any

import aiohttp

from tests.bench.pass_through import (
    HOP_HEADERS,
    Message,
    Receive,
    RequestBody,
    Send,
    answer_probe,
    new_session,
    upstream_url,
)

_sessions: list[aiohttp.ClientSession] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Pass one request on."""
    if scope["path"] == "/livez":
        await answer_probe(send)
        return
    if not _sessions:
        _sessions.append(new_session())
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name not in HOP_HEADERS
    ]
    first = await receive()
    body: Any = first.get("body", b"")
    if first.get("more_body"):
        body = RequestBody(body, receive)
    async with _sessions[0].request(
        scope["method"], f"{upstream_url}{scope['path']}", headers=headers, data=body or None, allow_redirects=False
    ) as response:
        kept = [(name.lower(), value) for name, value in response.raw_headers if name.lower() not in HOP_HEADERS]
        await send({"type": "http.response.start", "status": response.status, "headers": kept})
        async for piece in response.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
