"""
Holds `spec/openapi.actions.yaml` against the full document and against this project's own choices for assistants.

Not for: what the importer takes (`contract lint`, `codegen/test_lint.py`), nor what the relay does with a request.
Reads both documents, opens no sockets.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import find, given, settings
from hypothesis.errors import NoSuchExample

from codegen.contract import ACTIONS, JSON, Bucket, Contract, Media, Operation, Scope, read_contract
from codegen.document_rules import KEY_ORDER
from codegen.findings import to_text
from codegen.lint import lint
from codegen.naming import importer_name
from codegen.reader import resolve
from handlers.runtime.validation import SchemaSource

ROOT = Path(__file__).parent.parent
ACTIONS_CONTRACT = read_contract(ROOT, ACTIONS)
FULL_CONTRACT = read_contract(ROOT)
DOCUMENT = ACTIONS_CONTRACT.document
ACTIONS_SCHEMAS = SchemaSource(ACTIONS_CONTRACT)
FULL_SCHEMAS = SchemaSource(FULL_CONTRACT)
JSON_BODY_IDS = [operation.id for operation in ACTIONS_CONTRACT if operation.body]

OPEN_END = 3_000  # length where a schema sets no limit; longer than the full schemas of these bodies allow anywhere
# What the user is asked about before every call, beside deletes: it costs much, hands out a credential, or may be any
# of the operations behind the proxy.
CONSEQUENTIAL = {"forwardRequest", "generateVideo", "remixVideo", "create_realtime_client_secret"}
# By the name that the Actions document gives it; importers take no hyphen.
FULL_OPERATIONS = {importer_name(operation.id): operation for operation in FULL_CONTRACT}

EXPERIMENT = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def nodes(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every operation of a document with its place, such as `GET /v1/files`."""
    for path, item in document["paths"].items():
        for method, node in item.items():
            yield f"{method.upper()} {path}", node


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a flat schema: optional fields come and go; numbers, texts and lists are often at a limit."""
    schema = resolve(DOCUMENT, schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object":
            fields = {name: values(inner) for name, inner in schema["properties"].items()}
            required = {name: fields.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=fields)
        case "array":
            items = values(schema["items"])
            low, high = schema.get("minItems", 0), schema.get("maxItems", OPEN_END)
            few = st.lists(items, min_size=low, max_size=min(low + 3, high))
            return st.one_of(few, items.map(lambda item: [item] * high))
        case "string":
            low, high = schema.get("minLength", 0), schema.get("maxLength", OPEN_END)
            return st.one_of(
                st.text(min_size=low, max_size=min(low + 40, high)), st.sampled_from(["x" * low, "x" * high])
            )
        case "boolean":
            return st.booleans()
    low, high = schema.get("minimum"), schema.get("maximum")
    numbers: st.SearchStrategy[int | float] = st.integers(low, high)
    if schema["type"] == "number":
        numbers = st.floats(low, high, allow_nan=False, allow_infinity=False)
    limits = [limit for limit in (low, high) if limit is not None]
    return st.one_of(numbers, st.sampled_from(limits)) if limits else numbers


def schema_at(contract: Contract, content: Mapping[str, Media]) -> Mapping[str, Any]:
    """The JSON schema of a body; looked up by hand, for a pointer through `/v1/files/{file_id}` is no valid URI."""
    pointer = content[JSON].pointer
    assert pointer is not None
    return resolve(contract.document, {"$ref": pointer})


def body_schema(contract: Contract, operation_id: str) -> Mapping[str, Any]:
    """The schema of the JSON body that an operation takes, by its name in the Actions document."""
    operation = FULL_OPERATIONS[operation_id] if contract is FULL_CONTRACT else contract.operations[operation_id]
    assert operation.body is not None
    return schema_at(contract, operation.body.content)


def without_nulls(node: object) -> object:
    """The same data without fields that are null; the flat schemas have no word for null."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return [without_nulls(item) for item in node] if isinstance(node, list) else node


# -- what the importers are told


def test_what_the_importer_refuses_is_absent() -> None:
    """The document as it stands gives `contract lint` nothing to say."""
    assert to_text(lint(ROOT)) == ""


def test_what_asks_for_confirmation_every_time() -> None:
    """Deletes are consequential, and so are the few that are listed with their reason; all others are not."""
    for where, node in nodes(DOCUMENT):
        wanted = where.startswith("DELETE ") or node["operationId"] in CONSEQUENTIAL
        assert node["x-openai-isConsequential"] is wanted, where
    assert set(ACTIONS_CONTRACT.operations) >= CONSEQUENTIAL


def test_path_parameters_are_those_of_the_path() -> None:
    """Every name in a path template is a required path parameter, and no other is."""
    for operation in ACTIONS_CONTRACT:
        declared = operation.parameters_in("path")
        assert sorted(p.name for p in declared) == sorted(re.findall(r"\{(\w+)\}", operation.path))
        assert all(p.required for p in declared)


def test_one_bearer_scheme_opens_every_operation() -> None:
    """There is one security scheme; every operation needs the scope `actions`, the proxy its own."""
    assert list(DOCUMENT["components"]["securitySchemes"]) == ["relayBearer"]
    assert DOCUMENT["security"] == [{"relayBearer": ["actions"]}]
    own = {node["operationId"]: node["security"] for _, node in nodes(DOCUMENT) if "security" in node}
    assert own == {"forwardRequest": [{"relayBearer": [Scope.PROXY]}]}


# -- the full document


def test_operations_are_the_directly_callable_ones_of_the_full_document() -> None:
    """Method, path and name are those of the ACTIONS_DIRECT operations, in the same order, none more or less."""
    direct = [operation for operation in FULL_CONTRACT if operation.bucket is Bucket.ACTIONS_DIRECT]
    assert [(o.method, o.path, o.id) for o in ACTIONS_CONTRACT] == [
        (o.method, o.path, importer_name(o.id)) for o in direct
    ]
    assert all(operation.bucket is Bucket.ACTIONS_DIRECT for operation in ACTIONS_CONTRACT)


def test_operations_read_in_one_order() -> None:
    """Keys of an operation stand in the agreed order, identity and decision first, and it has one declared tag."""
    for where, node in nodes(DOCUMENT):
        assert list(node) == [key for key in KEY_ORDER if key in node], where
        assert len(node["tags"]) == 1, where
        assert node["tags"][0] in ACTIONS_CONTRACT.tags, where


def test_streaming_is_not_offered() -> None:
    """An assistant cannot ask for a stream, neither by a field nor by a parameter."""
    refused = ACTIONS_SCHEMAS.of(body_schema(ACTIONS_CONTRACT, "createResponse"))
    assert refused.is_valid({"model": "gpt-example", "input": "Hello."})
    assert not refused.is_valid({"model": "gpt-example", "input": "Hello.", "stream": True})
    assert all(parameter.name != "stream" for operation in ACTIONS_CONTRACT for parameter in operation.parameters)


@pytest.mark.parametrize("operation_id", JSON_BODY_IDS)
def test_request_objects_are_closed(operation_id: str) -> None:
    """Request objects refuse undeclared fields, without which the invariant would only hold for declared ones."""

    def check(schema: Mapping[str, Any]) -> None:
        schema = resolve(DOCUMENT, schema)
        if schema["type"] == "object":
            assert schema.get("additionalProperties") is False
        for inner in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
            check(inner)

    check(body_schema(ACTIONS_CONTRACT, operation_id))


@pytest.mark.parametrize("operation_id", JSON_BODY_IDS)
def test_a_body_valid_for_assistants_is_valid_for_everybody(operation_id: str) -> None:
    """Whatever body the Actions document allows, the full document allows too."""
    narrow = ACTIONS_SCHEMAS.of(body_schema(ACTIONS_CONTRACT, operation_id))
    wide = FULL_SCHEMAS.of(body_schema(FULL_CONTRACT, operation_id))

    @EXPERIMENT
    @given(values(body_schema(ACTIONS_CONTRACT, operation_id)))
    def holds(body: object) -> None:
        assert narrow.is_valid(body)
        assert wide.is_valid(body)

    holds()


@pytest.mark.parametrize(
    "operation_id,name,schema",
    [
        ("createResponse", "temperature", {"type": "number", "minimum": 0, "maximum": 3}),
        ("createResponse", "max_output_tokens", {"type": "integer", "minimum": 1}),
        ("createResponse", "previous_response_id", {"type": "integer"}),
        ("searchVectorStore", "rewrite_query", {"type": "string", "enum": ["yes"]}),
    ],
)
def test_a_field_looser_than_the_full_one_is_found(operation_id: str, name: str, schema: dict[str, Any]) -> None:
    """A wider bound or another type in the Actions document yields a body that the full document refuses."""
    wide = FULL_SCHEMAS.of(body_schema(FULL_CONTRACT, operation_id))
    node = body_schema(ACTIONS_CONTRACT, operation_id)
    loose = {**node, "properties": {**node["properties"], name: schema}}
    assert not wide.is_valid(find(values(loose), lambda body: not wide.is_valid(body), settings=EXPERIMENT))
    with pytest.raises(NoSuchExample):
        find(values(node), lambda body: not wide.is_valid(body), settings=EXPERIMENT)


@pytest.mark.parametrize("operation", list(ACTIONS_CONTRACT), ids=lambda operation: operation.id)
def test_a_parameter_valid_for_assistants_is_valid_for_everybody(operation: Operation) -> None:
    """Parameters are some of the full document's, all required ones among them, and their values fit there."""
    known = {(p.location, p.name): p for p in FULL_OPERATIONS[operation.id].parameters}
    offered = {(p.location, p.name): p for p in operation.parameters}
    assert offered.keys() <= known.keys()
    assert all(offered[key].required for key, parameter in known.items() if parameter.required)
    wide = {key: FULL_SCHEMAS.of(known[key].schema) for key in offered}

    @EXPERIMENT
    @given(st.fixed_dictionaries({key: values(parameter.schema) for key, parameter in offered.items()}))
    def holds(arguments: Mapping[tuple[str, str], object]) -> None:
        assert all(wide[key].is_valid(value) for key, value in arguments.items())

    holds()


@pytest.mark.parametrize("operation", list(ACTIONS_CONTRACT), ids=lambda operation: operation.id)
def test_replies_are_what_assistants_were_told(operation: Operation) -> None:
    """The full document's example replies, errors included, fit the flat schemas once null fields are left out."""
    full = FULL_OPERATIONS[operation.id]
    assert operation.responses.keys() == full.responses.keys()
    for code, content in operation.responses.items():
        validator = ACTIONS_SCHEMAS.of(schema_at(ACTIONS_CONTRACT, content))
        examples = full.responses[code][JSON].examples
        assert examples
        for example in examples.values():
            validator.validate(without_nulls(example))
