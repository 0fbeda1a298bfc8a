"""
Reads an OpenAPI document of the OpenAI API into an immutable inventory: facts about its operations, no judgement.

Not for: our own documents (`codegen.contract`) or the text of the lock file (`codegen.pin`). Reads the file it is
given, writes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from codegen.exceptions import UnreadableDocument
from codegen.reader import Document, read_json, read_yaml, resolve
from codegen.request_shape import RequestShape, upstream_shape

PREFIX = "/v1"  # the path of upstream's server address, which its path keys leave out
VARIANT = "?beta=true"  # ends path keys that are variants of a path, not paths of their own
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")  # all that OpenAPI 3.1 knows
_WRONG_SHAPE = (AttributeError, KeyError, TypeError, ValueError)

Place = tuple[str, str]  # path with /v1, method in upper case: the order of the lock file


@dataclass(frozen=True, slots=True)
class UpstreamOperation:
    """
    One operation of the upstream, as one line of the lock file holds it.

    Args:
        path: With `/v1`, and with `?beta=true` where upstream's key has it.
        request_media: Sorted; empty without a body.
        response_media: Of all 2xx responses, sorted.
    """

    method: str
    path: str
    id: str
    request_media: tuple[str, ...]
    response_media: tuple[str, ...]
    deprecated: bool

    @property
    def place(self) -> Place:
        """What identifies it: path and method."""
        return self.path, self.method

    @property
    def plain_place(self) -> Place:
        """Its place without `?beta=true`, which is where our contract has it."""
        return self.path.removesuffix(VARIANT), self.method

    @property
    def variant(self) -> bool:
        """Whether it is a variant of another path."""
        return self.path.endswith(VARIANT)

    @property
    def name(self) -> str:
        """`METHOD /path`, as people write it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """
    Everything that is read from one document of the upstream.

    Args:
        operations: By place, in the order of the lock file.
        requests: What each asks of a request, by place.
        administration: Places that need an admin key.
    """

    operations: Mapping[Place, UpstreamOperation]
    requests: Mapping[Place, RequestShape] = field(default_factory=dict)
    administration: frozenset[Place] = frozenset()


def read_upstream(path: Path) -> Inventory:
    """
    Read an OpenAPI document of the OpenAI API.

    Args:
        path: JSON when its name ends in `.json`, YAML otherwise.

    Raises:
        UnreadableDocument: The file is missing, is not such a document, or an operation has no operationId of its own.
    """
    document = _read(path)
    try:
        return _inventory(document)
    except (*_WRONG_SHAPE, UnreadableDocument) as error:
        raise UnreadableDocument(
            f"{path}: must be an OpenAPI document of the OpenAI API ({type(error).__name__}: {error})."
        ) from None


def code(text: str) -> str:
    """
    A text of upstream as inline code of Markdown.

    A backtick, a line end or a bar would let it leave its cell of a table, so none of them stays.
    """
    clean = "".join(c if c.isprintable() and c not in "`|" else "?" for c in text)
    return f"`{clean}`"


def _read(path: Path) -> Document:
    if path.suffix != ".json":
        return read_yaml(path, aliases=True)
    try:
        return read_json(path)
    except UnreadableDocument:  # its next step is about our own generated files
        raise UnreadableDocument(f"{path}: must be a readable JSON document; get it from upstream again.") from None


def _inventory(document: Document) -> Inventory:
    if not document["openapi"].startswith("3.") or not document["paths"]:
        raise ValueError("`openapi` must be 3.x and `paths` must not be empty")
    operations: dict[Place, UpstreamOperation] = {}
    requests: dict[Place, RequestShape] = {}
    administration: set[Place] = set()
    for path, item, method, node in _nodes(document):
        operation = _operation(document, path, method, node)
        operations[operation.place] = operation
        requests[operation.place] = upstream_shape(document, item, node)
        if _needs_admin_key(document, node):
            administration.add(operation.place)
    _require_unique_ids(operations)
    return Inventory(
        operations=MappingProxyType(dict(sorted(operations.items()))),
        requests=MappingProxyType(requests),
        administration=frozenset(administration),
    )


def _nodes(document: Document) -> Iterator[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]]:
    for path, raw in document["paths"].items():
        item = resolve(document, raw)
        for method in _METHODS:
            if method in item:
                yield path, item, method, item[method]


def _operation(document: Document, path: str, method: str, node: Mapping[str, Any]) -> UpstreamOperation:
    body = resolve(document, node.get("requestBody", {}))
    replies = [resolve(document, reply) for code, reply in node["responses"].items() if str(code).startswith("2")]
    if not isinstance(node.get("operationId"), str):
        raise ValueError(f"`{method.upper()} {path}` must have an operationId")
    return UpstreamOperation(
        method=method.upper(),
        path=path if path.startswith(f"{PREFIX}/") else PREFIX + path,
        id=node["operationId"],
        request_media=tuple(sorted(body.get("content", {}))),
        response_media=tuple(sorted({media for reply in replies for media in reply.get("content", {})})),
        deprecated=bool(node.get("deprecated")),
    )


def _needs_admin_key(document: Document, node: Mapping[str, Any]) -> bool:
    # Upstream names the scheme `AdminApiKeyAuth`; administration is what such a key alone opens.
    alternatives = node.get("security", document.get("security", ()))
    return bool(alternatives) and all(any("admin" in name.lower() for name in choice) for choice in alternatives)


def _require_unique_ids(operations: Mapping[Place, UpstreamOperation]) -> None:
    seen: dict[str, str] = {}
    for operation in operations.values():
        if operation.id in seen:
            raise ValueError(f"operationId `{operation.id}` stands at {seen[operation.id]} and {operation.name}")
        seen[operation.id] = operation.name
