"""Valid requests made from the contract alone: plain ids in the path, the body from the operation's own examples."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from codegen.contract import JSON, MULTIPART, Contract, Media, Operation
from codegen.reader import resolve

PLAIN_ID = "example-1"


@dataclass(frozen=True)
class ContractRequest:
    """
    One request.

    Args:
        headers: `Content-Type` when there is a body, else empty.
        content: The body's bytes, `None` without one.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes | None


def contract_requests(contract: Contract, operation: Operation) -> Iterator[ContractRequest]:
    """One request per media type that the operation takes; one without a body when it takes none."""
    assert not any(p.required for p in operation.parameters_in("query")), "no example for a required query parameter"
    path = plain_path(operation)
    if operation.body is None:
        yield ContractRequest(operation.method, path, {}, None)
        return
    for media in operation.body.content.values():
        headers, content = _body(contract, operation, media)
        yield ContractRequest(operation.method, path, headers, content)


def calls_upstream(contract: Contract, operation: Operation) -> tuple[str, ...]:
    """
    The operations of the upstream that an operation stands for: itself, what it wraps, or none.

    A custom verb is the relay's own; upstream knows the path before the colon.
    """
    if operation.wraps:
        return tuple(found for name in operation.wraps for found in calls_upstream(contract, contract.operations[name]))
    if not operation.mirrored:
        return ()
    place = operation.method, operation.path.partition(":")[0]
    return tuple(other.id for other in contract if (other.method, other.path) == place)


def plain_path(operation: Operation) -> str:
    """The operation's path with a plain id in every template segment."""
    return re.sub(r"\{[^}]+\}", PLAIN_ID, operation.path)


def example_of(operation: Operation, media_type: str = JSON) -> Any:
    """The first example of the operation's request body."""
    assert operation.body is not None
    return next(iter(operation.body.content[media_type].examples.values()))


def _body(contract: Contract, operation: Operation, media: Media) -> tuple[dict[str, str], bytes]:
    if media.media_type == JSON:
        return {"content-type": JSON}, orjson.dumps(example_of(operation))
    if media.media_type == MULTIPART:
        return _multipart(contract, operation, media)
    return {"content-type": media.media_type}, str(example_of(operation, media.media_type)).encode()


def _multipart(contract: Contract, operation: Operation, media: Media) -> tuple[dict[str, str], bytes]:
    assert media.pointer is not None
    properties = _properties(contract, {"$ref": media.pointer})
    # Where both forms of a body share one example, it stands with the JSON form.
    fields = example_of(operation, MULTIPART if media.examples else JSON)
    data, files = {}, {}
    for name, value in fields.items():
        declared = resolve(contract.document, properties[name])
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        if isinstance(value, str) and (declared.get("format") == "binary" or "type" not in declared):
            files[name] = ("example.bin", text.encode())
        else:
            data[name] = text
    # A file makes httpx write multipart even when the example has none.
    request = httpx.Request("POST", "http://relay.test/", data=data, files=files or {"extra": ("empty.bin", b"")})
    return {"content-type": request.headers["content-type"]}, request.read()


def _properties(contract: Contract, schema: Mapping[str, Any]) -> dict[str, Any]:
    schema = resolve(contract.document, schema)
    properties = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        properties |= _properties(contract, part)
    return properties
