"""
What a request must hold and which values its fields may have, read from OpenAPI nodes of upstream's document or ours.

Not for: validating requests (`handlers.runtime.validation`), or anything below the top level of a body: nested objects
are compared by nobody here. Reads plain data, writes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from codegen.contract import Contract, Operation
from codegen.reader import Document, resolve

Values = frozenset[str] | None  # the closed list of values, `None` when any other value is allowed as well
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fields:
    """
    The top level of a body, or the parameters of one kind.

    Args:
        required: Names that must be present.
        values: Name to what it may hold (a list's items count as its own); every name that is described.
    """

    required: frozenset[str]
    values: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class RequestShape:
    """
    What one operation asks of a request.

    Args:
        body_required: Whether a request without a body is refused.
        bodies: Media type to fields.
        parameters: `path`, `query` and `header` together; names are written `query limit`.
    """

    body_required: bool
    bodies: Mapping[str, Fields]
    parameters: Fields


def upstream_shape(document: Document, item: Mapping[str, Any], node: Mapping[str, Any]) -> RequestShape:
    """
    Read the request of one operation of an OpenAPI document.

    Args:
        item: The path item; its parameters count for the operation unless it has one of that name itself.

    Raises:
        UnreadableDocument: A reference leads nowhere.
    """
    body = resolve(document, node.get("requestBody", _NOTHING))
    schemas = {media: content.get("schema", {}) for media, content in body.get("content", {}).items()}
    nodes = [resolve(document, raw) for raw in (*item.get("parameters", ()), *node.get("parameters", ()))]
    parameters = {f"{p['in']} {p['name']}": (bool(p.get("required")), p.get("schema", {})) for p in nodes}
    return _shape(document, bool(body.get("required")), schemas, parameters)


def contract_shape(contract: Contract, operation: Operation) -> RequestShape:
    """
    Read the request of one operation as our contract allows it today.

    Raises:
        UnreadableDocument: A reference leads nowhere.
    """
    content = operation.body.content if operation.body else {}
    schemas = {name: {"$ref": media.pointer} if media.pointer else {} for name, media in content.items()}
    parameters = {f"{p.location} {p.name}": (p.required, p.schema) for p in operation.parameters}
    return _shape(contract.document, bool(operation.body and operation.body.required), schemas, parameters)


def _shape(
    document: Document,
    body_required: bool,
    schemas: Mapping[str, Mapping[str, Any]],
    parameters: Mapping[str, tuple[bool, Mapping[str, Any]]],
) -> RequestShape:
    return RequestShape(
        body_required=body_required,
        bodies=MappingProxyType({media: _fields(document, schema) for media, schema in schemas.items()}),
        parameters=Fields(
            # Those of the path are always required; a template whose names change is the same path on the wire.
            required=frozenset(n for n, (required, _) in parameters.items() if required and not n.startswith("path ")),
            values=MappingProxyType({name: _values(document, schema) for name, (_, schema) in parameters.items()}),
        ),
    )


def _fields(document: Document, schema: Mapping[str, Any], above: frozenset[str] = frozenset()) -> Fields:
    if _leads_back(schema, above):
        return Fields(frozenset(), _NOTHING)
    above |= _reference(schema)
    node = resolve(document, schema)
    together = [_fields(document, part, above) for part in node.get("allOf", ())]
    required = frozenset(node.get("required", ())).union(*(part.required for part in together))
    values = {name: _values(document, value) for name, value in node.get("properties", {}).items()}
    for part in together:
        for name, allowed in part.values.items():
            values[name] = _both(values[name], allowed) if name in values else allowed
    for keyword in ("anyOf", "oneOf"):
        choices = [_fields(document, part, above) for part in node.get(keyword, ())]
        if choices:
            # A name is required when every alternative requires it; a value is allowed when one allows it.
            required |= frozenset.intersection(*(choice.required for choice in choices))
            values |= _merged(choices, values)
    return Fields(required, MappingProxyType(values))


def _merged(choices: Iterable[Fields], base: Mapping[str, Values]) -> dict[str, Values]:
    merged: dict[str, Values] = {}
    for choice in choices:
        for name, allowed in choice.values.items():
            merged[name] = _either(merged[name], allowed) if name in merged else allowed
    return {name: _both(base[name], allowed) if name in base else allowed for name, allowed in merged.items()}


def _values(document: Document, schema: object, above: frozenset[str] = frozenset()) -> Values:
    """The closed list of a field's values; `null` is left out, it is no value that anybody loses."""
    if not isinstance(schema, Mapping) or _leads_back(schema, above):
        return None
    above |= _reference(schema)
    node = resolve(document, schema)
    allowed: Values = None
    if "enum" in node:
        allowed = frozenset(_text(value) for value in node["enum"] if value is not None)
    elif "const" in node:
        allowed = frozenset({_text(node["const"])})
    elif "items" in node:
        allowed = _values(document, node["items"], above)
    for part in node.get("allOf", ()):
        allowed = _both(allowed, _values(document, part, above))
    for keyword in ("anyOf", "oneOf"):
        choices = [_values(document, part, above) for part in node.get(keyword, ()) if not _is_null(part)]
        if choices:
            union = choices[0]
            for choice in choices[1:]:
                union = _either(union, choice)
            allowed = _both(allowed, union)
    return allowed


def _both(one: Values, other: Values) -> Values:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _either(one: Values, other: Values) -> Values:
    return None if one is None or other is None else one | other


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _reference(schema: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({schema["$ref"]} if "$ref" in schema else ())


def _leads_back(schema: Mapping[str, Any], above: frozenset[str]) -> bool:
    return bool(_reference(schema) & above)


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
