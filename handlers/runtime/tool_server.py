"""
Carries messages of the Model Context Protocol between requests of `POST /mcp` and the SDK behind it.

Keeps no session: every message is authenticated, and any replica can answer it. The id that `initialize` hands out only
tells clients of one key apart, so that a notice of cancellation ends the right call where it runs.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from starlette.types import ASGIApp, Message

from codegen.contract import JSON
from codegen.tools import Tool
from handlers.runtime.exceptions import InternalError, InvalidBody, NotAcceptable
from handlers.runtime.local_calls import LocalCalls
from handlers.runtime.matching import OperationIndex
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.routes import Route

REQUEST = "relay.request"  # in the scope that the SDK is given
SESSION_HEADER = b"mcp-session-id"
MAX_SESSION_ID_CHARACTERS = 128
_PROTOCOL = "handlers.runtime.tool_protocol"
_EVENT_STREAM = b"text/event-stream"
# Of the SDK's reply headers those that are about its body.
_KEPT = frozenset({b"content-type", b"cache-control"})
_CREDENTIALS = frozenset({b"authorization", b"x-relay-key", b"cookie"})
_REQUEST_CANCELLED = -32800  # as the Language Server Protocol numbers it; MCP has none

# Whose call, of which client of that key, under which id.
_Call = tuple[str, bytes, str | int]


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """
    What is offered, and what its calls need.

    Args:
        tools: One per operation of the Actions document.
        index: Paths to routes; a call must lead to the tool's own operation.
        calls: Runs the calls.
        version: Of the contract.
        max_body_bytes: Of one message.
    """

    tools: tuple[Tool, ...]
    index: OperationIndex[Route]
    calls: LocalCalls
    version: str
    max_body_bytes: int


class ToolServer:
    """
    Answers messages; the SDK behind it is loaded with the first.

    Args:
        offer: What it answers about.
    """

    def __init__(self, offer: ToolOffer) -> None:
        self.offer = offer
        self._starting: asyncio.Future[ASGIApp] | None = None
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._running: dict[_Call, _Exchange] = {}

    async def exchange(self, request: Request) -> Reply:
        """
        Answer one message.

        Args:
            request: Its body is a validated `McpMessage`.

        Returns:
            The SDK's reply; an event stream goes out as it comes, and closing it cancels the call.

        Raises:
            InvalidBody: `id` is a number with a point (400).
            NotAcceptable: `Accept` leaves out JSON or event streams (406).
        """
        message = request.body
        if isinstance(message.get("id"), float):
            # 1.0 is an integer by JSON Schema, and by the SDK no id: it would take the message without an answer.
            raise InvalidBody("`id` must be a string or an integer without a point.", param="id")
        app = await self._started()
        if message.get("method") == "notifications/cancelled":
            self._cancel(request)
        exchange = _Exchange(app, request)
        call = _call_of(request, message.get("id")) if message.get("method") == "tools/call" else None
        if call is not None:
            self._running[call] = exchange
            exchange.task.add_done_callback(lambda _: self._forget(call, exchange))
        try:
            reply = await exchange.reply()
        except BaseException:
            await exchange.close()
            raise
        if message.get("method") == "initialize" and reply.status == 200:
            reply.headers.append((SESSION_HEADER, secrets.token_hex(16).encode()))
        return reply

    @property
    def loaded(self) -> bool:
        """Whether a message has come since the start: only then the SDK is loaded."""
        return self._starting is not None and self._starting.done()

    async def close(self) -> None:
        """End what still runs."""
        if self._serving is not None:
            self._stop.set()
            await asyncio.wait([self._serving])

    async def _started(self) -> ASGIApp:
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_future()
            # The SDK's tasks must begin and end in one task, which is neither a request's nor the start's.
            self._serving = asyncio.create_task(self._serve(self._starting))
        return await asyncio.shield(self._starting)  # who leaves meanwhile does not end the start of the others

    async def _serve(self, started: asyncio.Future[ASGIApp]) -> None:
        try:
            module = await asyncio.to_thread(import_module, _PROTOCOL)
            protocol = module.ToolProtocol(self.offer)
            async with protocol.running() as app:
                started.set_result(app)
                await self._stop.wait()
        except Exception as error:
            self._starting = None  # the next message tries again
            if started.done():
                raise
            started.set_exception(error)

    def _cancel(self, request: Request) -> None:
        params = request.body.get("params") or {}
        call = _call_of(request, params.get("requestId"))
        exchange = self._running.get(call) if call is not None else None
        if exchange is not None:
            exchange.task.cancel()

    def _forget(self, call: _Call, exchange: "_Exchange") -> None:
        if self._running.get(call) is exchange:
            del self._running[call]


class _Exchange:
    """One message on its way through the SDK, as a task that ends with it."""

    def __init__(self, app: ASGIApp, request: Request) -> None:
        self._request = request
        # One message waits: the SDK is held up when the client reads slowly.
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(1)
        self._received = False
        self._ended = False
        self._complete = False
        self.task = asyncio.create_task(self._run(app))

    async def reply(self) -> Reply:
        start = await self._next()
        if start is None:
            return await self._nothing()
        status = start["status"]
        if status == 406:
            await self.close()
            raise NotAcceptable
        headers: list[Header] = [header for header in start["headers"] if header[0] in _KEPT]
        if (b"content-type", _EVENT_STREAM) in [(name, value.split(b";")[0]) for name, value in headers]:
            headers.append((b"x-accel-buffering", b"no"))
            return Reply(status, headers, self._pieces(), self.close)
        body = b"".join([piece async for piece in self._pieces()])
        if not self._complete:
            return await self._nothing()
        return Reply(status, headers, body) if status != 202 else Reply(status, [])

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self, app: ASGIApp) -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self._request.path,
            "raw_path": self._request.path.encode("ascii"),
            "query_string": b"",
            "root_path": "",
            "headers": [
                # The relay has read the type, in whatever case it was written; the SDK knows the usual one alone.
                (name, JSON.encode()) if name == b"content-type" else (name, value)
                for name, value in self._request.headers
                if name not in _CREDENTIALS
            ],
            "client": None,
            "server": None,
            REQUEST: self._request,
        }
        try:
            await app(scope, self._receive, self._messages.put)
        finally:
            self._ended = True
            if self._messages.empty():  # somebody may be waiting; else the end shows when the last has been read
                self._messages.put_nowait(None)

    async def _receive(self) -> Message:
        if self._received:
            await asyncio.get_running_loop().create_future()  # who leaves cancels the task
        self._received = True
        return {"type": "http.request", "body": self._request.raw_body, "more_body": False}

    async def _next(self) -> Message | None:
        if self._ended and self._messages.empty():
            return None
        return await self._messages.get()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (message := await self._next()) is not None:
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                self._complete = True
                return
        await self._end()

    async def _nothing(self) -> Reply:
        """What is answered when the SDK ends without an answer."""
        await self._end()
        if not self.task.cancelled():
            raise InternalError
        return _cancelled(self._request)

    async def _end(self) -> None:
        """Wait for the end; a defect is raised on, so that it is logged and breaks a reply off that has begun."""
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()


def _call_of(request: Request, message_id: Any) -> _Call | None:
    session = request.header(SESSION_HEADER)
    if session is None or len(session) > MAX_SESSION_ID_CHARACTERS or request.caller is None:
        return None
    if not isinstance(message_id, (str, int)) or isinstance(message_id, bool):  # true would be 1
        return None
    return request.caller.key_id, session, message_id


def _cancelled(request: Request) -> Reply:
    error = {"code": _REQUEST_CANCELLED, "message": "The call was cancelled."}
    return Reply.json({"jsonrpc": "2.0", "id": request.body.get("id"), "error": error})
