"""
Reads a document of the contract from YAML or JSON text into plain data.

Not for: deciding what the data means (`codegen.contract`). Reads the file it is given, writes nothing.
"""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from codegen.exceptions import UnreadableDocument

Document = dict[str, Any]


class _StrictLoader(yaml.CSafeLoader):
    """PyYAML's C loader that refuses a key written twice and keeps dates as text."""


class _PlainLoader(_StrictLoader):
    """The same, refusing aliases: what stands there is what is read."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build a node's value; each node comes here once, unless an alias names it again."""
        if node in self.constructed_objects:
            raise UnreadableDocument(f"line {node.start_mark.line + 1}: an alias repeats this value; write it out.")
        return super().construct_object(node, deep=deep)


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    mapping: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise UnreadableDocument(f"line {line}: a key must be text or a number.")
        if key in mapping:
            raise UnreadableDocument(f"line {line}: the key `{key}` stands twice in one mapping; delete one of them.")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


# The stubs know constructors of the pure-Python loader only.
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)
_StrictLoader.add_constructor(  # type: ignore[type-var]
    "tag:yaml.org,2002:timestamp", yaml.CSafeLoader.construct_yaml_str
)


def read_yaml(path: Path, *, aliases: bool = False) -> Document:
    """
    Read one YAML document whose root is a mapping.

    Args:
        aliases: Whether it may have some, as files of others may.

    Raises:
        UnreadableDocument: The file is missing, is not YAML, repeats a key, or its root is not a mapping.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UnreadableDocument(
            f"{path}: cannot be read ({error.strerror}). Run this in the project's folder."
        ) from None
    return parse_yaml(text, path, aliases=aliases)


def parse_yaml(text: bytes, path: Path, *, aliases: bool = False) -> Document:
    """
    Read YAML whose root is a mapping.

    Args:
        path: The file that it comes from, for messages.
        aliases: Whether it may have some.

    Raises:
        UnreadableDocument: It is not YAML, repeats a key, or its root is not a mapping.
    """
    loader = _StrictLoader if aliases else _PlainLoader
    try:
        document = yaml.load(text, Loader=loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise UnreadableDocument(f"{path}: is not YAML: {error}") from None
    except UnreadableDocument as error:
        raise UnreadableDocument(f"{path}: {error}") from None
    return _require_mapping(document, path)


def read_json(path: Path) -> Document:
    """
    Read one JSON document whose root is an object.

    Raises:
        UnreadableDocument: The file is missing, is not JSON, or its root is not an object.
    """
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UnreadableDocument(f"{path}: cannot be read ({error.strerror}). Run `contract render`.") from None
    except orjson.JSONDecodeError as error:
        raise UnreadableDocument(f"{path}: is not JSON: {error}. Run `contract render`.") from None
    return _require_mapping(document, path)


def resolve(document: Document, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Follow `$ref` until a node that is not a reference.

    Raises:
        UnreadableDocument: The reference is not local (`#/…`), leads nowhere, or leads back to itself.
    """
    seen: set[str] = set()
    while "$ref" in node:
        pointer = node["$ref"]
        if pointer in seen or not pointer.startswith("#/"):
            raise UnreadableDocument(f"`$ref: {pointer}` must lead to a place in the same document.")
        seen.add(pointer)
        target: Any = document
        for part in pointer[2:].split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise UnreadableDocument(f"`$ref: {pointer}` leads nowhere; define the component or correct the name.")
        node = target
    return node


def references(node: Any) -> Iterator[str]:
    """Every `$ref` inside a part of a document, as it is written there."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]


def _require_mapping(document: object, path: Path) -> Document:
    if not isinstance(document, dict):
        raise UnreadableDocument(f"{path}: the root must be a mapping.")
    return document
