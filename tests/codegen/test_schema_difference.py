from typing import Any

import pytest

from codegen.exceptions import UnreadableDocument
from codegen.schema_difference import SchemaComparer
from codegen.schema_effects import Effect, Role
from codegen.semver import Level

Schema = dict[str, Any]
REF: Schema = {"$ref": "#/components/schemas/Name"}


def differences(old: object, new: object, **schemas: tuple[Schema, Schema]) -> list[tuple[str, str, Effect]]:
    """Place, detail and effect of each difference; components are given as before and after."""
    sides = [{"components": {"schemas": {name: pair[side] for name, pair in schemas.items()}}} for side in (0, 1)]
    found = SchemaComparer(*sides).compare(old, new)
    return [(change.place, change.detail, change.effect) for change in found.changes]


def of(*properties: str, **more: Any) -> Schema:
    """An object with text properties."""
    return {"type": "object", "properties": {name: {"type": "string"} for name in properties}, **more}


@pytest.mark.parametrize(
    "old, new, place, effect",
    [
        (of("a"), of("a", "b"), "b", Effect.FIELD_ADDED),
        (of("a"), of("a", "b", required=["b"]), "b", Effect.REQUIRED_FIELD_ADDED),
        (of("a", "b"), of("a"), "b", Effect.FIELD_REMOVED),
        (of("a", "b", required=["b"]), of("a"), "b", Effect.FIELD_REMOVED),
        (of("b", additionalProperties=False), of(additionalProperties=False), "b", Effect.FIELD_REFUSED),
        (
            of("b", additionalProperties={"type": "integer"}),
            of(additionalProperties={"type": "integer"}),
            "b",
            Effect.FIELD_REFUSED,
        ),
        (
            of("b", additionalProperties={"type": "string"}),
            of(additionalProperties={"type": "string"}),
            "b",
            Effect.FIELD_REMOVED,
        ),
        (of("a"), of("a", required=["a"]), "a", Effect.NOW_REQUIRED),
        (of("a", required=["a"]), of("a"), "a", Effect.NOT_REQUIRED),
        (of(), of(required=["a"]), "a", Effect.NOW_REQUIRED),
        (of(), of(additionalProperties=False), "", Effect.TIGHTER),
        (of(additionalProperties=False), of(additionalProperties=True), "", Effect.LOOSER),
        (
            of(additionalProperties={"type": "string"}),
            of(additionalProperties={"type": "integer"}),
            "*",
            Effect.TYPE_OTHER,
        ),
        (of(), of(additionalProperties={"type": "string"}), "*", Effect.TYPE_NARROWER),
        ({"items": of("a")}, {"items": of()}, "[].a", Effect.FIELD_REMOVED),
        ({}, {"items": {"type": "string"}}, "[]", Effect.TYPE_NARROWER),
        (of("a"), {**of("a"), "description": "A."}, "", Effect.TEXT),
        (of("a"), {**of("a"), "deprecated": True}, "", Effect.DEPRECATED),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}, "", Effect.SPELLING),
        ({"anyOf": [of("a"), {"type": "null"}]}, of("a"), "", Effect.TYPE_NARROWER),
        ({"anyOf": [of("a"), {"type": "null"}]}, {"anyOf": [{"type": "null"}, of()]}, "a", Effect.FIELD_REMOVED),
        ({"oneOf": [{"type": "string"}]}, {"oneOf": [{"type": "string"}, {"type": "null"}]}, "", Effect.TYPE_WIDER),
        ({"not": {"type": "null"}}, {"not": {"type": ["null", "string"]}}, "", Effect.TIGHTER),
        ({"not": {"type": "null"}}, {}, "", Effect.TYPE_WIDER),
        ({"allOf": [of("a")]}, {"allOf": [of("a", "b")]}, "b", Effect.FIELD_ADDED),
        ({"allOf": [of("a")], **of("b")}, of("b"), "a", Effect.FIELD_REMOVED),
        (of("a"), {**of("a"), "readOnly": True}, "", Effect.UNDECIDED),
        (of("a"), {**of("a"), "x-unheard": 1}, "", Effect.UNDECIDED),
        (True, False, "", Effect.TYPE_NARROWER),
    ],
)
def test_each_difference_is_named_with_its_place(old: object, new: object, place: str, effect: Effect) -> None:
    """One edit is one difference, at the field that it concerns."""
    assert [(where, what) for where, _, what in differences(old, new)] == [(place, effect)]


@pytest.mark.parametrize(
    "old, new",
    [
        (of("a", "b"), of("b", "a")),
        ({}, True),
        (of("a", required=["a"]), {"allOf": [of("a")], "required": ["a"], "type": "object"}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
    ],
)
def test_order_and_spelling_alone_change_nothing_for_callers(old: object, new: object) -> None:
    """What takes the same values and names the same fields is at most another spelling."""
    assert {effect for _, _, effect in differences(old, new)} <= {Effect.SPELLING}


def test_a_closed_part_that_is_taken_apart_is_not_lost() -> None:
    """`additionalProperties: false` in a part of `allOf` refuses the fields beside it; writing it flat lets them in."""
    old = {"allOf": [of("a", additionalProperties=False)], **of("b")}
    found = differences(old, of("a", "b", additionalProperties=False))
    assert [effect for _, _, effect in found] == [Effect.TYPE_WIDER]


def test_a_component_is_compared_once_and_for_itself() -> None:
    """A reference that stays is not followed in place: its component has the change, and says what it leads to."""
    names = {"type": "string", "maxLength": 9}, {"type": "string", "maxLength": 5}
    sides = [{"components": {"schemas": {"Name": name, "Thing": {"properties": {"name": REF}}}}} for name in names]
    comparer = SchemaComparer(*sides)
    thing = {"$ref": "#/components/schemas/Thing"}
    found = comparer.compare({"items": thing}, {"items": thing})
    assert found.changes == ()
    assert comparer.reached(found.components) == {thing["$ref"], REF["$ref"]}
    (change,) = comparer.component(REF["$ref"]).changes
    assert str(change) == "maxLength 9 -> 5"
    assert comparer.component(REF["$ref"]) is comparer.component(REF["$ref"])


def test_what_only_one_side_follows_is_not_reached() -> None:
    """A component that a new field brings along has not changed for anybody."""
    before: Schema = {"type": "object", "properties": {}}
    after = {"type": "object", "properties": {"name": REF}}
    comparer = SchemaComparer({"components": {}}, {"components": {"schemas": {"Name": {}}}})
    assert comparer.compare(before, after).components == frozenset()


def test_another_reference_is_compared_by_what_it_leads_to() -> None:
    """A renamed component with the same schema changes nothing; with another one, it does."""
    new = {"$ref": "#/components/schemas/Title"}
    same = {"type": "string"}, {"type": "string"}
    assert differences(REF, new, Name=same, Title=same) == []
    narrower = {"type": "string"}, {"type": "string", "maxLength": 1}
    assert differences(REF, new, Name=same, Title=narrower) == [("", "maxLength none -> 1", Effect.TIGHTER)]
    assert differences(REF, {"type": "integer"}, Name=same) == [("", "type string -> integer", Effect.TYPE_OTHER)]


def test_renamed_schemas_that_lead_to_themselves_end() -> None:
    """Recursion ends where the same two references meet again."""
    old = {"properties": {"child": {"$ref": "#/components/schemas/Old"}}}
    new = {"properties": {"child": {"$ref": "#/components/schemas/New"}}, "required": ["child"]}
    found = differences(
        {"$ref": "#/components/schemas/Old"}, {"$ref": "#/components/schemas/New"}, Old=(old, old), New=(new, new)
    )
    assert found == [("child", "now required", Effect.NOW_REQUIRED)]


def test_a_reference_that_leads_nowhere_is_told() -> None:
    """A document whose references do not hold is not compared by guessing."""
    comparer = SchemaComparer({"components": {}}, {"components": {}})
    with pytest.raises(UnreadableDocument, match="leads nowhere"):
        comparer.reached([REF["$ref"]])


def test_values_of_the_error_envelope_are_error_codes() -> None:
    """A code that is gone breaks programs that look for it, although elsewhere a missing value of replies does not."""
    sides = [
        {"components": {"schemas": {name: {"enum": values} for name in ("RelayErrorEnvelope", "Other")}}}
        for values in (["a", "b"], ["a"])
    ]
    comparer = SchemaComparer(*sides)
    (code,), (value,) = (
        comparer.component(f"#/components/schemas/{n}").changes for n in ("RelayErrorEnvelope", "Other")
    )
    assert code.effect is Effect.CODE_REMOVED
    assert code.effect.level(Role.RESPONSE) is Level.MAJOR
    assert value.effect.level(Role.RESPONSE) is Level.MINOR


@pytest.mark.parametrize(
    "effect, request_level, response_level",
    [
        (Effect.TIGHTER, Level.MAJOR, Level.MINOR),
        (Effect.LOOSER, Level.MINOR, Level.MINOR),
        (Effect.FIELD_ADDED, Level.MINOR, Level.MINOR),
        (Effect.REQUIRED_FIELD_ADDED, Level.MAJOR, Level.MINOR),
        (Effect.FIELD_REMOVED, Level.MINOR, Level.MAJOR),
        (Effect.NOT_REQUIRED, Level.MINOR, Level.MAJOR),
        (Effect.TYPE_OTHER, Level.MAJOR, Level.MAJOR),
        (Effect.TYPE_WIDER, Level.MINOR, Level.MAJOR),
        (Effect.VALUES_ADDED, Level.MINOR, Level.MINOR),
        (Effect.DEFAULT_SMALLER, Level.MAJOR, Level.PATCH),
        (Effect.TEXT, Level.PATCH, Level.PATCH),
        (Effect.UNDECIDED, Level.MAJOR, Level.MAJOR),
    ],
)
def test_direction_decides_the_level(effect: Effect, request_level: Level, response_level: Level) -> None:
    """What is harmless in a request may break readers of a reply, and the other way round."""
    assert (effect.level(Role.REQUEST), effect.level(Role.RESPONSE)) == (request_level, response_level)
