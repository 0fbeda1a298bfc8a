from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from codegen.contract import FULL, JSON, Operation, build_contract, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.exceptions import DuplicateKey, InvalidBody, MalformedJson, MissingBody
from handlers.runtime.json_bodies import decode_json, encode_json
from handlers.runtime.validation import RequestValidator, SchemaSource
from tests.support.documents import document, operation

CONTRACT = load_contract(GENERATED, FULL)
SCHEMAS = SchemaSource(CONTRACT)
JSON_OPERATIONS = [o for o in CONTRACT if o.body and JSON in o.body.content]
CANARY = "canary-4f1d"
NUMBER = 918273645
SCHEMA = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "maxLength": 20},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "kind": {"enum": ["plain", "fancy"]},
        "tags": {
            "type": "array",
            "maxItems": 2,
            "uniqueItems": True,
            "items": {"type": "string", "pattern": "^[a-z]+$"},
        },
        "metadata": {
            "type": "object",
            "maxProperties": 2,
            "additionalProperties": {"type": "string"},
            "propertyNames": {"maxLength": 20},
        },
        "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object", "required": ["role"]}}]},
        "closed": {"type": "object", "additionalProperties": False, "properties": {"a": {}}},
    },
}


def validator(*, required: bool = True) -> RequestValidator:
    """The checks of an operation that takes `SCHEMA`."""
    body = {"required": required, "content": {JSON: {"schema": SCHEMA}}}
    source = document({"/v1/things": {"post": operation(changes={"requestBody": body})}})
    contract = build_contract("sample", source)
    return RequestValidator(next(iter(contract)), SchemaSource(contract))


def examples() -> Iterator[tuple[Operation, str, Any]]:
    """Every example of a JSON request body in the contract."""
    for found in JSON_OPERATIONS:
        assert found.body is not None
        for name, value in found.body.content[JSON].examples.items():
            yield found, name, value


def test_a_valid_body_comes_back_decoded() -> None:
    """The handler gets the JSON value that the client sent."""
    assert validator().parse_json(b' {"model": "a", "new": [1, null, 2.5, "\xc3\xbc"]}\n') == {
        "model": "a",
        "new": [1, None, 2.5, "ü"],
    }


def test_an_empty_body_is_missing_only_where_one_is_needed() -> None:
    """No bytes are no body; an optional one is then `None`."""
    with pytest.raises(MissingBody):
        validator().parse_json(b"")
    assert validator(required=False).parse_json(b"") is None


@pytest.mark.parametrize(
    "raw",
    [
        *(b" ", b"{", b"{}}", b"{'model': 'a'}", b'{"model": "a",}', b'{"model": "a"} {}', b"model=a", b"[1 2]"),
        *(b"NaN", b'{"model": Infinity}', b"-Infinity", b"01", b"+1", b".5", b"0x1", b"undefined", b"tru", b"// a\n{}"),
        *(
            b'{"model": "\xff"}',
            b'{"model": "\xc3"}',
            b'{"model": "\xed\xa0\x80"}',
            b'{"model": "\\ud800"}',
            b"\xff\xfe{\x00}\x00",
        ),
        *(
            b'\xef\xbb\xbf{"model": "a"}',
            b'{"model": "a\nb"}',
            b'{"model": "\x00"}',
            b'{"model": "\\x41"}',
            b'{model: "a"}',
        ),
    ],
)
def test_what_is_not_utf8_encoded_json_is_refused(raw: bytes) -> None:
    """Only JSON as RFC 8259 has it is read: no extensions, no other encoding, no half surrogates."""
    with pytest.raises(MalformedJson):
        validator().parse_json(raw)


@pytest.mark.parametrize("bracket, end", [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_may_be_nested_200_levels_deep(bracket: bytes, end: bytes) -> None:
    """Nesting is accepted up to the limit that the error message names, and not one level deeper."""
    head, tail = b'{"model": "a", "deep": ', b"}"  # the body itself is the first level
    checks = validator()
    checks.parse_json(head + bracket * 199 + b"1" + end * 199 + tail)
    for levels in (200, 201, 10_000, 200_000):
        with pytest.raises(MalformedJson):
            checks.parse_json(head + bracket * levels + b"1" + end * levels + tail)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": "a", "model": "a"}',
        b'{"model": "a", "mod\\u0065l": "b"}',
        b'{"model": "a", "x": {"y": [{"z": 1, "z": 2}]}}',
        b'{"model": "a", "": 1, "": 2}',
    ],
)
def test_a_name_that_stands_twice_is_refused(raw: bytes) -> None:
    """Readers disagree about which of two equal names counts, so no body with one is forwarded, at any depth."""
    with pytest.raises(DuplicateKey):
        validator().parse_json(raw)


@pytest.mark.parametrize(
    "body, param, text",
    [
        ({}, None, "The body must hold"),
        ([], None, "The body"),
        ({"model": 1}, "model", "`model`"),
        ({"model": CANARY * 9}, "model", "`model`"),
        ({"model": "a", "count": NUMBER}, "count", "`count`"),
        ({"model": "a", "kind": CANARY}, "kind", "`kind`"),
        ({"model": "a", "tags": ["ok", CANARY]}, "tags.1", "`tags.1`"),
        ({"model": "a", "tags": ["a", "b", "c"]}, "tags", "`tags`"),
        ({"model": "a", "tags": ["a", "a"]}, "tags", "`tags`"),
        ({"model": "a", "metadata": {CANARY: NUMBER}}, "metadata", "`metadata`"),
        ({"model": "a", "metadata": {CANARY * 9: "x"}}, "metadata", "`metadata`"),
        ({"model": "a", "metadata": {"a": "", "b": "", CANARY: ""}}, "metadata", "`metadata`"),
        ({"model": "a", "either": NUMBER}, "either", "`either`"),
        ({"model": "a", "either": [{CANARY: CANARY}]}, "either", "`either`"),
        ({"model": "a", "closed": {CANARY: NUMBER}}, "closed", "only hold fields that the contract names"),
    ],
)
def test_a_violation_names_the_place_and_repeats_nothing(body: object, param: str | None, text: str) -> None:
    """The message says which field of the contract is at fault and what is allowed, and nothing of the request."""
    with pytest.raises(InvalidBody) as caught:
        validator().parse_json(orjson.dumps(body))
    message = caught.value.message
    assert caught.value.param == param
    assert text in message
    assert message[0].isupper() or message[0] == "`"
    assert message.endswith(".")
    assert CANARY not in message
    assert str(NUMBER) not in message


def test_every_example_of_the_contract_is_accepted() -> None:
    """What the documents show as an example can be sent as it stands."""
    for found, name, value in examples():
        assert RequestValidator(found, SCHEMAS).parse_json(orjson.dumps(value)) == value, (found.id, name)


def with_unknown_fields(value: Any) -> Any:
    """The value with a field that nobody has heard of on its top level."""
    return {**value, "brand_new_field": {"nested": [1, None, "x"]}} if isinstance(value, dict) else value


def test_unknown_fields_pass_on_mirrored_operations() -> None:
    """The upstream moves weekly: a new top-level field never makes the relay refuse a body."""
    for found, name, value in examples():
        if found.mirrored:
            RequestValidator(found, SCHEMAS).parse_json(orjson.dumps(with_unknown_fields(value)))
            assert name


def test_a_body_inside_another_one_is_named_with_its_place() -> None:
    """`param` and message lead from the outer body to the fault."""
    for body, param in (({"model": 5}, "outer.model"), ({}, "outer"), ({"model": "a", "tags": ["1"]}, "outer.tags.0")):
        with pytest.raises(InvalidBody) as caught:
            validator().check_body(body, place="outer")
        assert caught.value.param == param
        assert caught.value.message.startswith(f"`{param}` ")


def test_a_body_where_none_is_taken_does_not_fit() -> None:
    """Who hands a body to such an operation is told so."""
    checks = RequestValidator(CONTRACT.operations["listModels"], SCHEMAS)
    with pytest.raises(InvalidBody) as caught:
        checks.check_body({}, place="outer")
    assert caught.value.param == "outer"
    checks.check_no_body()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": [1, -2, 2.5, 1e-7, 0.1, 12345678901234567890123, true, null, {"": {}}]}',
        b'["\xc3\xbc\\u0000\\ud83c\\udf88"]',
        b"[" * 200 + b"]" * 200,
    ],
)
def test_what_was_read_is_written_with_the_same_values(raw: bytes) -> None:
    """Nothing is rounded or lost between reading a body and sending it on."""
    value = decode_json(raw)
    assert decode_json(encode_json(value)) == value


@pytest.mark.parametrize("raw", [b"1e400", b"[-1e400]", b'{"a": 1' + b"0" * 5_000 + b"}"])
def test_a_number_beyond_this_machine_is_refused_in_one_place_or_the_other(raw: bytes) -> None:
    """It is never written as something that is not JSON."""
    with pytest.raises((MalformedJson, InvalidBody)):
        encode_json(decode_json(raw))
