"""
The same call on two ways, as an operation over HTTP and as a tool: what the upstream hears, and what comes back.

`without_the_moment` is the one place that says what may differ between two calls that say the same.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

import httpx
from mcp import Client

from codegen.tools import Place, Tool
from handlers.runtime.tool_results import REQUEST_ID
from handlers.simulated_upstream import RecordedRequest, SimulatedUpstream
from tests.support.file_relay import parts_of
from tests.support.raw_http import RawConnection
from tests.support.tool_calls import FULL_CONTRACT, call_over_http
from tests.support.tool_clients import TIMEOUT_SECONDS, Era, body_of, status_of, tool_client

CLIENT_NAME = "parity/1"
# What one side says of itself, or where it happens to be.
_OF_THE_CONNECTION = frozenset({"host"})
_IDS = re.compile(r"\b([a-z]+[-_])[0-9a-f]{32}\b")
_LINKS = re.compile(r"https?://[^\s\"]+/artifacts/[^\s\"]+")


def without_the_moment(value: Any, name: str = "") -> Any:
    """A value without what differs between two calls that say the same: ids, links, and moments."""
    if isinstance(value, dict):
        return {key: without_the_moment(field, key) for key, field in value.items()}
    if isinstance(value, list):
        return [without_the_moment(item, name) for item in value]
    if (name == "created" or name.endswith("_at")) and isinstance(value, int):
        return 0
    return _LINKS.sub("a link", _IDS.sub(r"\1id", value)) if isinstance(value, str) else value


def heard(record: RecordedRequest) -> dict[str, Any]:
    """What the upstream was asked, without the moment."""
    headers = {n.lower(): v for n, v in record.headers if n.lower() not in _OF_THE_CONNECTION}
    body: Any = record.body_start
    media_type = headers.get("content-type", "")
    if media_type.startswith("multipart/"):
        body = parts_of(record)
        headers["content-type"] = "multipart/form-data"
    elif media_type == "application/json" and body:
        body = without_the_moment(json.loads(body))
        del headers["content-length"]  # the same JSON may be written in another order
    return {
        "method": record.method,
        "path": without_the_moment(record.path),
        "query": parse_qsl(record.query, keep_blank_values=True),
        "headers": headers,
        "body": body,
        "operation": record.operation_id,
    }


@dataclass(frozen=True)
class Refusal:
    """How a call ended that was refused, and whom the upstream heard of it."""

    status: int
    error: Any
    upstream: list[dict[str, Any]]

    @property
    def code(self) -> str:
        """The relay's code."""
        return str(self.error["code"])


@dataclass
class Sides:
    """
    The two ways to call an operation with one key.

    Args:
        headers: Of the key, and what the client is called.
        over_http: A client that says no more of itself than the other.
        tools: The official client.
    """

    headers: Mapping[str, str]
    over_http: httpx.Client
    tools: Client
    upstream: SimulatedUpstream

    def http_refusal(self, tool: Tool, arguments: Mapping[str, Any]) -> Refusal:
        """Call the operation."""
        self.upstream.recorder.clear()
        reply = self._call(tool, arguments)
        return Refusal(reply.status_code, reply.json().get("error"), self._heard())

    async def tool_refusal(self, name: str, arguments: Mapping[str, Any]) -> Refusal:
        """Call the tool; what it says of a refusal holds on every refusal."""
        self.upstream.recorder.clear()
        result = await self.tools.call_tool(name, dict(arguments))
        status = status_of(result)
        assert result.is_error is (status >= 400)
        assert status < 400 or result.structured_content is None
        assert REQUEST_ID in (result.meta or {})
        return Refusal(status, body_of(result).get("error"), self._heard())

    def raw_refusal(self, tool: Tool, arguments: Mapping[str, Any]) -> Refusal:
        """Call the operation, with a path that no client tidies up."""
        self.upstream.recorder.clear()
        path = tool.path
        for argument in tool.arguments:
            if argument.place is Place.PATH:
                path = path.replace(f"{{{argument.name}}}", quote(arguments[argument.name], safe=""))
        fields = {a.name: arguments[a.name] for a in tool.arguments if a.place is Place.BODY and a.name in arguments}
        lines = {**self.headers, **({"Content-Type": "application/json"} if fields else {})}
        content = json.dumps(fields).encode() if fields else None
        with RawConnection(str(self.over_http.base_url)) as connection:
            reply = connection.exchange(tool.method, path, lines.items(), content)
        return Refusal(reply.status, reply.json().get("error"), self._heard())

    def _call(self, tool: Tool, arguments: Mapping[str, Any]) -> httpx.Response:
        operation = FULL_CONTRACT.operations[tool.operation_id]
        if (
            operation.body is not None
            and operation.body.required
            and not any(argument.place is Place.BODY and argument.name in arguments for argument in tool.arguments)
        ):
            return self.over_http.request(tool.method, tool.path.format_map(arguments), json={})
        return call_over_http(tool, arguments, self.over_http)

    def _heard(self) -> list[dict[str, Any]]:
        return [heard(record) for record in self.upstream.recorder.requests]


@asynccontextmanager
async def both_sides(
    relay_url: str, headers: Mapping[str, str], upstream: SimulatedUpstream, era: Era = "modern"
) -> AsyncIterator[Sides]:
    """Both ways with one key."""
    headers = {**headers, "User-Agent": CLIENT_NAME}
    async with tool_client(relay_url, headers, era) as tools:
        with plain_client(relay_url, headers) as over_http:
            yield Sides(headers, over_http, tools, upstream)


def plain_client(url: str, headers: Mapping[str, str]) -> httpx.Client:
    """A client with these headers and none of its own."""
    client = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
    for name in ("accept", "accept-encoding"):
        del client.headers[name]
    return client


def links_in(value: Any) -> list[Mapping[str, Any]]:
    """The links of a reply that a wrapper has written, in order."""
    if isinstance(value, dict):
        own = [value] if {"url", "expires_at"} <= value.keys() else []
        return own + [link for field in value.values() for link in links_in(field)]
    return [link for item in value for link in links_in(item)] if isinstance(value, list) else []
