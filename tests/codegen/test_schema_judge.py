from typing import Any

import pytest

from codegen.schema_judge import Verdict, judge

TREE: dict[str, Any] = {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/Tree"}}}


@pytest.mark.parametrize(
    "old, new, verdict",
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": ["string", "null"]}, Verdict.SAME),
        ({"type": "string", "pattern": "^a"}, {"type": "string"}, Verdict.WIDER),
        ({"type": "number"}, {"type": "integer"}, Verdict.NARROWER),
        ({"type": "string"}, {"type": "integer"}, Verdict.UNDECIDED),
        ({"type": "string", "pattern": "("}, {"type": "string"}, Verdict.UNDECIDED),
        ({"type": "no type"}, {}, Verdict.UNDECIDED),
        ({"$ref": "#/nowhere"}, {}, Verdict.UNDECIDED),
    ],
)
def test_only_what_is_proven_is_decided(old: dict[str, Any], new: dict[str, Any], verdict: Verdict) -> None:
    """Wider, narrower and the same are proofs; broken schemas and all else stay undecided."""
    assert judge((old, {}), (new, {})) is verdict


def test_references_lead_into_the_document_of_their_own_side() -> None:
    """The same reference means another schema on the other side."""
    schema = {"items": {"$ref": "#/components/schemas/Name"}}
    sides = [{"components": {"schemas": {"Name": {"type": "string", **bound}}}} for bound in ({}, {"maxLength": 5})]
    assert judge((schema, sides[0]), (schema, sides[1])) is Verdict.NARROWER
    assert judge((schema, sides[1]), (schema, sides[0])) is Verdict.WIDER
    assert judge((schema, sides[0]), (schema, sides[0])) is Verdict.SAME


def test_a_schema_that_leads_to_itself_ends() -> None:
    """A recursive schema gets a verdict, and never a false proof that it takes as much as before."""
    narrower = {**TREE, "required": ["child"]}
    sides = [{"components": {"schemas": {"Tree": tree}}} for tree in (TREE, narrower)]
    schema = {"$ref": "#/components/schemas/Tree"}
    assert judge((schema, sides[0]), (schema, sides[1])) in {Verdict.NARROWER, Verdict.UNDECIDED}
