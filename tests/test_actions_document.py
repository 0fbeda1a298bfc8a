"""
Holds `spec/openapi.actions.yaml` against the importer's rules (chatgpt-actions.md, section 7) and the full document.

Not for: what the relay does with a request, nor proof of a live import. Reads both documents, opens no sockets.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import find, given, settings
from hypothesis.errors import NoSuchExample

from codegen.contract import ACTIONS, JSON, METHODS, Bucket, Contract, Media, Operation, read_contract
from codegen.exceptions import UnreadableDocument
from codegen.reader import resolve
from handlers.runtime.validation import SchemaSource

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "spec" / "openapi.actions.yaml"
ACTIONS_CONTRACT = read_contract(ROOT, ACTIONS)
FULL_CONTRACT = read_contract(ROOT)
DOCUMENT = ACTIONS_CONTRACT.document
ACTIONS_SCHEMAS = SchemaSource(ACTIONS_CONTRACT)
FULL_SCHEMAS = SchemaSource(FULL_CONTRACT)
JSON_BODY_IDS = [operation.id for operation in ACTIONS_CONTRACT if operation.body]

MAX_OPERATIONS = 30
MAX_DOCUMENT_BYTES = 800_000  # the editor stops at 1 MB of pretty-printed text
MAX_TEXT_CHARS = 299  # exactly 300 was seen rejected
MAX_FIELD_TEXT_CHARS = 700
OPEN_END = 3_000  # length where a schema sets no limit; longer than the full schemas of these bodies allow anywhere
SCALARS = {"string", "integer", "number", "boolean"}
KEY_ORDER = [
    "operationId",
    "x-policy-bucket",
    "x-openai-isConsequential",
    "summary",
    "description",
    "tags",
    "parameters",
    "requestBody",
    "responses",
]
SCHEMA_KEYWORDS = {  # whatever is not named here, the importer refuses or has not been seen to accept
    "type",
    "description",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
}

EXPERIMENT = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def nodes(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every operation of a document with its place, such as `GET /v1/files`."""
    for path, item in document["paths"].items():
        for method, node in item.items():
            yield f"{method.upper()} {path}", node


def header_findings(document: Mapping[str, Any]) -> list[str]:
    """What the importer would refuse about version, server and components."""
    findings = []
    if document["openapi"] != "3.1.0":
        findings.append("`openapi` must be 3.1.0")
    urls = [server["url"] for server in document.get("servers", ())]
    if len(urls) != 1:
        findings.append("`servers` must hold one entry")
    findings += [
        f"`{url}` must be a lower-case https host without port and trailing slash"
        for url in urls
        if not re.fullmatch(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9_-]+)*", url)
    ]
    if not isinstance(document.get("components", {}).get("schemas"), dict):
        findings.append("`components.schemas` must be a mapping")
    return findings


def operation_findings(document: Mapping[str, Any]) -> list[str]:
    """What the importer would refuse about names, texts and the consequential flag of operations."""
    findings = []
    seen: set[str] = set()
    for where, node in nodes(document):
        name = node.get("operationId", "")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
            findings.append(f"{where}: `operationId` must be letters, digits and underscores")
        if name in seen:
            findings.append(f"{where}: `operationId` must be unique")
        seen.add(name)
        for key in ("summary", "description"):
            if not 0 < len(node.get(key, "")) <= MAX_TEXT_CHARS:
                findings.append(f"{where}: `{key}` must have between 1 and {MAX_TEXT_CHARS} characters")
        if not isinstance(node.get("x-openai-isConsequential"), bool):
            findings.append(f"{where}: `x-openai-isConsequential` must be true or false")
    return findings


def parameter_findings(document: Mapping[str, Any]) -> list[str]:
    """What the importer would refuse about parameters; they share one namespace with the body's properties."""
    findings = []
    for path, item in document["paths"].items():
        if "parameters" in item:
            findings.append(f"{path}: parameters must stand in the operation")
    for where, node in nodes(document):
        taken = set(_request_properties(document, node))
        for parameter in node.get("parameters", ()):
            name = parameter.get("name")
            schema = parameter.get("schema", {})
            if "$ref" in parameter or "$ref" in schema:
                findings.append(f"{where}: parameters must be inline")
                continue
            if name in taken:
                findings.append(f"{where}: `{name}` must be named once among parameters and body properties")
            taken.add(name)
            if parameter.get("in") not in {"path", "query"}:
                findings.append(f"{where}: `{name}` must be in path or query")
            if schema.get("type") not in SCALARS:
                findings.append(f"{where}: `{name}` must be scalar")
            if not 0 < len(parameter.get("description", "")) <= MAX_FIELD_TEXT_CHARS:
                findings.append(
                    f"{where}: `{name}` must have a description of at most {MAX_FIELD_TEXT_CHARS} characters"
                )
    return findings


def body_findings(document: Mapping[str, Any]) -> list[str]:
    """What the importer would refuse about request bodies, responses and their media types."""
    findings = []
    for where, node in nodes(document):
        body = node.get("requestBody")
        replies = node["responses"].values()
        for content in [part.get("content", {}) for part in ([body] if body else []) + list(replies)]:
            if list(content) != [JSON]:
                findings.append(f"{where}: bodies must be inline and {JSON} only")
        if body and not _request_properties(document, node):
            findings.append(f"{where}: the request body must be an object with properties")
    return findings


def schema_findings(document: Mapping[str, Any]) -> list[str]:
    """What the importer would refuse about the schemas of parameters, bodies, responses and components."""
    findings = []
    for name, schema in document["components"]["schemas"].items():
        findings += _schema_findings(document, schema, f"components/{name}", ())
    for where, node in nodes(document):
        for parameter in node.get("parameters", ()):
            findings += _schema_findings(document, parameter["schema"], f"{where} {parameter['name']}", ())
        for part in [node.get("requestBody", {}), *node["responses"].values()]:
            for media in part.get("content", {}).values():
                findings += _schema_findings(document, media["schema"], where, ())
    return findings


def _schema_findings(
    document: Mapping[str, Any], schema: Mapping[str, Any], where: str, trail: tuple[str, ...]
) -> list[str]:
    if "$ref" in schema:
        target = schema["$ref"]
        if len(schema) > 1:
            return [f"{where}: `$ref` must stand alone"]
        if target in trail:
            return [f"{where}: `{target}` must not lead back to itself"]
        if not target.startswith("#/components/schemas/"):
            return [f"{where}: `{target}` must lead to components/schemas"]
        try:
            found = resolve(dict(document), schema)
        except UnreadableDocument:
            # raised for a chain of bare references that closes on itself, and for a missing component
            return [f"{where}: `{target}` must lead to a schema"]
        return _schema_findings(document, found, where, (*trail, target))
    findings = [f"{where}: `{key}` must not be used" for key in schema if key not in SCHEMA_KEYWORDS]
    if schema.get("type") not in [*SCALARS, "object", "array"]:
        findings.append(f"{where}: `type` must be one name")
    if schema.get("additionalProperties", False) is not False:
        findings.append(f"{where}: `additionalProperties` must be false or absent")
    if len(schema.get("description", "")) > MAX_FIELD_TEXT_CHARS:
        findings.append(f"{where}: `description` must have at most {MAX_FIELD_TEXT_CHARS} characters")
    properties = schema.get("properties", {})
    if schema.get("type") == "object" and not properties:
        findings.append(f"{where}: an object must have properties")
    if schema.get("type") == "array" and "items" not in schema:
        findings.append(f"{where}: an array must have items")
    findings += [
        f"{where}: `{name}` is required but not declared" for name in set(schema.get("required", ())) - {*properties}
    ]
    for name, inner in properties.items():
        findings += _schema_findings(document, inner, f"{where}.{name}", trail)
    if "items" in schema:
        findings += _schema_findings(document, schema["items"], f"{where}[]", trail)
    return findings


def empty_places(node: object, where: str = "") -> list[str]:
    """Places that hold null, an empty list or an empty mapping."""
    if node is None or node in ([], {}):
        return [where]
    pairs: list[tuple[object, object]] = []
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list):
        pairs = list(enumerate(node))
    return [place for key, value in pairs for place in empty_places(value, f"{where}/{key}")]


def security_findings(document: Mapping[str, Any]) -> list[str]:
    """What the importer would refuse about security and methods."""
    findings = []
    if len(document["components"].get("securitySchemes", {})) > 1:
        findings.append("at most one security scheme")
    for path, item in document["paths"].items():
        findings += [f"{path}: `{key}` must be one of {', '.join(METHODS)}" for key in item if key not in METHODS]
    return findings


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
    """The schema of the JSON body that an operation takes."""
    body = contract.operations[operation_id].body
    assert body is not None
    return schema_at(contract, body.content)


def without_nulls(node: object) -> object:
    """The same data without fields that are null; the flat schemas have no word for null."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return [without_nulls(item) for item in node] if isinstance(node, list) else node


def _request_properties(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    media = node.get("requestBody", {}).get("content", {}).get(JSON)
    if media is None:
        return {}
    schema = resolve(dict(document), media["schema"])
    properties: Mapping[str, Any] = schema.get("properties", {})
    return properties if schema.get("type") == "object" else {}


def _broken(*steps: str, value: object) -> dict[str, Any]:
    """A copy of the document with one place replaced."""
    document = deepcopy(DOCUMENT)
    place = document
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    return document


# -- section 7, checks 1 to 7


def test_header_is_what_the_importer_accepts() -> None:
    """The document is OpenAPI 3.1.0, names one plain https server and has component schemas."""
    assert header_findings(DOCUMENT) == []


@pytest.mark.parametrize(
    "url", ["http://relay.example.com", "https://Relay.example.com", "https://relay.example.com:8443", "https://a.b/"]
)
def test_a_server_the_importer_drops_is_found(url: str) -> None:
    """A server with another scheme, capitals, a port or a trailing slash is reported."""
    assert header_findings(_broken("servers", value=[{"url": url}])) != []


def test_document_is_small_enough() -> None:
    """The document has at most 30 operations and stays under 800,000 bytes as YAML and as indented JSON."""
    assert len(ACTIONS_CONTRACT.operations) <= MAX_OPERATIONS
    assert SOURCE.stat().st_size < MAX_DOCUMENT_BYTES
    assert len(orjson.dumps(DOCUMENT, option=orjson.OPT_INDENT_2)) < MAX_DOCUMENT_BYTES


def test_operations_are_named_and_described_within_limits() -> None:
    """Every operation has a safe unique name, texts under 300 characters and an explicit consequential flag."""
    assert operation_findings(DOCUMENT) == []


@pytest.mark.parametrize(
    "key,value",
    [
        ("operationId", "list-files"),
        ("operationId", "createResponse"),
        ("summary", "x" * 300),
        ("description", "x" * 300),
        ("description", ""),
        ("x-openai-isConsequential", None),
    ],
)
def test_an_operation_outside_the_limits_is_found(key: str, value: object) -> None:
    """A bad or repeated name, a text that is too long or missing, and a missing flag are reported."""
    assert len(operation_findings(_broken("paths", "/v1/files", "get", key, value=value))) == 1


def test_only_deleting_asks_for_confirmation_every_time() -> None:
    """Deletes are consequential; reading, searching, embedding, moderating and asking are not."""
    for where, node in nodes(DOCUMENT):
        assert node["x-openai-isConsequential"] is where.startswith("DELETE "), where


def test_parameters_are_inline_scalar_and_described() -> None:
    """Parameters stand in their operation, in path or query, scalar, described, with names of their own."""
    assert parameter_findings(DOCUMENT) == []


@pytest.mark.parametrize(
    "parameter",
    [
        {"$ref": "#/components/parameters/Limit"},
        {"name": "q", "in": "header", "description": "A header.", "schema": {"type": "string"}},
        {
            "name": "q",
            "in": "query",
            "description": "A list.",
            "schema": {"type": "array", "items": {"type": "string"}},
        },
        {"name": "q", "in": "query", "schema": {"type": "string"}},
        {"name": "q", "in": "query", "description": "x" * 701, "schema": {"type": "string"}},
        {"name": "query", "in": "query", "description": "Also in the body.", "schema": {"type": "string"}},
    ],
)
def test_a_parameter_the_importer_drops_is_found(parameter: dict[str, Any]) -> None:
    """A referenced, header, array, undescribed, wordy or twice-named parameter is reported."""
    path = "/v1/vector_stores/{vector_store_id}/search"
    assert len(parameter_findings(_broken("paths", path, "post", "parameters", value=[parameter]))) == 1


def test_path_parameters_are_those_of_the_path() -> None:
    """Every name in a path template is a required path parameter, and no other is."""
    for operation in ACTIONS_CONTRACT:
        declared = operation.parameters_in("path")
        assert sorted(p.name for p in declared) == sorted(re.findall(r"\{(\w+)\}", operation.path))
        assert all(p.required for p in declared)


def test_bodies_are_json_objects() -> None:
    """Requests and replies are JSON only, written inline, and every request body is an object with properties."""
    assert body_findings(DOCUMENT) == []


@pytest.mark.parametrize("media_type", ["multipart/form-data", "text/event-stream", "application/octet-stream"])
def test_another_media_type_is_found(media_type: str) -> None:
    """A multipart, streaming or binary body is reported."""
    content = {media_type: {"schema": {"type": "string"}}}
    assert body_findings(_broken("paths", "/v1/responses", "post", "responses", "200", "content", value=content)) != []


def test_a_body_that_is_no_object_is_found() -> None:
    """A request body whose root is an array is reported."""
    content = {JSON: {"schema": {"type": "array", "items": {"type": "string"}}}}
    assert body_findings(_broken("paths", "/v1/responses", "post", "requestBody", "content", value=content)) != []


def test_schemas_are_flat() -> None:
    """Every schema has one type; objects have properties, arrays typed items; nothing is combined or dangling."""
    assert schema_findings(DOCUMENT) == []


@pytest.mark.parametrize(
    "schema,word",
    [
        ({"anyOf": [{"type": "string"}]}, "anyOf"),
        ({"type": ["string", "null"]}, "one name"),
        ({"type": "string", "nullable": True}, "nullable"),
        ({"type": "object", "additionalProperties": True, "properties": {"a": {"type": "string"}}}, "false or absent"),
        ({"type": "object"}, "must have properties"),
        ({"type": "array"}, "must have items"),
        ({"type": "array", "items": {}}, "one name"),
        ({"$ref": "#/components/schemas/Model", "description": "A sibling."}, "stand alone"),
        ({"$ref": "#/components/schemas/Nowhere"}, "lead to a schema"),
        ({"$ref": "#/components/responses/File"}, "components/schemas"),
        ({"$ref": "#/components/schemas/File"}, "lead"),
        ({"type": "object", "properties": {"a": {"$ref": "#/components/schemas/File"}}}, "back to itself"),
        ({"type": "string", "description": "x" * 701}, "at most 700"),
        ({"type": "object", "required": ["b"], "properties": {"a": {"type": "string"}}}, "not declared"),
    ],
)
def test_a_schema_the_importer_refuses_is_found(schema: dict[str, Any], word: str) -> None:
    """Each construct that has broken an import is reported by name, wherever the schema is used."""
    findings = schema_findings(_broken("components", "schemas", "File", value=schema))
    assert any(word in finding for finding in findings)


def test_nothing_is_null_or_empty() -> None:
    """No key is left without a value and no list or mapping is empty."""
    assert empty_places(DOCUMENT) == []
    assert empty_places({"a": [{"b": None}], "c": {}, "d": []}) == ["/a/0/b", "/c", "/d"]


def test_one_bearer_scheme_opens_every_operation() -> None:
    """There is one security scheme, and the scope `actions` is what every operation needs."""
    assert security_findings(DOCUMENT) == []
    assert list(DOCUMENT["components"]["securitySchemes"]) == ["relayBearer"]
    assert DOCUMENT["security"] == [{"relayBearer": ["actions"]}]
    assert all("security" not in node for _, node in nodes(DOCUMENT))


def test_a_second_scheme_and_an_odd_method_are_found() -> None:
    """Two security schemes and a method that the importer skips are reported."""
    schemes = {"a": {"type": "http", "scheme": "bearer"}, "b": {"type": "http", "scheme": "basic"}}
    assert len(security_findings(_broken("components", "securitySchemes", value=schemes))) == 1
    assert len(security_findings(_broken("paths", "/v1/files", "head", value={}))) == 1


# -- the full document


def test_operations_are_the_directly_callable_ones_of_the_full_document() -> None:
    """Method, path and operationId are those of the ACTIONS_DIRECT operations, in the same order, none more or less."""
    direct = [operation for operation in FULL_CONTRACT if operation.bucket is Bucket.ACTIONS_DIRECT]
    assert [(o.method, o.path, o.id) for o in ACTIONS_CONTRACT] == [(o.method, o.path, o.id) for o in direct]
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
    known = {(p.location, p.name): p for p in FULL_CONTRACT.operations[operation.id].parameters}
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
    full = FULL_CONTRACT.operations[operation.id]
    assert operation.responses.keys() == {"200", "default"}
    for code, content in operation.responses.items():
        validator = ACTIONS_SCHEMAS.of(schema_at(ACTIONS_CONTRACT, content))
        examples = full.responses[code][JSON].examples
        assert examples
        for example in examples.values():
            validator.validate(without_nulls(example))
