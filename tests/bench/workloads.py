"""The requests of the workloads that wrk sends; streams and large bodies have clients of their own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.bench.subjects import EMBEDDINGS, JSON_1, JSON_32, JSON_100K, MCP, PROXY, WRAPPER
from tests.support.tool_clients import call

MODEL = "gpt-4.1"
CONNECTIONS = 32
LARGE_BYTES = 100_000
EMBEDDING_FLOATS = 1536
_QUESTION = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say hello to everybody in the team, please."}],
    "temperature": 0.5,
}
_RESPONSE = {"model": MODEL, "input": "Say hello to everybody in the team, please."}
_TURN = "The relay passes a message on, and the answer comes back on the same way, piece by piece. "


@dataclass(frozen=True)
class Workload:
    """
    One kind of request.

    Args:
        title: As it stands in the table.
        holds: What stands in every proper reply to it.
        connections: How many clients send it at a time, each one after the other.
    """

    title: str
    path: str
    body: Mapping[str, Any]
    holds: str
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = CONNECTIONS

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return json.dumps(self.body, separators=(",", ":")).encode()


def _long_chat() -> dict[str, Any]:
    turns: list[dict[str, str]] = []
    text = _TURN * 11
    while len(turns) * (len(text) + 40) < LARGE_BYTES:
        turns.append({"role": "assistant" if len(turns) % 2 else "user", "content": text})
    return {**_QUESTION, "messages": turns}


def _tool_call() -> Workload:
    message = call("createResponse", _RESPONSE)
    return Workload("MCP `tools/call`", "/mcp", message["json"], "resp_", message["headers"])


_CHAT = "/v1/chat/completions"
WORKLOADS: Mapping[str, Workload] = {
    JSON_32: Workload("small JSON, 32 connections", _CHAT, _QUESTION, "chat.completion"),
    JSON_1: Workload("small JSON, 1 connection", _CHAT, _QUESTION, "chat.completion", connections=1),
    JSON_100K: Workload("JSON of 100 KB", _CHAT, _long_chat(), "chat.completion"),
    EMBEDDINGS: Workload(
        f"embeddings, reply of {EMBEDDING_FLOATS:,} numbers",
        "/v1/embeddings",
        {"model": "text-embedding-3-small", "input": "A relay passes a message on."},
        '"embedding"',
    ),
    PROXY: Workload(
        "`/v1/proxy`", "/v1/proxy", {"method": "POST", "path": _CHAT, "body": _QUESTION}, "chat.completion"
    ),
    WRAPPER: Workload("Actions wrapper", "/v1/actions/responses", _RESPONSE, "resp_"),
    MCP: _tool_call(),
}
