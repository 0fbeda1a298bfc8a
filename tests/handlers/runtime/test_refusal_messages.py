"""What a refused body is told, for every field of every operation: names of the contract, nothing of the request."""

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from codegen.contract import FULL, JSON, Operation, load_contract
from codegen.reader import resolve
from handlers.runtime.app import GENERATED
from handlers.runtime.exceptions import ContractViolation
from handlers.runtime.validation import RequestValidator, SchemaSource

MARK = "zq7mark"
NUMBER = -987654321.5
WRONG_VALUES: tuple[Any, ...] = (
    MARK,
    NUMBER,
    None,
    True,
    [],
    [MARK],
    [[MARK, NUMBER]],
    {MARK: MARK},
    {"type": MARK, MARK: [NUMBER]},
    MARK * 10_000,
    [{MARK: MARK}] * 2_100,
)
CONTRACT = load_contract(GENERATED, FULL)
SCHEMAS = SchemaSource(CONTRACT)
WITH_JSON = [operation for operation in CONTRACT if JSON in operation.request_media]


@pytest.mark.parametrize("operation", WITH_JSON, ids=[operation.id for operation in WITH_JSON])
def test_no_refusal_repeats_what_the_body_held(operation: Operation) -> None:
    """Names, values and numbers of the request stand neither in the message nor in `param`."""
    validator = RequestValidator(operation, SCHEMAS)
    refusals = []
    for body in wrong_bodies(operation):
        try:
            validator.parse_json(orjson.dumps(body))
        except ContractViolation as violation:
            refusals.append(violation)
    assert refusals, "a string in place of the whole body is never valid"
    for refusal in refusals:
        told = json.dumps([refusal.message, refusal.param])
        assert MARK not in told
        assert str(NUMBER) not in told
        assert len(refusal.message) <= 500


def wrong_bodies(operation: Operation) -> Iterator[Any]:
    """The example with every value at every level replaced, and every declared field with every wrong value."""
    assert operation.body is not None
    media = operation.body.content[JSON]
    yield from WRONG_VALUES
    for example in media.examples.values():
        yield from _replaced(example)
        declared = _declared(operation)
        for name in declared:
            for wrong in WRONG_VALUES:
                yield {**example, name: wrong}


def _declared(operation: Operation) -> list[str]:
    assert operation.body is not None
    pointer = operation.body.content[JSON].pointer
    return list(resolve(CONTRACT.document, {"$ref": pointer}).get("properties", {}))


def _replaced(value: Any) -> Iterator[Any]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        for changed in (*WRONG_VALUES, *_replaced(child)):
            copy = value.copy()
            copy[key] = changed
            yield copy
