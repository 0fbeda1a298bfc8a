"""
MCP in front of a relay: the official client in both eras of the protocol, and single messages without its help.

What a tool answers is put together again to the reply of its operation here, without the relay's own code.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import BlobResourceContents, CallToolResult, EmbeddedResource, TextContent
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from handlers.runtime.tool_results import FILES_FIELD, STATUS

Era = Literal["legacy", "modern"]
ERAS: tuple[Era, ...] = ("legacy", "modern")
TIMEOUT_SECONDS = 50.0  # longer than the relay may take, so that its own limit shows
BOTH_TYPES = "application/json, text/event-stream"
_META = "io.modelcontextprotocol"


@asynccontextmanager
async def tool_client(relay_url: str, headers: Mapping[str, str], era: Era = "modern") -> AsyncIterator[Client]:
    """
    The official client.

    Args:
        relay_url: Without a path.
        headers: Of every request, its key among them.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    try:
        async with (
            httpx2.AsyncClient(headers=dict(headers), timeout=TIMEOUT_SECONDS, limits=limits) as http,
            Client(
                streamable_http_client(f"{relay_url}/mcp", http_client=http),
                mode="legacy" if era == "legacy" else "auto",
            ) as client,
        ):
            yield client
    except BaseExceptionGroup as group:  # what a test says is wrong stands within the groups of the client's tasks
        raise _innermost(group) from None


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def message(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    id: str | int | None = 1,  # noqa: A002 - JSON-RPC's own name
    era: Era = "modern",
    session: str | None = None,
    progress_token: str | int | None = None,
) -> dict[str, Any]:
    """
    Arguments of `httpx` for one message as the protocol wants it.

    Args:
        id: `None` for a notification.
        session: The id that `initialize` gave.
    """
    headers = {"Accept": BOTH_TYPES, "MCP-Protocol-Version": LATEST_HANDSHAKE_VERSION}
    meta: dict[str, Any] = {} if progress_token is None else {"progressToken": progress_token}
    params = dict(params or {})
    if era == "modern":
        headers |= {"MCP-Protocol-Version": LATEST_MODERN_VERSION, "Mcp-Method": method}
        headers |= {"Mcp-Name": params["name"]} if "name" in params else {}
        meta |= {f"{_META}/protocolVersion": LATEST_MODERN_VERSION, f"{_META}/clientCapabilities": {}}
    headers |= {"Mcp-Session-Id": session} if session is not None else {}
    params |= {"_meta": meta} if meta else {}
    body = {"jsonrpc": "2.0", "method": method, "params": params, **({} if id is None else {"id": id})}
    return {"headers": headers, "json": body}


def initialize() -> dict[str, Any]:
    """Arguments of `httpx` for the first message of a client of the older protocol."""
    info = {"name": "test", "version": "1"}
    return message(
        "initialize",
        {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": info},
        id="first",
        era="legacy",
    )


def call(name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Arguments of `httpx` for the call of a tool; the options are those of `message`."""
    return message("tools/call", {"name": name, "arguments": dict(arguments or {})}, **options)


def answer_of(reply: httpx.Response) -> dict[str, Any]:
    """The JSON-RPC message that answers, from JSON or from the last event."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        found: dict[str, Any] = reply.json()
        return found
    return events_of(reply.text)[-1]


def events_of(text: str) -> list[dict[str, Any]]:
    """The messages of an event stream, in order; comments are passed over."""
    return [json.loads(line.removeprefix("data:")) for line in text.splitlines() if line.startswith("data:")]


def status_of(result: CallToolResult) -> int:
    """The status that the operation has answered with."""
    status = (result.meta or {})[STATUS]
    assert isinstance(status, int)
    return status


def text_of(result: CallToolResult) -> str:
    """The text that stands first."""
    first = result.content[0]
    assert isinstance(first, TextContent)
    return first.text


def body_of(result: CallToolResult) -> Any:
    """What the operation has answered: the structured content, and the files that stand beside it."""
    if result.structured_content is None:
        return json.loads(text_of(result))
    assert json.loads(text_of(result)) == result.structured_content
    resources = [block.resource for block in result.content if isinstance(block, EmbeddedResource)]
    files = [
        {"name": one.uri.rpartition("/")[2], "mime_type": one.mime_type, "content": one.blob}
        for one in resources
        if isinstance(one, BlobResourceContents)
    ]
    return {**result.structured_content, **({FILES_FIELD: files} if files else {})}
