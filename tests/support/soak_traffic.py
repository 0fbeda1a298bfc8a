"""
The kinds of calls that `scripts/soak` mixes, and whether each ends as it must.

Each kind is a coroutine that makes one call; what is not as expected is raised as `Unexpected`.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.exceptions import WebSocketException

from tests.support.raw_clients import connected
from tests.support.raw_http import raw_request
from tests.support.servers import RelayProcess
from tests.support.sockets import opened, receive

TIMEOUT_SECONDS = 30.0
UPLOAD_BYTES = 256 * 1024
DOWNLOAD_BYTES = 2**20
RECORDING_BYTES = 200_000  # too long to stand in a reply, so it comes as a link
MAX_ERRORS = 20
_TOOLS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
_ASKED = {"model": "gpt-6-luna", "input": "Say hello."}
# The last four of them: an answer of another shape.
_FAILURES = (httpx.HTTPError, WebSocketException, OSError, EOFError, AssertionError, LookupError, ValueError, TypeError)
_numbers = itertools.count(1)


class Unexpected(ValueError):
    """A call has not ended as it must."""


@dataclass
class Traffic:
    """
    Calls to one relay.

    Args:
        operator: Headers of a key that opens the metrics.

    Attributes:
        calls: How many of each kind have ended.
        errors: The first that were not as expected.
        error_count: How many those were altogether.
    """

    relay: RelayProcess
    client: httpx.AsyncClient
    operator: Mapping[str, str]
    calls: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    error_count: int = 0

    async def repeat(self, name: str, seconds: float, call: "Callable[[Traffic], Awaitable[None]]") -> None:
        """Make a call of one kind every so many seconds, until cancelled."""
        while True:
            pause = asyncio.create_task(asyncio.sleep(seconds))
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await call(self)
            except _FAILURES as error:
                self._note(name, error)
            self.calls[name] += 1
            await pause

    def _note(self, name: str, error: Exception) -> None:
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(f"{name}: {type(error).__name__}: {error}"[:300])

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> httpx.Response:
        """Send a request whose status is known beforehand."""
        response = await self.client.request(method, path, **options)
        if response.status_code != status:
            raise Unexpected(f"{response.status_code} instead of {status}: {response.text[:200]}")
        return response


async def ask_json(traffic: Traffic) -> None:
    """An ordinary call."""
    reply = await traffic.ask("POST", "/v1/responses", json=_ASKED)
    assert reply.json()["object"] == "response"


async def stream(traffic: Traffic) -> None:
    """An event stream, read to its end."""
    reply = await traffic.ask("POST", "/v1/responses", json={**_ASKED, "stream": True})
    assert "event: response.completed" in reply.text


async def upload(traffic: Traffic) -> None:
    """A file to the upstream."""
    files = {"file": ("a.bin", bytes(UPLOAD_BYTES))}
    reply = await traffic.ask("POST", "/v1/files", files=files, data={"purpose": "user_data"})
    assert reply.json()["bytes"] == UPLOAD_BYTES


async def download(traffic: Traffic) -> None:
    """A file from the upstream."""
    reply = await traffic.ask("GET", f"/v1/files/file-size-{DOWNLOAD_BYTES}/content")
    assert len(reply.content) == DOWNLOAD_BYTES


async def list_tools(traffic: Traffic) -> None:
    """What an MCP client asks first."""
    assert (await _tool_message(traffic, "tools/list", {}))["tools"]


async def call_tool(traffic: Traffic) -> None:
    """A call of an MCP tool."""
    result = await _tool_message(traffic, "tools/call", {"name": "listModels", "arguments": {}})
    assert not result.get("isError"), str(result)[:200]


async def speak(traffic: Traffic) -> None:
    """A wrapper that keeps a file and hands out a link, with a key of its own each time; and the file behind it."""
    body = {"input": "Hello.", "idempotency_key": f"soak {next(_numbers)}"}
    first = await traffic.ask("POST", "/v1/actions/audio/speech", json=body)
    again = await traffic.ask("POST", "/v1/actions/audio/speech", json=body)
    (link,) = first.json()["links"]
    assert again.json()["links"] == [link]
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as anybody:
        assert len((await anybody.get(link["url"])).content) == RECORDING_BYTES


async def gather_stream(traffic: Traffic) -> None:
    """A wrapper that reads a stream for an assistant."""
    await traffic.ask("POST", "/v1/actions/responses/stream", json=_ASKED)


async def ask_by_proxy(traffic: Traffic) -> None:
    """A call through the proxy."""
    await traffic.ask("POST", "/v1/proxy", json={"method": "GET", "path": "/v1/batches"})


async def be_refused(traffic: Traffic) -> None:
    """Four requests that are refused, each for another reason."""
    await traffic.ask("POST", "/v1/responses", 401, json=_ASKED, headers={"Authorization": "Bearer rk_wrong"})
    await traffic.ask("POST", "/v1/responses", 400, json={"model": 1, "input": "Hello."})
    await traffic.ask("GET", "/v1/no/such/operation", 404)
    await traffic.ask("GET", "/v1/organization/projects", 403)


async def vanish(traffic: Traffic) -> None:
    """A client that leaves in mid-stream."""
    body = json.dumps({**_ASKED, "stream": True}).encode()
    headers = {**traffic.relay.headers, "Content-Type": "application/json"}
    reader, writer = await connected(traffic.relay.url)
    try:
        writer.write(raw_request("POST", "/v1/responses", headers.items(), body))
        await reader.readuntil(b"data: {")
    finally:
        writer.transport.abort()


async def talk(traffic: Traffic) -> None:
    """A socket with a few messages."""
    async with opened(traffic.relay) as socket:
        for number in range(5):
            await socket.send(f"message {number}")
            assert await receive(socket) == f"message {number}"


async def scrape(traffic: Traffic) -> None:
    """What Prometheus does."""
    reply = await traffic.ask("GET", "/metrics", headers=traffic.operator)
    assert "relay_requests_total" in reply.text


async def see_models(traffic: Traffic) -> None:
    """A read that costs little."""
    await traffic.ask("GET", "/v1/models")


# Seconds from one call of a kind to the next: 25 requests a second altogether.
KINDS: Mapping[str, tuple[float, Callable[[Traffic], Awaitable[None]]]] = {
    "JSON": (0.1, ask_json),
    "models": (0.2, see_models),
    "event streams": (0.5, stream),
    "uploads": (1.0, upload),
    "downloads": (1.0, download),
    "lists of MCP tools": (2.0, list_tools),
    "calls of MCP tools": (1.0, call_tool),
    "speech, kept and fetched": (3.0, speak),
    "gathered streams": (2.0, gather_stream),
    "proxy": (1.0, ask_by_proxy),
    "refusals": (2.0, be_refused),
    "vanishing clients": (1.0, vanish),
    "sockets": (2.0, talk),
    "scraped metrics": (5.0, scrape),
}


async def _tool_message(traffic: Traffic, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": next(_numbers), "method": method, "params": params}
    reply = await traffic.ask("POST", "/mcp", json=message, headers=_TOOLS)
    text = reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        text = next(line[6:] for line in reversed(text.splitlines()) if line.startswith("data: "))
    result: dict[str, Any] = json.loads(text)["result"]
    return result
