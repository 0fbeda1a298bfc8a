"""
`spec/openapi.actions.yaml` as its rules look at it: operations with their lines, bodies, schemas and fields.

Not for: the typed contract (`codegen.contract`), which does not load when a shape is wrong. Here a value of another
shape than expected counts as absent, so that the rules can say what is wrong with it. Reads no files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from codegen.contract import ACTIONS, JSON, METHODS
from codegen.exceptions import UnreadableDocument
from codegen.findings import Finding, operation_lines
from codegen.reader import Document, resolve

FILE = f"spec/{ACTIONS}.yaml"


@dataclass(frozen=True, slots=True)
class Field:
    """
    One property somewhere inside a schema.

    Args:
        depth: 0 for a property of the schema itself.
        schema: Its own schema, references resolved.
    """

    name: str
    depth: int
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """
    One operation as it stands in the document.

    Args:
        method: Lower case.
        line: Of the method's key, from 1; 0 when it cannot be told.
    """

    path: str
    method: str
    node: Mapping[str, Any]
    line: int

    @property
    def subject(self) -> str:
        """`METHOD /path`."""
        return f"{self.method.upper()} {self.path}"

    @property
    def parameters(self) -> list[Mapping[str, Any]]:
        """Its own parameters, references as they stand."""
        return mappings(self.node, "parameters")

    @property
    def request(self) -> Mapping[str, Any] | None:
        """The request body, a reference as it stands; `None` without one."""
        return mapping(self.node, "requestBody") if "requestBody" in self.node else None

    @property
    def replies(self) -> dict[str, Mapping[str, Any]]:
        """The responses by status code, references as they stand."""
        replies = mapping(self.node, "responses")
        return {str(code): mapping(replies, code) for code in replies}

    @property
    def bodies(self) -> dict[str, Mapping[str, Any]]:
        """The request body and every reply, each by its name for people."""
        request = {} if self.request is None else {"the request body": self.request}
        return {**request, **{f"the reply `{code}`": reply for code, reply in self.replies.items()}}


@dataclass(frozen=True)
class ActionsDocument:
    """
    The Actions document.

    Args:
        document: Its data; never changed.
        text: Its YAML text.
    """

    document: Document
    text: str

    @cached_property
    def paths(self) -> dict[str, Mapping[str, Any]]:
        """The path items."""
        paths = mapping(self.document, "paths")
        return {str(path): mapping(paths, path) for path in paths}

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """All operations whose method the contract knows, in the document's order."""
        lines = operation_lines(self.text, {"paths": self.paths})
        return tuple(
            Call(path, method, mapping(item, method), lines.get((path, method), 0))
            for path, item in self.paths.items()
            for method in item
            if method in METHODS
        )

    @cached_property
    def schemas(self) -> Mapping[str, Any]:
        """The component schemas."""
        return mapping(mapping(self.document, "components"), "schemas")

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema, or what it refers to; empty when that is nowhere."""
        try:
            return resolve(self.document, schema)
        except (UnreadableDocument, AttributeError, TypeError):  # the latter two: a `$ref` that is no text
            return {}

    def request_properties(self, call: Call) -> Mapping[str, Any]:
        """The properties of the JSON body that an operation takes; empty unless its root is an object."""
        content = mapping(call.request or {}, "content")
        schema = self.resolved(mapping(mapping(content, JSON), "schema"))
        return mapping(schema, "properties") if schema.get("type") == "object" else {}

    def fields(self, body: Mapping[str, Any]) -> Iterator[Field]:
        """Every property of a body, at any depth, through references; a circular schema is entered once."""
        for media in mappings_in(mapping(body, "content")):
            yield from self._fields(mapping(media, "schema"), 0, ())

    def _fields(self, schema: Mapping[str, Any], depth: int, trail: tuple[object, ...]) -> Iterator[Field]:
        target = schema.get("$ref")
        if target is not None and target in trail:
            return
        trail = (*trail, target) if target is not None else trail
        schema = self.resolved(schema)
        properties = mapping(schema, "properties")
        for name in properties:
            yield Field(str(name), depth, self.resolved(mapping(properties, name)))
            yield from self._fields(mapping(properties, name), depth + 1, trail)
        if "items" in schema:
            yield from self._fields(mapping(schema, "items"), depth + 1, trail)


def found(rule: str, place: Call | str, problem: str, next_step: str) -> Finding:
    """
    A finding about the Actions document.

    Args:
        place: The operation, or the name of the part that is not inside one.
    """
    line, subject = (place.line, place.subject) if isinstance(place, Call) else (0, place)
    return Finding(rule, FILE, line, subject, problem, next_step)


def mapping(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key; empty when something else or nothing is there."""
    value = node.get(key)
    return value if isinstance(value, dict) else {}


def mappings(node: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The entries of the list under a key that are mappings; empty when something else or nothing is there."""
    value = node.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def mappings_in(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The values of a mapping that are mappings themselves."""
    return [value for value in node.values() if isinstance(value, dict)]


def text(node: Mapping[str, Any], key: str) -> str:
    """The text under a key; empty when something else or nothing is there."""
    value = node.get(key)
    return value if isinstance(value, str) else ""
