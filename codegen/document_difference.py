"""
Compares what stands in a document beside its operations: title, servers, tags, reviews, keys, examples, spare parts.

Not for: operations and the schemas that they lead to (`codegen.operation_difference`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from codegen.changes import Change, Kind, Pairing
from codegen.semver import Level

SUBJECT = "document"
# What operations and components hold is compared there; `security` is what operations without their own need.
_COMPARED = frozenset({"info", "servers", "tags", "paths", "components", "security", "x-policy-reviews"})
_TEXTS = frozenset({"description", "summary", "title"})


def document_changes(pairing: Pairing) -> Iterator[Change]:
    """Compare both documents; a top-level field that is not known here cannot be weighed."""
    old, new = pairing.old.document, pairing.new.document
    name = pairing.new.name
    before, after = ({k: v for k, v in side["info"].items() if k != "version"} for side in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield Change(Kind.TEXT, Level.PATCH, name, SUBJECT, f"info.{key}")
    if old.get("servers") != new.get("servers"):
        moved = _without_texts(old.get("servers", ())) != _without_texts(new.get("servers", ()))
        kind, level = (Kind.DOCUMENT, Level.MAJOR) if moved else (Kind.TEXT, Level.PATCH)
        yield Change(kind, level, name, SUBJECT, "servers")
    # Whose operations a tag holds, and which review passes one, is weighed on each operation.
    tags = ({tag["name"]: tag for tag in side.get("tags", ())} for side in (old, new))
    reviews = (side.get("x-policy-reviews", {}) for side in (old, new))
    for field, (was, now) in (("tags", tags), ("x-policy-reviews", reviews)):
        for key in sorted(was.keys() | now.keys()):
            if was.get(key) != now.get(key):
                yield Change(Kind.TEXT, Level.PATCH, name, SUBJECT, f"{field}: {key}")
    for key in sorted((old.keys() | new.keys()) - _COMPARED):
        if old.get(key) != new.get(key):
            yield Change(Kind.DOCUMENT, Level.MAJOR, name, SUBJECT, f"{key} changed; it cannot be weighed")
    yield from _schemes(pairing)
    yield from _examples(pairing)


def leftover(pairing: Pairing, found: bool) -> Iterator[Change]:
    """
    Say that documents differ where no operation has changed: in spare components or in the order of things.

    Args:
        found: Whether any change of this document has been found.
    """
    old, new = (_without_version(side.document) for side in (pairing.old, pairing.new))
    if not found and (old != new or _ordered(old) != _ordered(new)):
        words = "differs only in its order, or in components that no operation uses"
        yield Change(Kind.UNUSED, Level.PATCH, pairing.new.name, SUBJECT, words)


def _schemes(pairing: Pairing) -> Iterator[Change]:
    before, after = (_components(side.document, "securitySchemes") for side in (pairing.old, pairing.new))
    for scheme in sorted(before.keys() | after.keys()):
        if before.get(scheme) == after.get(scheme):
            continue
        if scheme not in before:
            kind, level, words = Kind.DOCUMENT, Level.MINOR, "added"
        elif scheme not in after:
            kind, level, words = Kind.DOCUMENT, Level.MAJOR, "removed"
        elif _without_texts([before[scheme]]) == _without_texts([after[scheme]]):
            kind, level, words = Kind.TEXT, Level.PATCH, "description"
        else:
            kind, level, words = Kind.DOCUMENT, Level.MAJOR, "keys are sent in another way"
        yield Change(kind, level, pairing.new.name, f"securitySchemes/{scheme}", words)


def _examples(pairing: Pairing) -> Iterator[Change]:
    # An example that is new or gone belongs to the operation that shows it.
    before, after = (_components(side.document, "examples") for side in (pairing.old, pairing.new))
    for example in sorted(before.keys() & after.keys()):
        if before[example] != after[example]:
            yield Change(Kind.TEXT, Level.PATCH, pairing.new.name, f"examples/{example}", "value")


def _components(document: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    components: Mapping[str, Any] = document.get("components", {}).get(kind, {})
    return components


def _without_texts(nodes: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in node.items() if key not in _TEXTS} for node in nodes]


def _without_version(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "info": {**document["info"], "version": ""}}


def _ordered(node: Any) -> Any:
    """The same data with mappings as lists of pairs, which keep their order when they are compared."""
    if isinstance(node, dict):
        return [(key, _ordered(value)) for key, value in node.items()]
    return [_ordered(value) for value in node] if isinstance(node, list) else node
