"""
Makes requests that are valid by an OpenAPI document of the OpenAI API, such as the one the upstream publishes.

Every value is held against the document's own schema before it counts. What the document says in the words of older
versions is read in the wider sense: `nullable: true` allows null, a boolean `exclusiveMinimum` says nothing, and a
value may fit several branches of a `oneOf`.
"""

import json
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import jsonschema_rs

from codegen.contract import JSON, METHODS, Contract, Operation
from codegen.reader import Document, read_json, read_yaml, resolve
from tests.support.schema_values import Schema, SchemaValues, Unsatisfiable

PREFIX = "/v1"  # stands in the document's server URL
ATTEMPTS_PER_EXAMPLE = 200
_URI = "urn:document"
_ID_CHARACTERS = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True)
class ValidRequest:
    """
    One request.

    Args:
        path: With values, starting with `/v1`.
        query: Encoded, without `?`.
        body: JSON text, `None` without a body.
    """

    method: str
    path: str
    query: str
    body: str | None


@dataclass(frozen=True)
class SourceOperation:
    """
    An operation of the source document that has JSON requests or none but a path and a query.

    Args:
        served: The operation of the contract with the same method and path.
        query: Fixed part of the query, from a path key such as `/responses?beta=true`.
        body: Schema of its JSON body, `None` when it has none.
        query_parameters: As in the document, references resolved.
    """

    label: str
    served: Operation
    query: str
    query_parameters: tuple[Mapping[str, Any], ...]
    body: Schema | None
    body_required: bool


def read_source(path: Path) -> Document:
    """Read an OpenAPI document, with its unions and nullable schemas in the wider reading."""
    document = read_yaml(path) if path.suffix in {".yaml", ".yml"} else read_json(path)
    widened: Document = _widened(document)
    return widened


def source_operations(document: Document, contract: Contract) -> Iterator[SourceOperation]:
    """
    The operations of a document that the contract serves and that can be asked without a multipart or binary body.

    Args:
        document: From `read_source`.
    """
    served = {(operation.method, operation.path): operation for operation in contract if operation.served}
    for key, item in document["paths"].items():
        path, _, fixed = key.partition("?")
        for method in (name for name in METHODS if name in item):
            operation = served.get((method.upper(), PREFIX + path))
            node = item[method]
            body = resolve(document, node.get("requestBody", {}))
            content = body.get("content", {})
            if operation is None or (content and JSON not in content and body.get("required", False)):
                continue
            parameters = [resolve(document, raw) for raw in (*item.get("parameters", ()), *node.get("parameters", ()))]
            yield SourceOperation(
                label=f"{method.upper()} {PREFIX}{key}",
                served=operation,
                query=fixed,
                query_parameters=tuple(p for p in parameters if p["in"] == "query"),
                body=content[JSON].get("schema", {}) if JSON in content else None,
                body_required=body.get("required", False),
            )


class ValidRequests:
    """
    Draws requests for operations of one document; the same seed draws the same ones.

    Args:
        document: From `read_source`.
    """

    def __init__(self, document: Document, seed: int = 0) -> None:
        self._document = document
        self._values = SchemaValues(document, seed)
        self._random = Random(seed)
        self._registry = jsonschema_rs.Registry([(_URI, document)])
        self._validators: dict[int, jsonschema_rs.Draft202012Validator] = {}

    def draw(self, operation: SourceOperation) -> ValidRequest:
        """
        Draw one request.

        Raises:
            Unsatisfiable: No valid value turned up in `ATTEMPTS_PER_EXAMPLE` attempts.
        """
        path = "/".join(self._plain_id() if part.startswith("{") else part for part in operation.served.path.split("/"))
        query = operation.query
        pairs = [pair for parameter in operation.query_parameters for pair in self._query(parameter)]
        if pairs:
            query = "&".join([*([query] if query else []), urlencode(pairs)])
        body = None
        if operation.body is not None and (operation.body_required or not self._values.chance(0.1)):
            body = _json(self._valid(operation.body))
        return ValidRequest(operation.served.method, path, query, body)

    def _valid(self, schema: Schema, **options: bool) -> Any:
        validator = self._validators.get(id(schema))
        if validator is None:
            anchored = _anchored(schema)
            validator = jsonschema_rs.Draft202012Validator(anchored, registry=self._registry)
            self._validators[id(schema)] = validator
        for _ in range(ATTEMPTS_PER_EXAMPLE):
            try:
                value = self._values.draw(schema, **options)
            except Unsatisfiable:
                continue
            if validator.is_valid(value):
                return value
        raise Unsatisfiable

    def _query(self, parameter: Mapping[str, Any]) -> list[tuple[str, str]]:
        if not parameter.get("required", False) and self._values.chance(0.5):
            return []
        value = self._valid(parameter["schema"], integral_floats=False)
        name: str = parameter["name"]
        if value is None:
            return []
        if isinstance(value, dict):  # a deep object whatever its style says, as the official SDKs write it
            return [(f"{name}[{key}]", _text(item)) for key, item in value.items()]
        if isinstance(value, list):
            written = name if name.endswith("[]") or self._values.chance(0.5) else f"{name}[]"
            return [(written, _text(item)) for item in value]
        return [(name, _text(value))]

    def _plain_id(self) -> str:
        return "".join(self._random.choices(_ID_CHARACTERS, k=self._random.randint(1, 40)))


def read_sample(path: Path) -> list[ValidRequest]:
    """Read a sample that `write_sample` wrote."""
    requests = []
    for line in path.read_text(encoding="ascii").splitlines():
        method, request_path, query, *body = json.loads(line)
        requests.append(ValidRequest(method, request_path, query, _json(body[0]) if body else None))
    return requests


def write_sample(path: Path, requests: Iterable[ValidRequest]) -> None:
    """Write requests, one JSON array a line: method, path, query, and the body if there is one."""
    lines = []
    for request in requests:
        body = [] if request.body is None else [json.loads(request.body)]
        values = [request.method, request.path, request.query, *body]
        lines.append(json.dumps(values, separators=(",", ":")) + "\n")
    path.write_text("".join(lines), encoding="ascii")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _widened(node: Any) -> Any:
    if isinstance(node, list):
        return [_widened(item) for item in node]
    if not isinstance(node, dict):
        return node
    wide = {key: _widened(item) for key, item in node.items()}
    if isinstance(wide.get("oneOf"), list):
        branches = wide.pop("oneOf")
        if "anyOf" in wide:
            wide["allOf"] = [*wide.get("allOf", ()), {"anyOf": branches}]
        else:
            wide["anyOf"] = branches
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(wide.get(bound), bool):
            del wide[bound]
    return {"anyOf": [wide, {"type": "null"}]} if wide.pop("nullable", None) is True else wide


def _anchored(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {
            key: f"{_URI}{item}" if key == "$ref" and isinstance(item, str) else _anchored(item)
            for key, item in node.items()
        }
    return [_anchored(item) for item in node] if isinstance(node, list) else node
