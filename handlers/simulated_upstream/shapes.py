"""
What replies look like: the contract's example of a response, made into an object of its own that its schema accepts.

Nothing leaves here that the schema refuses; in doubt the example itself, under the right id, is the answer.
"""

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import jsonschema_rs

from codegen.contract import JSON, Contract, Media, Operation
from codegen.reader import Document, resolve

EXAMPLE_TIME = 1_790_000_000  # when examples without a creation time were made, by convention of the contract

# What the service decides, whatever a request says.
_DECIDED_BY_SERVICE = frozenset(
    {"id", "object", "status", "created", "created_at", "deleted", "error"}
    | {"data", "output", "choices", "results", "usage"}
)

_CALLERS_MAPS = ("metadata", "attributes")  # replaced as a whole, and empty when the request has none


class Shape:
    """
    The JSON reply of one operation.

    Args:
        media: The JSON media type of its successful response.
    """

    def __init__(self, document: Document, media: Media) -> None:
        self._document = document
        self._pointer = media.pointer
        self.example: Any = next(iter(media.examples.values()), {})
        self._examples = media.examples

    @cached_property
    def _validator(self) -> Any:
        if self._pointer is None:
            return None
        root = {"components": self._document.get("components", {}), "paths": self._document.get("paths", {})}
        return jsonschema_rs.Draft202012Validator({**root, "$ref": self._pointer})

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of top-level fields: those of the example and those that the schema declares."""
        declared: Mapping[str, Any] = {}
        if self._pointer is not None:
            declared = resolve(self._document, {"$ref": self._pointer}).get("properties", {})
        return frozenset(self.example if isinstance(self.example, dict) else ()) | frozenset(declared)

    def example_for(self, response_format: object) -> Any:
        """The example that is named after the format asked for, otherwise the first one."""
        return self._examples.get(response_format, self.example) if isinstance(response_format, str) else self.example

    def valid(self, value: Any) -> bool:
        """Whether the schema accepts a reply."""
        return self._validator is None or bool(self._validator.is_valid(value))

    def with_fields(self, base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Lay values over an object, field by field.

        Args:
            base: A valid object.

        Returns:
            A valid object: values that the reply does not have or that do not fit are left out.
        """
        merged = {**base, **{key: value for key, value in values.items() if key in self.fields}}
        if self.valid(merged):
            return merged
        merged = dict(base)
        for key, value in values.items():
            if key in self.fields and self.valid({**merged, key: value}):
                merged[key] = value
        return merged

    def with_request(
        self, base: Mapping[str, Any], fields: Mapping[str, Any], *, update: bool = False
    ) -> dict[str, Any]:
        """
        Lay a request's fields over fields of the same name.

        Args:
            fields: Of a JSON or multipart body; text is turned into a number or a boolean where the reply has one.
            update: `null` and whole objects overwrite. In a creation, `null` means the default, and what an object of
                the request leaves out comes from the example; only maps of the caller's own never do.
        """
        fitting = {}
        for key, sent in fields.items():
            if key in _DECIDED_BY_SERVICE or key not in self.fields or (sent is None and not update):
                continue
            old = base.get(key)
            value = _like(old, sent)
            if not update and key not in _CALLERS_MAPS:
                value = _completed(old, value)
            if _same_type(old, value):
                fitting[key] = value
        if not update:
            fitting = {**{key: {} for key in _CALLERS_MAPS if _flat_map(base.get(key))}, **fitting}
        return self.with_fields(base, fitting)

    def without(self, base: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Empty some fields: `null` where the schema allows it, else without the field, else unchanged."""
        value = dict(base)
        for name in names:
            if name not in value:
                continue
            emptied = {key: item for key, item in value.items() if key != name}
            value = next((v for v in ({**value, name: None}, emptied) if self.valid(v)), value)
        return value


class Shapes:
    """The JSON replies of all operations of a contract."""

    def __init__(self, contract: Contract) -> None:
        self._shapes: dict[str, Shape] = {}
        for operation in contract:
            media = operation.success[1].get(JSON)
            if media is not None:
                self._shapes[operation.id] = Shape(contract.document, media)

    def of(self, operation: Operation) -> Shape | None:
        """The shape of an operation's JSON reply, `None` when it has none."""
        return self._shapes.get(operation.id)


def required_fields(document: Document, pointer: str | None) -> tuple[str, ...]:
    """Names of the fields that an object must have by the schema at a JSON Pointer, parts of `allOf` included."""
    return tuple(_required(document, {"$ref": pointer})) if pointer is not None else ()


def id_prefix(value: str) -> str:
    """What stands before the individual part of an id: `file-` of `file-example1`, `resp_` of `resp_example1`."""
    found = re.match(r".*[-_](?=[^-_]*$)", value)
    return found.group() if found else ""


def fresh_id(example: str) -> str:
    """A new id of the same kind as an example's."""
    return f"{id_prefix(example)}{secrets.token_hex(16)}"


def fresh(example: Mapping[str, Any]) -> dict[str, Any]:
    """
    Make an object of its own out of an example.

    Returns:
        A copy with a new `id` and with its times moved so that it is created now.
    """
    value = dict(example)
    now = int(time.time())
    created = value.get("created_at", value.get("created", EXAMPLE_TIME))
    if isinstance(value.get("id"), str):
        value["id"] = fresh_id(value["id"])
    if isinstance(created, int):
        for key, old in value.items():
            if (key.endswith("_at") or key == "created") and isinstance(old, int) and old >= created:
                value[key] = now + old - created
    return value


def _like(old: Any, value: Any) -> Any:
    """Text of a multipart field as the JSON type that the reply has in its place."""
    if not isinstance(value, str) or isinstance(old, str):
        return value
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(old, int | float):
            return type(old)(value)
    except (KeyError, ValueError):
        pass
    return value


def _completed(old: Any, new: Any) -> Any:
    """An object of a request, with what it leaves out taken from an example of the same `type`."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type", old.get("type")):
        return {**old, **new}
    return new


def _flat_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str | int | float) for item in value.values())


def _same_type(old: Any, value: Any) -> bool:
    if old is None or value is None:
        return True
    if isinstance(old, bool) or isinstance(value, bool):
        return isinstance(old, bool) and isinstance(value, bool)
    if isinstance(old, int | float):
        return isinstance(value, int | float)
    return isinstance(value, type(old))


def _required(document: Document, schema: Mapping[str, Any]) -> Iterator[str]:
    found = resolve(document, schema)
    yield from found.get("required", ())
    for part in found.get("allOf", ()):
        yield from _required(document, part)
