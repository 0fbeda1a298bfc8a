from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import pytest

from codegen.contract import ACTIONS, JSON, Contract, Operation, build_contract, read_contract
from codegen.exceptions import InvalidContract
from codegen.naming import importer_name
from codegen.reader import resolve
from codegen.tools import Argument, Hints, Place, Tool, build_tools
from tests.support.documents import ROOT, document, edited, node_of, operation

FULL_CONTRACT = read_contract(ROOT)
ACTIONS_CONTRACT = read_contract(ROOT, ACTIONS)
TOOLS = build_tools(FULL_CONTRACT, ACTIONS_CONTRACT)
FULL_OPERATIONS = {importer_name(operation.id): operation for operation in FULL_CONTRACT}
DIALECT = "https://json-schema.org/draft/2020-12/schema"
META = jsonschema_rs.validator_for({"$ref": DIALECT})
BY_NAME = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)

OBJECT = {"type": "object"}
REF = "#/components/schemas/"
ID = {"name": "id", "in": "path", "required": True, "description": "Which.", "schema": {"type": "string"}}
LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer"}}


def body(schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    """A request body of JSON."""
    return {"required": required, "content": {JSON: {"schema": schema}}}


def reply(schema: Mapping[str, Any], media_type: str = JSON) -> dict[str, Any]:
    """A reply with a body."""
    return {"description": "It.", "content": {media_type: {"schema": schema}}}


def properties(*required: str, **schemas: Mapping[str, Any]) -> dict[str, Any]:
    """A closed object."""
    return {"type": "object", "required": list(required), "properties": schemas, "additionalProperties": False}


def contract(changes: Mapping[str, Any], path: str, method: str, name: str, schemas: Mapping[str, Any]) -> Contract:
    """A document of one operation."""
    node = operation(name, changes)
    return build_contract(ACTIONS, document({path: {method: node}}, components={"schemas": dict(schemas)}))


def built(
    changes: Mapping[str, Any],
    *,
    path: str = "/v1/things",
    method: str = "post",
    name: str = "shapeThing",
    schemas: Mapping[str, Any] | None = None,
) -> Tool:
    """The tool of an operation that the full document has without these changes."""
    full = contract({}, path, method, name, {})
    (tool,) = build_tools(full, contract(changes, path, method, name, schemas or {}))
    return tool


def problems(changes: Mapping[str, Any], **options: Any) -> str:
    """Why an operation cannot become a tool."""
    with pytest.raises(InvalidContract) as refused:
        built(changes, **options)
    (finding,) = refused.value.findings
    return finding


def own_body(name: str) -> Mapping[str, Any]:
    """The schema of a body in the Actions document."""
    content = node_of(ACTIONS_CONTRACT.document, name)["requestBody"]["content"]
    return resolve(ACTIONS_CONTRACT.document, content[JSON]["schema"])


def bodies(name: str) -> list[dict[str, Any]]:
    """Every example body of an operation; it is the full document's, so it may be wider than assistants may send."""
    full = FULL_OPERATIONS[name]
    return list(full.body.content[JSON].examples.values()) if full.body else []


def narrowed(name: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """An example in the words of the Actions document: fields that it has, files as links, one text for a list."""
    fields = {key: (value, own_body(name)["properties"].get(key)) for key, value in example.items()}
    return {key: narrowed_value(value, schema) for key, (value, schema) in fields.items() if schema}


def narrowed_value(value: Any, schema: Mapping[str, Any]) -> Any:
    """One field of it."""
    if validator(schema).is_valid(value):
        return value
    if schema["type"] == "array":
        return [item["download_link"] for item in value]
    return sample(schema)


def urls(name: str) -> list[dict[str, Any]]:
    """Values for the path and the query: those that must be given, and all."""
    parameters = ACTIONS_CONTRACT.operations[name].parameters
    return [{p.name: sample(p.schema) for p in parameters if p.required or optional} for optional in (False, True)]


def sample(schema: Mapping[str, Any]) -> object:
    """A value of a parameter."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] in {"integer", "number"}:
        return schema.get("minimum", 1)
    return "x" * schema.get("minLength", 1) if schema["type"] == "string" else True


def validator(schema: Mapping[str, Any] | None) -> jsonschema_rs.Draft202012Validator:
    """What a client makes of a tool's schema, which it reads without the document."""
    assert schema is not None
    return jsonschema_rs.Draft202012Validator(dict(schema))


# -- the tools of this contract


def test_tools_are_the_operations_of_the_actions_document() -> None:
    """Name for name and in its order, each with method, path and operationId of the full document."""
    assert [tool.name for tool in TOOLS] == list(ACTIONS_CONTRACT.operations)
    for tool in TOOLS:
        full: Operation = FULL_OPERATIONS[tool.name]
        assert (tool.operation_id, tool.method, tool.path) == (full.id, full.method, full.path)


def test_an_operation_added_to_the_contract_adds_its_tool() -> None:
    """Both documents are edited, no code is."""
    extra = operation(
        "create-thing", {"tags": ["Models"], "x-policy-bucket": "ACTIONS_DIRECT", "x-policy-review": None}
    )
    full = edited(FULL_CONTRACT, lambda d: d["paths"].update({"/v1/things": {"post": extra}}))
    actions = edited(
        ACTIONS_CONTRACT,
        lambda d: d["paths"].update({"/v1/things": {"post": {**extra, "operationId": "create_thing"}}}),
    )
    more = build_tools(full, actions)
    assert more[:-1] == TOOLS
    assert (more[-1].name, more[-1].operation_id, more[-1].path) == ("create_thing", "create-thing", "/v1/things")


@BY_NAME
def test_an_assistant_reads_what_the_actions_document_says(tool: Tool) -> None:
    """The description is the document's summary and description; every argument has its own."""
    node = node_of(ACTIONS_CONTRACT.document, tool.name)
    assert tool.description.split() == f"{node['summary']} {node.get('description', '')}".split()
    for parameter in node.get("parameters", ()):
        assert tool.input_schema["properties"][parameter["name"]]["description"] == parameter["description"]


@BY_NAME
def test_schemas_are_valid_and_stand_alone(tool: Tool) -> None:
    """Both schemas are JSON Schema 2020-12 objects that lead nowhere else, as a client gets no document with them."""
    for schema in (tool.input_schema, tool.output_schema):
        assert schema is not None
        META.validate(schema)
        assert schema["type"] == "object"
        validator(schema)
    assert tool.input_schema["additionalProperties"] is False


@BY_NAME
def test_arguments_are_the_names_of_path_query_and_body(tool: Tool) -> None:
    """The flat object, the list of arguments and the contract have the same names, places and required ones."""
    own = ACTIONS_CONTRACT.operations[tool.name]
    parameters = [Argument(p.name, Place(p.location), p.required) for p in own.parameters]
    assert list(tool.arguments[: len(parameters)]) == parameters
    assert all(argument.place is Place.BODY for argument in tool.arguments[len(parameters) :])
    assert list(tool.input_schema["properties"]) == [argument.name for argument in tool.arguments]
    assert tool.input_schema["required"] == [argument.name for argument in tool.arguments if argument.required]


@BY_NAME
def test_calls_of_the_contract_are_taken(tool: Tool) -> None:
    """Each example fits in its flat form; without a required name or with a foreign one it does not."""
    check = validator(tool.input_schema)
    flat = [
        url | body for url in urls(tool.name) for body in [narrowed(tool.name, e) for e in bodies(tool.name)] or [{}]
    ]
    for example in flat:
        check.validate(example)
        assert not check.is_valid({**example, "no_such_argument": "x"})
        for name in tool.input_schema["required"]:
            assert not check.is_valid({key: value for key, value in example.items() if key != name})


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if bodies(tool.name)], ids=lambda tool: tool.name)
def test_a_tool_takes_the_bodies_that_its_operation_takes(tool: Tool) -> None:
    """As they stand in the full document or narrowed: tool and Actions document say yes to the same ones."""
    url, _ = urls(tool.name)
    check, alone = validator(tool.input_schema), validator(own_body(tool.name))
    for example in bodies(tool.name):
        for form in (example, narrowed(tool.name, example)):
            assert check.is_valid(url | form) is alone.is_valid(form)
    assert any(alone.is_valid(narrowed(tool.name, example)) for example in bodies(tool.name))


@BY_NAME
def test_replies_of_the_contract_fit(tool: Tool) -> None:
    """Each successful JSON reply among the examples fits as it stands, null fields included."""
    check = validator(tool.output_schema)
    replies = FULL_OPERATIONS[tool.name].responses
    examples = [e for code, media in replies.items() if code < "3" for e in media[JSON].examples.values()]
    assert examples
    for example in examples:
        check.validate(example)


def test_what_reads_what_deletes_and_what_creates() -> None:
    """No tool but a GET is read-only; deletes and the proxy may destroy, costly creations do not."""
    assert {tool.name for tool in TOOLS if tool.hints.read_only} == {t.name for t in TOOLS if t.method == "GET"}
    assert {tool.name for tool in TOOLS if tool.hints.destructive} == {"forwardRequest", "deleteFile"}
    assert all(tool.hints.idempotent is (tool.method in {"GET", "DELETE"}) for tool in TOOLS)


# -- the rules


@pytest.mark.parametrize(
    "method, consequential, name, wraps, hints",
    [
        ("get", None, "retrieveThing", (), Hints(read_only=True, destructive=False, idempotent=True)),
        ("get", True, "retrieveThing", (), Hints(read_only=True, destructive=False, idempotent=True)),
        ("delete", None, "deleteThing", (), Hints(read_only=False, destructive=True, idempotent=True)),
        ("delete", False, "deleteThing", (), Hints(read_only=False, destructive=True, idempotent=True)),
        ("put", False, "updateThing", (), Hints(read_only=False, destructive=False, idempotent=True)),
        ("put", True, "updateThing", (), Hints(read_only=False, destructive=True, idempotent=True)),
        ("patch", True, "updateThing", (), Hints(read_only=False, destructive=True, idempotent=False)),
        ("post", False, "shapeThing", (), Hints(read_only=False, destructive=False, idempotent=False)),
        ("post", True, "shapeThing", (), Hints(read_only=False, destructive=True, idempotent=False)),
        ("post", None, "shapeThing", (), Hints(read_only=False, destructive=True, idempotent=False)),
        ("post", True, "CreateThing", (), Hints(read_only=False, destructive=False, idempotent=False)),
        ("post", None, "create-thing", (), Hints(read_only=False, destructive=False, idempotent=False)),
        ("post", True, "createdThing", (), Hints(read_only=False, destructive=True, idempotent=False)),
        ("post", True, "drawThing", ("createThing",), Hints(read_only=False, destructive=False, idempotent=False)),
        (
            "post",
            True,
            "createThing",
            ("createThing", "deleteThing"),
            Hints(read_only=False, destructive=True, idempotent=False),
        ),
    ],
)
def test_hints_follow_from_the_contract(
    method: str, consequential: bool | None, name: str, wraps: tuple[str, ...], hints: Hints
) -> None:
    """Method, consequence and the verb of what is done decide; where the contract is silent the safer one is told."""
    changes = {"x-openai-isConsequential": consequential}
    wanted = importer_name(name)
    full = contract({"x-policy-wraps": list(wraps)} if wraps else {}, "/v1/things", method, name, {})
    (tool,) = build_tools(full, contract(changes, "/v1/things", method, wanted, {}))
    assert tool.hints == hints


@pytest.mark.parametrize("required", [True, False])
def test_a_key_makes_calls_idempotent_only_where_it_must_be_given(required: bool) -> None:
    """A call without the key is done twice, so a key that may be left out promises nothing."""
    names = ["idempotency_key"] if required else []
    schema = properties(*names, idempotency_key={"type": "string"})
    assert built({"requestBody": body(schema)}).hints.idempotent is required


def test_places_of_arguments_and_parameters_of_the_path() -> None:
    """Parameters come first, then the body; a body that may be left out requires none of its names."""
    schema = properties("text", text={"type": "string"})
    for required in (True, False):
        tool = built(
            {"parameters": [ID, LIMIT], "requestBody": body(schema, required=required)}, path="/v1/things/{id}"
        )
        assert tool.arguments == (
            Argument("id", Place.PATH, required=True),
            Argument("limit", Place.QUERY, required=False),
            Argument("text", Place.BODY, required=required),
        )
    assert tool.input_schema["properties"]["id"] == {"description": "Which.", "type": "string"}


def test_references_are_carried_along_even_in_a_circle() -> None:
    """Component schemas become `$defs` of the tool, each once, also one that contains itself."""
    schemas = {"Tree": {"type": "object", "properties": {"leaves": {"type": "array", "items": {"$ref": REF + "Tree"}}}}}
    tool = built(
        {
            "requestBody": body(properties(one={"$ref": REF + "Tree"}, two={"$ref": REF + "Tree"})),
            "responses": {"200": reply({"$ref": REF + "Tree"})},
        },
        schemas=schemas,
    )
    assert list(tool.input_schema["$defs"]) == ["Tree"]
    assert validator(tool.input_schema).is_valid({"one": {"leaves": [{"leaves": []}]}})
    assert not validator(tool.input_schema).is_valid({"two": {"leaves": [{"leaves": "none"}]}})
    assert validator(tool.output_schema).is_valid({"leaves": [{"leaves": None}]})
    assert not validator(tool.output_schema).is_valid({"leaves": [{"leaves": 1}]})


def test_null_is_let_in_only_where_a_field_may_be_missing() -> None:
    """A required field stays as it is; an optional one may be null, whatever its schema is made of."""
    schema = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "string"},
            "size": {"type": "string", "enum": ["a"]},
            "part": {"$ref": REF + "Part"},
            "free": {"description": "Anything."},
            "map": {
                "type": "object",
                "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}}},
            },
        },
    }
    tool = built({"responses": {"200": reply(schema)}}, schemas={"Part": {"type": "integer"}})
    check = validator(tool.output_schema)
    assert check.is_valid({"id": "x", "size": None, "part": None, "free": None, "map": {"k": {"n": None}}})
    assert check.is_valid({"id": "x", "size": "b"}), "upstream adds values, and a client refuses what does not fit"
    for wrong in ({"id": None}, {"id": "x", "size": 1}, {"id": "x", "part": "1"}, {"id": "x", "map": {"k": None}}):
        assert not check.is_valid(wrong)


@pytest.mark.parametrize(
    "replies",
    [
        {"default": reply(OBJECT)},
        {"200": {"description": "Nothing."}},
        {"200": reply(OBJECT, "text/plain")},
        {"200": reply({"type": "array", "items": OBJECT})},
        {"200": reply(OBJECT), "204": {"description": "Nothing."}},
    ],
    ids=["errors alone", "no content", "text", "a list", "sometimes nothing"],
)
def test_a_reply_that_is_no_json_object_has_no_schema(replies: Mapping[str, Any]) -> None:
    """A client is promised structured content only where every success has it."""
    assert built({"responses": replies}).output_schema is None


def test_several_successes_are_a_choice() -> None:
    """Two replies of different shape both fit; two of the same shape are one."""
    one, two = properties("a", a={"type": "string"}), properties("b", b={"type": "string"})
    tool = built({"responses": {"200": reply(one), "201": reply(two)}})
    assert tool.output_schema is not None
    assert tool.output_schema["type"] == "object"
    check = validator(tool.output_schema)
    assert [check.is_valid(value) for value in ({"a": "x"}, {"b": "x"}, {"c": "x"})] == [True, True, False]
    same = built({"responses": {"200": reply(one), "201": reply(one)}})
    assert same.output_schema == one


# -- refusals


@pytest.mark.parametrize(
    "parameters, schema, named",
    [
        ([ID], properties(id={"type": "string"}), "the argument `id` stands in the path and in the body"),
        ([ID, {**LIMIT, "name": "id"}], properties(x=OBJECT), "the argument `id` stands in the path and in the query"),
        ([ID, LIMIT], properties(limit=OBJECT), "the argument `limit` stands in the query and in the body"),
    ],
)
def test_a_clash_of_names_is_refused(parameters: list[Any], schema: Mapping[str, Any], named: str) -> None:
    """Path, query and body share one flat object, so the second use of a name says which, where and what to do."""
    changes = {"parameters": parameters, "requestBody": body(schema)}
    found = problems(changes, path="/v1/things/{id}")
    assert found == f"spec/openapi.actions.yaml: POST /v1/things/{{id}}: {named}; rename one of them."


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"parameters": [{**LIMIT, "in": "header"}]}, "`limit` is in `header`"),
        ({"requestBody": body({"type": "array", "items": OBJECT})}, "the body must be a JSON object"),
        ({"requestBody": body({**OBJECT, "minProperties": 1})}, "nothing else such as `minProperties`"),
        ({"requestBody": {"content": {"text/plain": {"schema": OBJECT}}}}, "the body must be a JSON object"),
        ({"requestBody": body({"$ref": REF + "None"})}, "`$ref: #/components/schemas/None` leads nowhere"),
        ({"requestBody": body(properties(a={"$ref": REF + "None"}))}, "leads nowhere"),
        ({"requestBody": body(properties(a={"$ref": "#/info"}))}, "must lead to one of the component schemas"),
        (
            {"requestBody": body(properties(a={"$ref": "http://x.example"}))},
            "must lead to one of the component schemas",
        ),
        ({"responses": {"200": reply({"$ref": REF + "None"})}}, "leads nowhere"),
    ],
)
def test_what_cannot_be_flattened_is_refused(changes: Mapping[str, Any], named: str) -> None:
    """Nothing of a request is lost on the way into a tool: a part that has no place there is named instead."""
    assert named in problems(changes)


@pytest.mark.parametrize("name, path", [("otherThing", "/v1/things"), ("shapeThing", "/v1/others")])
def test_an_operation_of_the_actions_document_alone_is_refused(name: str, path: str) -> None:
    """A tool without an operation behind it would fail at its first call; name and address must both be there."""
    full = contract({}, "/v1/things", "post", "shapeThing", {})
    with pytest.raises(InvalidContract, match="the full document has no such operation of this name"):
        build_tools(full, contract({}, path, "post", name, {}))


def test_all_problems_are_told_at_once() -> None:
    """One run says everything that has to be mended."""
    paths = {"/v1/a": {"get": operation("getA")}, "/v1/b": {"get": operation("getB")}}
    with pytest.raises(InvalidContract) as refused:
        build_tools(build_contract("full", document({})), build_contract(ACTIONS, document(paths)))
    assert len(refused.value.findings) == 2
