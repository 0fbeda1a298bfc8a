"""
Turns the reply of an operation into the result of its tool, as the Model Context Protocol writes it.

A JSON object is structured content, and text for clients that read only that. Files stand apart: one that lies in the
reply becomes an embedded resource, one behind a link of the relay a link to a resource. Errors keep their body.
Not for: errors of the protocol itself; those are the SDK's.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ResourceLink,
    TextContent,
)

from codegen.contract import JSON
from handlers.runtime.messages import Reply

FILES_FIELD = "openaiFileResponse"
STATUS = "chatgpt-team-relay/status"
REQUEST_ID = "chatgpt-team-relay/request-id"
RETRY_AFTER = "chatgpt-team-relay/retry-after"
# What the relay says of a file behind a link, wherever a wrapper's reply names one.
_LINK_FIELDS = frozenset({"url", "name", "mime_type", "bytes", "expires_at"})
_HALVES = re.compile("[\ud800-\udfff]")


def reply_to_result(reply: Reply, *, wrapped: bool) -> CallToolResult:
    """
    Translate a reply.

    Args:
        reply: Whole, without a content coding.
        wrapped: Whether a wrapper answered. Only their replies hold files and links of the relay; what looks like one
            in a reply of the upstream may be anybody's words.

    Returns:
        `isError` from status 400 on. `_meta` holds the status, the request id and, where it says so, when to try again.
    """
    body = reply.body
    if not isinstance(body, bytes):
        raise TypeError("a tool's result is made of a whole reply")
    meta = _meta(reply)
    if reply.status >= 400:
        return CallToolResult(content=[_text(body)], is_error=True, _meta=meta)
    value = _json_object(reply, body)
    if value is not None:
        return _with_files(value, body, meta) if wrapped else _structured([_text(body)], value, meta)
    return CallToolResult(content=[_other(body, _essence(reply))] if body else [], _meta=meta)


def _json_object(reply: Reply, body: bytes) -> dict[str, Any] | None:
    if _essence(reply) != JSON:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _with_whole_characters(body)
    return value if isinstance(value, dict) else None


def _with_whole_characters(body: bytes) -> Any:
    """JSON with a mark for each half of a surrogate pair, which no result can hold; `None` for what is no JSON."""
    try:
        text = json.dumps(json.loads(body), allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return orjson.loads(_HALVES.sub("\N{REPLACEMENT CHARACTER}", text))


def _structured(content: list[ContentBlock], value: dict[str, Any], meta: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=content, structured_content=value, _meta=meta)


def _with_files(value: dict[str, Any], body: bytes, meta: dict[str, Any]) -> CallToolResult:
    files = value.get(FILES_FIELD)
    content: list[ContentBlock] = []
    if isinstance(files, list):
        # The bytes travel once, and not through the text that a model reads.
        value = {name: field for name, field in value.items() if name != FILES_FIELD}
        body = orjson.dumps(value)
        content = [_embedded(number, file) for number, file in enumerate(files, 1)]
    return _structured([_text(body), *content, *(_link(link) for link in _links(value))], value, meta)


def _embedded(number: int, file: Mapping[str, Any]) -> EmbeddedResource:
    return _blob(f"{number}/{_plain(file['name'])}", file["mime_type"], file["content"])


def _other(body: bytes, media_type: str) -> ContentBlock:
    if media_type == JSON or media_type.startswith("text/"):
        return _text(body)
    return _blob("1/reply", media_type, base64.b64encode(body).decode("ascii"))


def _blob(name: str, media_type: str, content: str) -> EmbeddedResource:
    # A resource must have a URI; nothing can be read there, for the content comes along.
    resource = BlobResourceContents(uri=f"attachment:///{name}", mime_type=media_type, blob=content)
    return EmbeddedResource(resource=resource)


def _link(link: Mapping[str, Any]) -> ResourceLink:
    return ResourceLink(uri=link["url"], name=link["name"], mime_type=link["mime_type"], size=link["bytes"])


def _links(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every link to a file that a reply holds, in order."""
    if isinstance(value, dict):
        if value.keys() >= _LINK_FIELDS:
            yield value
        for field in value.values():
            yield from _links(field)
    elif isinstance(value, list):
        for item in value:
            yield from _links(item)


def _text(body: bytes) -> TextContent:
    return TextContent(text=body.decode("utf-8", "replace"))


def _meta(reply: Reply) -> dict[str, Any]:
    headers = {name: value.decode("latin-1") for name, value in reply.headers}
    meta: dict[str, Any] = {STATUS: reply.status}
    for key, name in ((REQUEST_ID, b"x-request-id"), (RETRY_AFTER, b"retry-after")):
        if name in headers:
            meta[key] = headers[name]
    return meta


def _essence(reply: Reply) -> str:
    value = next((value for name, value in reply.headers if name == b"content-type"), b"")
    return value.split(b";", 1)[0].strip().lower().decode("latin-1")


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
