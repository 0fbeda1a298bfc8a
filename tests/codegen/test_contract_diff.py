from typing import Any

import pytest

from codegen.contract import ACTIONS, FULL
from codegen.contract_diff import compare
from codegen.exceptions import UnreadableDocument
from codegen.semver import Level
from tests.support.contract_sides import between, side
from tests.support.documents import document, operation

BODY = {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}}


def test_the_highest_level_of_all_changes_counts() -> None:
    """A text beside a removal is a major release."""
    before = document({"/v1/a": {"get": operation("listA")}, "/v1/b": {"get": operation("listB")}})
    after = document({"/v1/a": {"get": operation("listA", {"summary": "Another."})}})
    assert between(before, after).level is Level.MAJOR
    assert between(before, before).level is Level.NONE


def test_both_documents_are_compared() -> None:
    """A change of what assistants import counts like one of the full document, and says which it is."""
    before, after = document(), document({"/v1/things": {"get": operation(changes={"summary": "Another."})}})
    diff = compare(side(before, before), side(after, after))
    assert [change.document for change in diff.changes] == [FULL, ACTIONS]


def test_a_part_of_another_shape_is_told_without_a_traceback() -> None:
    """A document may load and still hold what no reader of OpenAPI understands."""
    schemas: tuple[dict[str, Any], ...] = ({"properties": {}}, {"properties": ["a"]})
    sides = [
        document(components={"schemas": {"A": schema}}, paths={"/v1/things": {"post": operation(changes=BODY)}})
        for schema in schemas
    ]
    with pytest.raises(UnreadableDocument, match=r"cannot be compared .* `contract check` on both"):
        between(*sides)


def test_a_break_for_assistants_alone_is_major() -> None:
    """An operation that only leaves the Actions document takes it from assistants."""
    diff = compare(side(document(), document()), side(document(), document({})))
    assert [(change.document, change.level) for change in diff.changes] == [(ACTIONS, Level.MAJOR)]
