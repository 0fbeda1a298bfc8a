from typing import Any

import pytest

from codegen.schema_effects import Effect
from codegen.schema_values import KEYWORDS, value_changes


@pytest.mark.parametrize(
    "old, new, found",
    [
        ({"type": "string"}, {"type": ["string", "null"]}, [("type string -> null, string", Effect.TYPE_WIDER)]),
        ({"type": "number"}, {"type": "integer"}, [("type number -> integer", Effect.TYPE_NARROWER)]),
        ({"type": "string"}, {"type": "integer"}, [("type string -> integer", Effect.TYPE_OTHER)]),
        ({}, {"type": "string"}, [("type any -> string", Effect.TYPE_NARROWER)]),
        ({"enum": ["a", "b"]}, {"enum": ["b", "a"]}, []),
        ({"enum": ["a"]}, {"const": "a"}, []),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, [("values removed: b", Effect.VALUES_REMOVED)]),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, [("values added: b", Effect.VALUES_ADDED)]),
        (
            {"enum": [1]},
            {"enum": ["1"]},
            [("values removed: 1", Effect.VALUES_REPLACED), ("values added: 1", Effect.VALUES_ADDED)],
        ),
        ({"enum": ["a"]}, {}, [("any value instead of a", Effect.LOOSER)]),
        ({}, {"enum": ["a"]}, [("only a instead of any value", Effect.TIGHTER)]),
        ({"maxLength": 512}, {"maxLength": 64}, [("maxLength 512 -> 64", Effect.TIGHTER)]),
        ({"maxLength": 64}, {}, [("maxLength 64 -> none", Effect.LOOSER)]),
        ({}, {"minimum": 0}, [("minimum none -> 0", Effect.TIGHTER)]),
        ({"minItems": 3}, {"minItems": 1}, [("minItems 3 -> 1", Effect.LOOSER)]),
        ({"pattern": "^a"}, {}, [("pattern ^a -> none", Effect.LOOSER)]),
        ({"pattern": "^a"}, {"pattern": "^b"}, [("pattern ^a -> ^b", Effect.UNDECIDED)]),
        ({"uniqueItems": False}, {"uniqueItems": True}, [("uniqueItems false -> true", Effect.TIGHTER)]),
        ({"multipleOf": 2}, {"multipleOf": 4}, [("multipleOf 2 -> 4", Effect.TIGHTER)]),
        ({"format": "date"}, {"format": "date-time"}, [("format date -> date-time", Effect.TYPE_OTHER)]),
        ({}, {"format": "date"}, [("format none -> date", Effect.TYPE_NARROWER)]),
        ({"format": "date"}, {}, [("format date -> none", Effect.TYPE_WIDER)]),
        ({"default": 20}, {"default": 10}, [("default 20 -> 10", Effect.DEFAULT_SMALLER)]),
        ({"default": 20}, {"default": 50}, [("default 20 -> 50", Effect.DEFAULT_LARGER)]),
        ({"default": "asc"}, {"default": "desc"}, [("default asc -> desc", Effect.DEFAULT_OTHER)]),
        ({"default": 1}, {"default": True}, [("default 1 -> true", Effect.DEFAULT_OTHER)]),
        ({"default": None}, {}, [("default null -> none", Effect.DEFAULT_OTHER)]),
        ({}, {"default": False}, [("default none -> false", Effect.DEFAULT_ADDED)]),
    ],
)
def test_each_keyword_has_its_direction(
    old: dict[str, Any], new: dict[str, Any], found: list[tuple[str, Effect]]
) -> None:
    """What differs is named with both values, and what that does."""
    assert list(value_changes(old, new)) == found


def test_what_only_looks_looser_is_not_believed() -> None:
    """A wider enum beside a type that keeps its values out takes nothing more; a proof is asked for, and given."""
    old, new = {"type": "string", "enum": ["a"]}, {"type": "string", "enum": ["a", 1]}
    assert [effect for _, effect in value_changes(old, new)] == [Effect.VALUES_ADDED]


def test_loosenings_without_a_proof_count_as_undecided() -> None:
    """Where the judge cannot prove that everything from before is still taken, the walk does not claim it."""
    old, new = ({"type": "string", "pattern": "(", "maxLength": length} for length in (5, 9))
    assert [effect for _, effect in value_changes(old, new)] == [Effect.LOOSER, Effect.UNDECIDED]


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_no_keyword_of_the_list_changes_silently(keyword: str) -> None:
    """Each keyword that the module claims is found when it appears."""
    values: dict[str, Any] = {"type": "string", "enum": ["a"], "pattern": "^a", "format": "date", "uniqueItems": True}
    assert list(value_changes({}, {keyword: values.get(keyword, 3)}))
