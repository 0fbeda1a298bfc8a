"""
Cuts the upstream's answers down to what the contract says that a wrapper replies.

The fields stand in the contract and nowhere else. Not for: the length of a reply (`handlers.runtime.budget`).
"""

from collections.abc import Mapping
from typing import Any

from codegen.contract import JSON
from codegen.reader import Document, resolve
from handlers.runtime.exceptions import InternalError, UpstreamProtocolError
from handlers.runtime.messages import Request

_ABSENT = object()
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "string": str,
}


def shaped(request: Request, answer: Mapping[str, Any]) -> dict[str, Any]:
    """
    Keep what the reply of an operation may hold.

    Args:
        answer: With whatever else the upstream says. What is null, or not of the type that the contract names, is left
            out as if it were not there.

    Raises:
        UpstreamProtocolError: What the reply must hold is not there (502).
    """
    media = request.operation.success[1].get(JSON)
    if media is None or media.pointer is None:
        raise InternalError
    value = _shaped(request.services.contract.document, {"$ref": media.pointer}, answer)
    if not isinstance(value, dict):
        raise UpstreamProtocolError("The upstream's answer lacks what it should say; try again later.")
    return value


def _shaped(document: Document, schema: Mapping[str, Any], value: Any) -> Any:
    """The part of a value that a schema describes; `_ABSENT` when that does not fit."""
    schema = resolve(document, schema)
    kind = schema["type"]
    if not _is_of(kind, value) or ("enum" in schema and value not in schema["enum"]):
        return _ABSENT
    if kind == "array":
        items = [_shaped(document, schema["items"], item) for item in value]
        return _ABSENT if _ABSENT in items else items
    if kind != "object":
        return value
    kept = {name: _shaped(document, part, value.get(name)) for name, part in schema["properties"].items()}
    kept = {name: item for name, item in kept.items() if item is not _ABSENT}
    return kept if all(name in kept for name in schema.get("required", ())) else _ABSENT


def _is_of(kind: str, value: Any) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
