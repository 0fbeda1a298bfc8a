"""The generator behind the false-refusal check reaches what it should, and only valid requests count."""

import json
from pathlib import Path
from typing import Any

import pytest

from codegen.contract import build_contract
from tests.support.schema_values import SchemaValues, Unsatisfiable
from tests.support.valid_requests import ValidRequest, ValidRequests, read_sample, read_source, source_operations
from tests.support.valid_requests import write_sample as write

DRAWS = 60
SCHEMAS: dict[str, Any] = {
    "Tree": {
        "type": "object",
        "required": ["branches"],
        "properties": {"branches": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    },
    "Endless": {"type": "object", "required": ["on"], "properties": {"on": {"$ref": "#/components/schemas/Endless"}}},
    "Named": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 3}}},
    "Sized": {"allOf": [{"$ref": "#/components/schemas/Named"}, {"properties": {"size": {"type": "integer"}}}]},
}


def _drawn(schema: dict[str, Any]) -> list[Any]:
    values = SchemaValues({"components": {"schemas": SCHEMAS}}, seed=0)
    return [values.draw(schema) for _ in range(DRAWS)]


def test_every_branch_of_a_union_comes_up() -> None:
    """All types, all values of an enum and null are drawn."""
    union = {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "boolean"}, {"type": ["integer", "null"]}]}
    assert {"a", "b", True, False, None} <= set(_drawn(union))


def test_bounds_are_drawn_and_kept() -> None:
    """The edges of a range and of a length come up, nothing beyond them does."""
    assert {2, 9} <= set(_drawn({"type": "integer", "minimum": 2, "maximum": 9})) <= set(range(2, 10))
    assert {1, 3} <= {len(text) for text in _drawn({"type": "string", "minLength": 1, "maxLength": 3})} <= {1, 2, 3}
    assert {len(items) for items in _drawn({"type": "array", "maxItems": 2, "items": {"type": "null"}})} == {0, 1, 2}


def test_parts_of_a_schema_are_joined() -> None:
    """`allOf` and references become one object; optional fields come and go, unknown ones turn up."""
    drawn = _drawn({"$ref": "#/components/schemas/Sized"})
    assert all("name" in value for value in drawn)
    assert {"size" in value for value in drawn} == {True, False}
    assert any(set(value) - {"name", "size"} for value in drawn)


def test_recursion_ends() -> None:
    """A schema that refers to itself is drawn to a limited depth; one that never ends cannot be drawn."""
    assert any(value["branches"] for value in _drawn({"$ref": "#/components/schemas/Tree"}))
    with pytest.raises(Unsatisfiable):
        _drawn({"anyOf": [{"$ref": "#/components/schemas/Endless"}]})


def test_only_valid_values_count(tmp_path: Path) -> None:
    """What the document's schema does not allow is never sent, and what it allows in older words is."""
    picky = {"type": "string", "nullable": True, "not": {"enum": ["a"]}, "maxLength": 1}
    source = {"paths": {"/things": {"post": {"requestBody": {"content": {"application/json": {"schema": picky}}}}}}}
    path = tmp_path / "source.json"
    path.write_text(json.dumps(source))
    operation = {
        "operationId": "createThing",
        "x-policy-bucket": "PROXY_HARNESS",
        "tags": ["Things"],
        "responses": {},
        "security": [],
    }
    contract = build_contract("test", {"paths": {"/v1/things": {"post": operation}}, "tags": [{"name": "Things"}]})
    document = read_source(path)
    (found,) = source_operations(document, contract)
    requests = ValidRequests(document)
    bodies = {requests.draw(found).body for _ in range(DRAWS)}
    assert {'""', "null", None} <= bodies
    assert '"a"' not in bodies


def test_a_sample_survives_its_file(tmp_path: Path) -> None:
    """What is written is read again, whatever characters it holds."""
    requests = [
        ValidRequest("GET", "/v1/files", "limit=2", None),
        ValidRequest("POST", "/v1/responses", "", '{"input":"\u2028ü\\n"}'),
        ValidRequest("POST", "/v1/responses", "", "null"),
    ]
    write(tmp_path / "sample.jsonl", requests)
    assert read_sample(tmp_path / "sample.jsonl") == requests
