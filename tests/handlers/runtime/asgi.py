"""Asks the whole relay over ASGI, without a socket, before a transport that stands for the upstream."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from connexion import AsyncApp

from handlers.runtime.connection import Message

PATIENCE_SECONDS = 5.0


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The only value of a header; two are an error."""
        values = [value.decode() for key, value in self.headers if key == name.encode()]
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    @property
    def code(self) -> str:
        """Code of the relay's error."""
        return str(orjson.loads(self.body)["error"]["code"])


@dataclass
class UpstreamDouble(httpx.AsyncBaseTransport):
    """Keeps what reached it and answers every request with the same JSON."""

    requests: list[httpx.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        self.bodies.append(await request.aread())
        return httpx.Response(200, headers={"content-type": "application/json"}, content=b'{"from": "upstream"}')


async def ask(
    app: AsyncApp,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """
    Send one request through the app.

    Args:
        path: As it would come over the wire, percent-encoded; bytes beyond ASCII as Latin-1.
    """
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    lines = {**({"content-length": str(len(body))} if body else {}), **(headers or {})}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "root_path": "",
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    async with asyncio.timeout(PATIENCE_SECONDS):
        await app(scope, incoming.get, send)
    assert sent, "no reply"
    return Answer(sent[0]["status"], sent[0]["headers"], b"".join(message["body"] for message in sent[1:]))
