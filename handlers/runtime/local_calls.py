"""
Calls operations of this relay from inside, through everything that a request from outside goes through.

What another protocol asks for is thereby matched, authorised, validated, limited, answered and logged like a request
over HTTP. Only the caller is taken over: whoever vouches for it has authenticated it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

from handlers.runtime.access import Caller
from handlers.runtime.budget import MAX_READ_BYTES, decoded_body
from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.messages import Header, Progress, Reply, Request

INSIDE = "relay.inside"
# Where the caller came from, for links that lead back to the relay. Credentials stay behind.
_PASSED_ON = frozenset({b"host", b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"user-agent"})


@dataclass(frozen=True, slots=True)
class Inside:
    """
    What the pipeline is told about a call from inside.

    Args:
        caller: Authenticated before, and authorised anew for the operation that is called.
        request_id: Of the request from outside that brought the call; stands in its log line.
        progress: Where the operation tells how far it has come.
    """

    caller: Caller | None
    request_id: str
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class LocalCall:
    """
    A request to an operation.

    Args:
        raw_path: Percent-encoded, without the query.
        body: JSON, or `None` for none.
    """

    method: str
    raw_path: str
    query: bytes = b""
    body: bytes | None = None


class LocalCalls:
    """Calls operations of one relay; `serve` must have been given its application."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    def serve(self, app: ASGIApp) -> None:
        """Call the operations of this application from now on."""
        self._app = app

    async def call(self, request: Request, call: LocalCall, progress: Progress) -> Reply:
        """
        Call an operation; when this is cancelled, the operation is told that its client has left, and waited for.

        Args:
            request: From outside; its caller is the one who asks.
            progress: Written to while the call runs.

        Returns:
            The whole reply, the relay's refusals included.

        Raises:
            UpstreamProtocolError: The reply broke off, or is longer than `MAX_READ_BYTES` (502).
        """
        if self._app is None:
            raise RuntimeError("`serve` must come before the first call")
        exchange = _Exchange(call.body or b"")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": call.method,
            "scheme": "http",
            "path": call.raw_path,
            "raw_path": call.raw_path.encode("ascii"),
            "query_string": call.query,
            "root_path": "",
            "headers": _headers(request, call.body),
            "client": None,
            "server": None,
            INSIDE: Inside(request.caller, request.id, progress),
        }
        # In a task of its own: whoever cancels this may do so over and over, as anyio does, while the operation still
        # gives back what it holds.
        running = asyncio.create_task(_run(self._app, scope, exchange))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            exchange.leave()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([running])
            raise
        return exchange.reply()


class _Exchange:
    """The client's side of a call: gives the body, stays until it must leave, and gathers the reply."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._status = 0
        self._headers: list[Header] = []
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._complete = False
        self._left = asyncio.Event()

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        if self._body is None:
            await self._left.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        piece = message.get("body", b"")
        self._bytes += len(piece)
        if self._bytes > MAX_READ_BYTES:
            self._pieces.clear()
            raise UpstreamProtocolError
        self._pieces.append(piece)
        self._complete = not message.get("more_body", False)

    def reply(self) -> Reply:
        if self._bytes > MAX_READ_BYTES:
            raise UpstreamProtocolError("The answer is longer than a tool can give; the call may have worked.")
        if not self._complete:
            raise UpstreamProtocolError("The answer broke off; the call may have worked.")
        return Reply(self._status, self._headers, decoded_body(b"".join(self._pieces), self._headers))


async def _run(app: ASGIApp, scope: dict[str, Any], exchange: _Exchange) -> None:
    await app(scope, exchange.receive, exchange.send)


def _headers(request: Request, body: bytes | None) -> list[Header]:
    headers = [header for header in request.headers if header[0] in _PASSED_ON]
    if body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return headers
