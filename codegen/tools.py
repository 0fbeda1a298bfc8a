"""
The tools that assistants get over MCP: one per operation of the Actions document, computed from the contract.

Not for: answering a call, or speaking MCP. Reads both documents of the contract, writes nothing.

The hints of a tool follow from the contract alone, and where it does not say, from what is safer to believe:

- read-only: GET. No field of the contract says of a POST that it changes nothing.
- destructive: DELETE, and what is consequential (`x-openai-isConsequential`; where it is missing, all but GET) unless
  it creates: the operationId, for a wrapper those of all operations it wraps, has the verb `create`.
- idempotent: GET, PUT and DELETE (RFC 9110, section 9.2.2), and bodies that require `idempotency_key`. Where that key
  may be left out, the same call without it is done twice, so the hint is not given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from codegen.actions_document import FILE, ActionsDocument, Call, mapping, mappings, text
from codegen.contract import JSON, Contract, Operation
from codegen.exceptions import InvalidContract, UnreadableDocument
from codegen.naming import importer_name, snake_case
from codegen.reader import resolve

CONSEQUENTIAL = "x-openai-isConsequential"
IDEMPOTENCY_KEY = "idempotency_key"
_IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
_SCHEMAS = "#/components/schemas/"
# What the root of a body may say; anything else would be lost when its properties move beside the parameters.
_BODY_KEYWORDS = frozenset({"type", "title", "description", "required", "properties", "additionalProperties"})
# A schema without any of these lets null in as it is.
_NARROWING = frozenset({"$ref", "allOf", "anyOf", "const", "enum", "if", "not", "oneOf", "type"})


class Place(StrEnum):
    """Where the HTTP request of a tool holds an argument."""

    PATH = "path"
    QUERY = "query"
    BODY = "body"


@dataclass(frozen=True, slots=True)
class Argument:
    """
    One argument of a tool.

    Args:
        required: Whether a call without it is refused.
    """

    name: str
    place: Place
    required: bool


@dataclass(frozen=True, slots=True)
class Hints:
    """What a client may believe about a tool before it asks the user."""

    read_only: bool
    destructive: bool
    idempotent: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """
    One tool.

    Args:
        name: The operationId of the Actions document.
        operation_id: That of the full document; a hyphen there is an underscore in the name.
        method: Upper case.
        description: Summary and description of the Actions document: what an assistant chooses by.
        arguments: In the order of `input_schema`: parameters, then the body's properties.
        input_schema: JSON Schema 2020-12 of all arguments as one closed object.
        output_schema: The same of the successful reply; `None` when that is not a JSON object. Clients refuse a reply
            that does not fit it, so it promises no more than holds: a field that may be missing may be null too, as in
            the upstream's replies, and where upstream answers, values that it may add to are not listed.
    """

    name: str
    operation_id: str
    method: str
    path: str
    summary: str
    description: str
    arguments: tuple[Argument, ...]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    hints: Hints


def build_tools(full: Contract, actions: Contract) -> tuple[Tool, ...]:
    """
    Compute the tools.

    Args:
        full: The full document.
        actions: The Actions document.

    Returns:
        One tool per operation of the Actions document, in its order.

    Raises:
        InvalidContract: Two arguments of an operation share a name, a part of an operation cannot become a tool's, or
            the full document lacks the operation; one finding each.
    """
    document = ActionsDocument(actions.document, "")
    known = {importer_name(operation.id): operation for operation in full}
    tools: list[Tool] = []
    findings: list[str] = []
    for call in document.calls:
        try:
            problems = list(_problems(document, call, known))
            if not problems:
                tools.append(_tool(document, call, known[text(call.node, "operationId")]))
        except UnreadableDocument as error:
            problems = [str(error)]
        findings += [f"{FILE}: {call.subject}: {problem}" for problem in problems]
    if findings:
        raise InvalidContract(findings)
    return tuple(tools)


def _problems(document: ActionsDocument, call: Call, known: Mapping[str, Operation]) -> Iterator[str]:
    operation = known.get(text(call.node, "operationId"))
    if operation is None or (operation.method, operation.path) != (call.method.upper(), call.path):
        yield "the full document has no such operation of this name; add it there or delete it here."
    body = _body_schema(document, call)
    strange = sorted(set(body) - _BODY_KEYWORDS)
    if call.request is not None and (body.get("type") != "object" or strange):
        without = f" and nothing else such as `{'`, `'.join(strange)}`" if strange else ""
        yield f"the body must be a JSON object with `properties`{without}."
    names = [(text(parameter, "name"), text(parameter, "in")) for parameter in _parameters(document, call)]
    names += [(name, str(Place.BODY)) for name in mapping(body, "properties")]
    places: dict[str, str] = {}
    for name, place in names:
        if place not in set(Place):
            yield f"`{name}` is in `{place}`; an argument must be in the path, the query or the body."
        if name in places:
            yield f"the argument `{name}` stands in the {places[name]} and in the {place}; rename one of them."
        places[name] = place


def _tool(document: ActionsDocument, call: Call, operation: Operation) -> Tool:
    arguments, schema = _input(document, call)
    summary, description = text(call.node, "summary"), text(call.node, "description")
    return Tool(
        name=text(call.node, "operationId"),
        operation_id=operation.id,
        method=operation.method,
        path=operation.path,
        summary=summary,
        description=f"{summary} {description}".strip(),
        arguments=arguments,
        input_schema=schema,
        output_schema=_output_schema(document, call, operation),
        hints=_hints(call, operation, arguments),
    )


def _input(document: ActionsDocument, call: Call) -> tuple[tuple[Argument, ...], dict[str, Any]]:
    parameters = _parameters(document, call)
    body = _body_schema(document, call)
    # A body that may be left out requires nothing; one that is sent is held against the contract all the same.
    required = body.get("required", ()) if call.request and call.request.get("required") else ()
    arguments = [Argument(p["name"], Place(p["in"]), p.get("required", False)) for p in parameters]
    arguments += [Argument(name, Place.BODY, name in required) for name in mapping(body, "properties")]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {**{p["name"]: _described(p) for p in parameters}, **mapping(body, "properties")},
        "required": [argument.name for argument in arguments if argument.required],
        "additionalProperties": False,
    }
    return tuple(arguments), _standalone(document, schema)


def _parameters(document: ActionsDocument, call: Call) -> list[Mapping[str, Any]]:
    shared = mappings(document.paths[call.path], "parameters")
    return [resolve(document.document, parameter) for parameter in (*shared, *call.parameters)]


def _described(parameter: Mapping[str, Any]) -> dict[str, Any]:
    description = text(parameter, "description")
    return {**({"description": description} if description else {}), **mapping(parameter, "schema")}


def _body_schema(document: ActionsDocument, call: Call) -> Mapping[str, Any]:
    request = resolve(document.document, call.request or {})
    return resolve(document.document, mapping(mapping(mapping(request, "content"), JSON), "schema"))


def _output_schema(document: ActionsDocument, call: Call, operation: Operation) -> Mapping[str, Any] | None:
    choices: list[Mapping[str, Any]] = []
    for code, reply in call.replies.items():
        if code.startswith("2"):
            content = mapping(resolve(document.document, reply), "content")
            schema = resolve(document.document, mapping(mapping(content, JSON), "schema"))
            if list(content) != [JSON] or schema.get("type") != "object":
                return None
            choices += [schema] if schema not in choices else []
    if not choices:
        return None
    # The root of a tool's schema must be an object, so a choice stands beside that type.
    whole = choices[0] if len(choices) == 1 else {"type": "object", "anyOf": choices}
    return _looser(_standalone(document, whole), open_values=operation.mirrored)


def _hints(call: Call, operation: Operation, arguments: Sequence[Argument]) -> Hints:
    read_only = operation.method == "GET"
    consequential = call.node.get(CONSEQUENTIAL, not read_only)
    return Hints(
        read_only=read_only,
        destructive=not read_only and (operation.method == "DELETE" or (consequential and not _creates(operation))),
        idempotent=operation.method in _IDEMPOTENT
        or any(argument.required for argument in arguments if argument.name == IDEMPOTENCY_KEY),
    )


def _creates(operation: Operation) -> bool:
    verbs = [snake_case(operation_id).split("_")[0] for operation_id in (operation.wraps or (operation.id,))]
    return set(verbs) == {"create"}


def _standalone(document: ActionsDocument, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the component schemas that it reaches as its `$defs`."""
    definitions: dict[str, Any] = {}

    def moved(node: Any) -> Any:
        if isinstance(node, list):
            return [moved(part) for part in node]
        if not isinstance(node, dict):
            return node
        target = node.get("$ref")
        if not isinstance(target, str):
            return {key: moved(part) for key, part in node.items()}
        name = target.removeprefix(_SCHEMAS)
        if name == target or "/" in name:
            raise UnreadableDocument(f"`$ref: {target}` must lead to one of the component schemas.")
        if name not in definitions:
            definitions[name] = {}  # taken before it is filled: a schema may contain itself
            definitions[name] = moved(dict(resolve(document.document, {"$ref": target})))
        return {**{key: moved(part) for key, part in node.items()}, "$ref": f"#/$defs/{name}"}

    whole = moved(dict(schema))
    return {**whole, "$defs": definitions} if definitions else whole


def _looser(schema: Mapping[str, Any], *, open_values: bool) -> dict[str, Any]:
    """The schema with null allowed in every field that may be missing, and with open values without lists of them."""
    wider = {key: part for key, part in schema.items() if not (open_values and key == "enum")}
    for key in ("items", "additionalProperties"):
        if key in schema and isinstance(schema[key], dict):
            wider[key] = _looser(schema[key], open_values=open_values)
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema:
            wider[key] = [_looser(part, open_values=open_values) for part in schema[key]]
    for key in ("$defs", "properties"):
        if key in schema:
            wider[key] = {name: _looser(part, open_values=open_values) for name, part in schema[key].items()}
    required = schema.get("required", ())
    for name, part in wider.get("properties", {}).items():
        if name not in required:
            # A list of types would be shorter; not all clients take one.
            wider["properties"][name] = {"anyOf": [part, {"type": "null"}]} if part.keys() & _NARROWING else part
    return wider
