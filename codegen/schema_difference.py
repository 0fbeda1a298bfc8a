"""
Names the places where two schemas of one purpose differ, component by component, and what each does to callers.

Not for: weighing by bucket (`codegen.contract_diff`). A component is compared once, however many places lead to it.
Where this walk has no rule, `codegen.schema_judge` decides; where neither decides, the difference counts as breaking.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from codegen.reader import Document, references, resolve
from codegen.schema_effects import OF_TYPES, OF_VALUES, Effect, SchemaChange
from codegen.schema_judge import Verdict, judge
from codegen.schema_values import KEYWORDS, Node, value_changes

_TEXTS = ("title", "description", "examples", "example", "externalDocs", "$comment")
_CHOICES = ("anyOf", "oneOf")
_WALKED = KEYWORDS | {*_TEXTS, *_CHOICES, "allOf", "$ref", "deprecated", "properties", "required"}
_WALKED |= {"additionalProperties", "items"}
_MERGED = frozenset({"properties", "required", *_TEXTS})  # keywords that parts of `allOf` may share
# What a validator obeys and the walk has no name for; everything else that is unknown cannot be decided.
_PROVABLE = frozenset(
    {"not", "if", "then", "else", "patternProperties", "propertyNames", "prefixItems", "contains", "minContains"}
    | {"maxContains", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"}
)
_ERRORS = "#/components/schemas/RelayErrorEnvelope"  # its enums are the relay's types and codes of errors
_OF_ERRORS = {Effect.VALUES_ADDED: Effect.CODE_ADDED, Effect.VALUES_REMOVED: Effect.CODE_REMOVED}


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    What comparing two schemas has found.

    Args:
        changes: In the schema itself, not in components that it leads to.
        components: References that both sides follow from it; compare them with `SchemaComparer.component`.
    """

    changes: tuple[SchemaChange, ...]
    components: frozenset[str]


class SchemaComparer:
    """
    Compares schemas of two documents.

    Args:
        old: The document before the change.
        new: The document after it.
    """

    def __init__(self, old: Document, new: Document) -> None:
        self._old = old
        self._new = new
        self._known: dict[str, Comparison] = {}

    def compare(self, old: object, new: object) -> Comparison:
        """Compare two schemas that stand in the documents."""
        walk = _Walk(self._old, self._new)
        walk.enter(old, new, "")
        return Comparison(tuple(sorted(set(walk.changes), key=_order)), frozenset(walk.components))

    def component(self, pointer: str) -> Comparison:
        """Compare what one reference leads to on both sides."""
        if pointer not in self._known:
            found = self.compare(*(resolve(side, {"$ref": pointer}) for side in (self._old, self._new)))
            if pointer == _ERRORS:
                changes = tuple(
                    SchemaChange(c.place, c.detail, _OF_ERRORS.get(c.effect, c.effect)) for c in found.changes
                )
                found = Comparison(changes, found.components)
            self._known[pointer] = found
        return self._known[pointer]

    def reached(self, components: Iterable[str]) -> frozenset[str]:
        """These components and all that they lead to on both sides."""
        seen: set[str] = set()
        waiting = list(components)
        while waiting:
            pointer = waiting.pop()
            if pointer not in seen:
                seen.add(pointer)
                waiting += self.component(pointer).components
        return frozenset(seen)


def _order(change: SchemaChange) -> tuple[str, str]:
    return change.place, change.detail


class _Walk:
    def __init__(self, old: Document, new: Document) -> None:
        self._old = old
        self._new = new
        self._trail: list[tuple[object, object]] = []
        self.changes: list[SchemaChange] = []
        self.components: set[str] = set()

    def enter(self, old: object, new: object, place: str) -> None:
        """Compare two schemas of one place."""
        before, after = _mapping(old), _mapping(new)
        pair = before.get("$ref"), after.get("$ref")
        if pair[0] == pair[1]:
            self._compare(before, after, place)
        elif pair not in self._trail:  # a pair that leads back to itself is being compared already
            self._trail.append(pair)
            self._compare(_inlined(self._old, before), _inlined(self._new, after), place)
            self._trail.pop()

    def _compare(self, old: Node, new: Node, place: str) -> None:
        if old == new:
            self.components.update(references(old))
            return
        if "$ref" in old:
            self.components.add(old["$ref"])
        whole, found = (old, new), len(self.changes)
        old, new, same_parts = _flattened(self._old, self._new, old, new)
        self.components.update(references(same_parts))
        self._annotations(old, new, place)
        if self._decided_as_a_whole(old, new, place):
            return
        for detail, effect in value_changes(old, new):
            self._note(place, detail, effect)
        self._fields(old, new, place)
        self._other_fields(old, new, place)
        if "items" in old or "items" in new:
            self.enter(old.get("items", {}), new.get("items", {}), f"{place}[]")
        for keyword in _CHOICES:
            self._choices(keyword, old, new, place)
        self._unknown(old, new, place)
        if whole[0].get("allOf", ()) != whole[1].get("allOf", ()) and len(self.changes) == found:
            self._as_a_whole(*whole, place, "allOf")

    def _annotations(self, old: Node, new: Node, place: str) -> None:
        changed = [keyword for keyword in _TEXTS if old.get(keyword) != new.get(keyword)]
        if changed:
            self._note(place, ", ".join(changed), Effect.TEXT)
        if bool(old.get("deprecated")) != bool(new.get("deprecated")):
            words = "deprecated" if new.get("deprecated") else "no longer deprecated"
            self._note(place, words, Effect.DEPRECATED)

    def _decided_as_a_whole(self, old: Node, new: Node, place: str) -> bool:
        """Judge schemas that are built differently in one go: their parts have no counterparts."""
        built = [{key for key in (*_CHOICES, "allOf", *_PROVABLE) if key in node} for node in (old, new)]
        if built[0] == built[1] and "allOf" not in built[0]:
            return False
        self._as_a_whole(old, new, place, ", ".join(sorted(built[0] ^ built[1]) or ["allOf"]))
        return True

    def _as_a_whole(self, old: Node, new: Node, place: str, keywords: str) -> None:
        verdict = judge((_assertions(old), self._old), (_assertions(new), self._new))
        self._note(place, f"built differently: {keywords}", OF_TYPES[verdict])

    def _fields(self, old: Node, new: Node, place: str) -> None:
        before, after = old.get("properties", {}), new.get("properties", {})
        required_before, required_after = frozenset(old.get("required", ())), frozenset(new.get("required", ()))
        for name in before.keys() - after.keys():
            effect = Effect.FIELD_REMOVED if self._still_taken(before[name], new) else Effect.FIELD_REFUSED
            self._note(_below(place, name), "field removed", effect)
        for name in after.keys() - before.keys():
            required = name in required_after
            words = "required field added" if required else "field added"
            self._note(_below(place, name), words, Effect.REQUIRED_FIELD_ADDED if required else Effect.FIELD_ADDED)
        kept = {*before, *after} - (before.keys() ^ after.keys())
        for name in required_after - required_before - (after.keys() - kept):
            self._note(_below(place, name), "now required", Effect.NOW_REQUIRED)
        for name in required_before - required_after - (before.keys() - kept):
            self._note(_below(place, name), "no longer required", Effect.NOT_REQUIRED)
        for name in kept:
            self.enter(before[name], after[name], _below(place, name))

    def _still_taken(self, field: object, new: Node) -> bool:
        """Whether a field that is no longer named may go on being sent as an unknown one."""
        others = new.get("additionalProperties", True)
        verdict = judge((_assertions(_mapping(field)), self._old), (_assertions(_mapping(others)), self._new))
        return others in (True, {}) or verdict in {Verdict.SAME, Verdict.WIDER}

    def _other_fields(self, old: Node, new: Node, place: str) -> None:
        before, after = (node.get("additionalProperties", True) for node in (old, new))
        if before is False or after is False:
            if before is not after:
                words = "unknown fields taken" if before is False else "unknown fields refused"
                self._note(place, words, Effect.LOOSER if before is False else Effect.TIGHTER)
        else:
            self.enter(before, after, _below(place, "*"))

    def _choices(self, keyword: str, old: Node, new: Node, place: str) -> None:
        before, after = list(old.get(keyword, ())), list(new.get(keyword, ()))
        for part in [part for part in before if part in after]:
            before.remove(part)
            after.remove(part)
            self.components.update(references(part))
        if keyword == "anyOf" and len(before) == len(after) == 1:
            self.enter(before[0], after[0], place)
        elif before or after:
            verdict = judge(*(({keyword: side[0][keyword]}, side[1]) for side in ((old, self._old), (new, self._new))))
            self._note(place, f"{keyword}: {len(before)} removed, {len(after)} added", OF_TYPES[verdict])

    def _unknown(self, old: Node, new: Node, place: str) -> None:
        for keyword in sorted((old.keys() | new.keys()) - _WALKED):
            if old.get(keyword) == new.get(keyword):
                continue
            effect = Effect.UNDECIDED
            if keyword in _PROVABLE:
                verdict = judge((_assertions(old), self._old), (_assertions(new), self._new))
                effect = OF_VALUES[verdict]
            self._note(place, f"{keyword} changed", effect)

    def _note(self, place: str, detail: str, effect: Effect) -> None:
        self.changes.append(SchemaChange(place, detail, effect))


def _mapping(schema: object) -> Node:
    if isinstance(schema, Mapping):
        return schema
    return {} if schema is True else {"not": {}}


def _inlined(document: Document, schema: Node) -> Node:
    """A schema with what its reference leads to in the reference's place."""
    if "$ref" not in schema:
        return schema
    return {**resolve(document, schema), **{key: value for key, value in schema.items() if key != "$ref"}}


def _flattened(old_document: Document, new_document: Document, old: Node, new: Node) -> tuple[Node, Node, list[Any]]:
    """
    Take `allOf` apart: parts that both sides have are set aside, the others become part of the schema itself.

    Returns:
        Both schemas, and the parts set aside. `allOf` stays where its parts contradict each other.
    """
    before, after = list(old.get("allOf", ())), list(new.get("allOf", ()))
    same = []
    for part in [part for part in before if part in after]:
        before.remove(part)
        after.remove(part)
        same.append(part)
    return _merged(old_document, old, before), _merged(new_document, new, after), same


def _merged(document: Document, schema: Node, parts: Iterable[Node]) -> Node:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        target = _inlined(document, part)
        if any(key in merged and merged[key] != value and key not in _MERGED for key, value in target.items()):
            return schema
        for key, value in target.items():
            if key == "required":
                merged[key] = sorted({*merged.get(key, ()), *value})
            elif key == "properties":
                both = {
                    name: {"allOf": [merged[key][name], value[name]]} for name in value.keys() & merged.get(key, {})
                }
                merged[key] = {**merged.get(key, {}), **value, **both}
            elif key not in _TEXTS or key not in merged:
                merged[key] = value
    return merged


def _assertions(schema: Node) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in {*_TEXTS, "deprecated", "default"}}


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
