"""
Compares the shape of one operation before and after: parameters, request body, replies, their schemas and its texts.

Not for: what was decided about it (`codegen.decision_difference`). What stands in a component is reported as that
component's change, so that many operations can share it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codegen.changes import Change, Kind, Pair, Pairing, name_of
from codegen.contract import JSON, METHODS, Contract, Operation
from codegen.decision_difference import moved
from codegen.reader import resolve
from codegen.schema_difference import Comparison, SchemaComparer
from codegen.schema_effects import Effect, Role
from codegen.semver import Level

Node = Mapping[str, Any]
_TEXTS = ("summary", "description", "tags", "externalDocs")
_REASONS = ("x-policy-reason", "x-policy-review")  # with a bucket that moves they go without saying
_EXAMPLES = ("example", "examples")
# Compared here or in `codegen.decision_difference`; any other field of an operation cannot be weighed.
_COMPARED = {*_TEXTS, *_REASONS, "operationId", "deprecated", "x-sunset", "security", "parameters", "requestBody"}
_COMPARED |= {"responses", "x-openai-isConsequential", "x-policy-bucket", "x-policy-exclusion"}
_COMPARED |= {"x-policy-wrapper", "x-policy-wraps", "x-policy-carries"}
_KINDS = {Effect.TEXT: Kind.TEXT, Effect.CODE_ADDED: Kind.ERROR_CODE, Effect.CODE_REMOVED: Kind.ERROR_CODE}
_ABSENT: Node = {}


@dataclass(frozen=True, slots=True)
class _Spot:
    """What a change is said about: an operation or a component, and the place in it."""

    subject: str
    place: str

    def within(self, part: str) -> "_Spot":
        return _Spot(self.subject, f"{self.place} {part}".strip())

    def says(self, detail: str) -> str:
        return f"{self.place}: {detail}" if self.place else detail


def shape_changes(pairing: Pairing) -> Iterator[Change]:
    """
    Compare the shape of every operation that stands on both sides.

    Raises:
        UnreadableDocument: A reference leads nowhere.
    """
    schemas = SchemaComparer(pairing.old.document, pairing.new.document)
    for pair in pairing.kept:
        # An operation that is refused from now on, or served at last, has no shape to compare: its bucket says all.
        if pair.old.served is pair.new.served:
            yield from _Comparer(pairing, pair, schemas).changes()


class _Comparer:
    def __init__(self, pairing: Pairing, pair: Pair, schemas: SchemaComparer) -> None:
        self._pair = pair
        self._schemas = schemas
        self._old, self._new = pairing.old.document, pairing.new.document
        self._document = pairing.new.name
        self._items = self._old["paths"][pair.old.path], self._new["paths"][pair.new.path]
        self._before, self._after = _node(pairing.old, pair.old), _node(pairing.new, pair.new)
        self._parameters = _parameters(pairing.old, pair.old), _parameters(pairing.new, pair.new)
        self._spot = _Spot(name_of(pair.new), "")

    def changes(self) -> Iterator[Change]:
        yield from self._own_fields()
        yield from self._parameters_changes()
        yield from self._body()
        yield from self._responses()

    def _own_fields(self) -> Iterator[Change]:
        said = _TEXTS if moved(self._pair) else (*_TEXTS, *_REASONS)
        yield from self._texts(self._spot, self._before, self._after, said)
        yield from self._unknown(self._spot, self._before, self._after, _COMPARED)
        yield from self._texts(self._spot, *self._items, _TEXTS)
        yield from self._unknown(self._spot, *self._items, {*_TEXTS, *METHODS, "parameters"})

    def _parameters_changes(self) -> Iterator[Change]:
        before, after = self._parameters
        for key in before.keys() - after.keys():
            yield self._change(Kind.PARAMETER, Level.MAJOR, self._spot, f"{key} removed")
        for key in after.keys() - before.keys():
            required = bool(resolve(self._new, after[key]).get("required"))
            level = Level.MAJOR if required else Level.MINOR
            words = f"{'required ' if required else ''}{key} added"
            yield self._change(Kind.PARAMETER, level, self._spot, words)
        for key in before.keys() & after.keys():
            yield from self._parameter(key, before[key], after[key])

    def _parameter(self, key: str, old: Node, new: Node) -> Iterator[Change]:
        spot, old, new = self._entered(old, new, key)
        if bool(old.get("required")) is not bool(new.get("required")):
            words = "now required" if new.get("required") else "no longer required"
            level = Level.MAJOR if new.get("required") else Level.MINOR
            yield self._change(Kind.PARAMETER, level, spot, spot.says(words))
        if bool(old.get("deprecated")) is not bool(new.get("deprecated")):
            words = "deprecated" if new.get("deprecated") else "no longer deprecated"
            yield self._change(Kind.PARAMETER, Level.MINOR, spot, spot.says(words))
        yield from self._texts(spot, old, new, ("description", *_EXAMPLES))
        compared = {"name", "in", "required", "deprecated", "schema", "description", *_EXAMPLES}
        yield from self._unknown(spot, old, new, compared)
        yield from self._schema(spot, old, new, Role.REQUEST)

    def _body(self) -> Iterator[Change]:
        if "requestBody" not in self._before or "requestBody" not in self._after:
            if "requestBody" in self._before:
                yield self._change(Kind.BODY, Level.MAJOR, self._spot, "request body removed")
            elif "requestBody" in self._after:
                required = bool(resolve(self._new, self._after["requestBody"]).get("required"))
                words = f"{'required ' if required else ''}request body added"
                yield self._change(Kind.BODY, Level.MAJOR if required else Level.MINOR, self._spot, words)
            return
        spot, old, new = self._entered(self._before["requestBody"], self._after["requestBody"], "body")
        if bool(old.get("required")) is not bool(new.get("required")):
            words = "now required" if new.get("required") else "no longer required"
            level = Level.MAJOR if new.get("required") else Level.MINOR
            yield self._change(Kind.BODY, level, spot, spot.says(words))
        yield from self._texts(spot, old, new, ("description",))
        yield from self._unknown(spot, old, new, {"required", "description", "content"})
        yield from self._content(spot, old, new, Role.REQUEST)

    def _responses(self) -> Iterator[Change]:
        before, after = self._before.get("responses", _ABSENT), self._after.get("responses", _ABSENT)
        for code in before.keys() - after.keys():
            yield self._change(Kind.RESPONSE, Level.MAJOR, self._spot, f"reply {code} removed")
        for code in after.keys() - before.keys():
            yield self._change(Kind.RESPONSE, Level.MINOR, self._spot, f"reply {code} added")
        for code in before.keys() & after.keys():
            spot, old, new = self._entered(before[code], after[code], f"reply {code}")
            yield from self._texts(spot, old, new, ("description",))
            yield from self._unknown(spot, old, new, {"description", "headers", "content"})
            yield from self._headers(spot, old, new)
            yield from self._content(spot, old, new, Role.RESPONSE)

    def _headers(self, spot: _Spot, old: Node, new: Node) -> Iterator[Change]:
        before, after = old.get("headers", _ABSENT), new.get("headers", _ABSENT)
        for name in before.keys() - after.keys():
            yield self._change(Kind.RESPONSE, Level.MAJOR, spot, spot.says(f"header {name} removed"))
        for name in after.keys() - before.keys():
            yield self._change(Kind.RESPONSE, Level.MINOR, spot, spot.says(f"header {name} added"))
        for name in before.keys() & after.keys():
            inner, was, now = self._entered(before[name], after[name], f"header {name}", spot)
            yield from self._texts(inner, was, now, ("description", *_EXAMPLES))
            yield from self._unknown(inner, was, now, {"description", "schema", *_EXAMPLES})
            yield from self._schema(inner, was, now, Role.RESPONSE)

    def _content(self, spot: _Spot, old: Node, new: Node, role: Role) -> Iterator[Change]:
        before, after = old.get("content", _ABSENT), new.get("content", _ABSENT)
        for media_type in before.keys() - after.keys():
            yield self._change(Kind.MEDIA_TYPE, Level.MAJOR, spot, spot.says(f"{media_type} removed"))
        for media_type in after.keys() - before.keys():
            yield self._change(Kind.MEDIA_TYPE, Level.MINOR, spot, spot.says(f"{media_type} added"))
        for media_type in before.keys() & after.keys():
            inner = spot if media_type == JSON else spot.within(media_type)
            yield from self._texts(inner, before[media_type], after[media_type], _EXAMPLES)
            yield from self._unknown(inner, before[media_type], after[media_type], {"schema", *_EXAMPLES})
            yield from self._schema(inner, before[media_type], after[media_type], role)

    def _schema(self, spot: _Spot, old: Node, new: Node, role: Role) -> Iterator[Change]:
        found = self._schemas.compare(old.get("schema", True), new.get("schema", True))
        yield from self._found(found, spot, role)
        for pointer in self._schemas.reached(found.components):
            component = _Spot(pointer.removeprefix("#/components/"), "")
            yield from self._found(self._schemas.component(pointer), component, role)

    def _found(self, found: Comparison, spot: _Spot, role: Role) -> Iterator[Change]:
        for change in found.changes:
            dotted = f"{spot.place}.{change.place}".strip(".") if change.place else spot.place
            detail = _Spot(spot.subject, dotted).says(change.detail)
            kind = _KINDS.get(change.effect, Kind.SCHEMA)
            yield self._change(kind, change.effect.level(role), spot, detail)

    def _texts(self, spot: _Spot, old: Node, new: Node, keys: Iterable[str]) -> Iterator[Change]:
        changed = [key for key in keys if old.get(key) != new.get(key)]
        if changed:
            yield self._change(Kind.TEXT, Level.PATCH, spot, spot.says(", ".join(changed)))

    def _unknown(self, spot: _Spot, old: Node, new: Node, compared: Iterable[str]) -> Iterator[Change]:
        for key in sorted((old.keys() | new.keys()) - set(compared)):
            if old.get(key) != new.get(key):
                yield self._change(Kind.SCHEMA, Level.MAJOR, spot, spot.says(f"{key} changed; it cannot be weighed"))

    def _entered(self, old: Node, new: Node, place: str, above: _Spot | None = None) -> tuple[_Spot, Node, Node]:
        """What stands in one place on both sides, and how to speak of it: as the component that both refer to."""
        spot = (above or self._spot).within(place)
        if "$ref" in old and old.get("$ref") == new.get("$ref"):
            spot = _Spot(old["$ref"].removeprefix("#/components/"), "")
        return spot, resolve(self._old, old), resolve(self._new, new)

    def _change(self, kind: Kind, level: Level, spot: _Spot, detail: str) -> Change:
        weighed = min(level, Level.PATCH) if self._pair.unseen else level
        return Change(kind, weighed, self._document, spot.subject, detail, frozenset({self._pair.new.id}))


def _node(contract: Contract, operation: Operation) -> Node:
    node: Node = contract.document["paths"][operation.path][operation.method.lower()]
    return node


def _parameters(contract: Contract, operation: Operation) -> dict[str, Node]:
    """
    The parameters of an operation by kind and name.

    Those of the path go by their place in it: a template whose names change has been reported as moved.
    """
    raw = [*contract.document["paths"][operation.path].get("parameters", ()), *_own_parameters(contract, operation)]
    found: dict[str, Node] = {}
    for node in raw:
        target = resolve(contract.document, node)
        key = f"{target['in']} {target['name']}"
        if target["in"] == "path":
            before = operation.path.partition("{" + target["name"] + "}")[0]
            key = f"path value {before.count('{') + 1}"
        found[key] = node
    return found


def _own_parameters(contract: Contract, operation: Operation) -> Iterable[Node]:
    parameters: Iterable[Node] = _node(contract, operation).get("parameters", ())
    return parameters
