"""
The part of `contract lint` about schemas, wherever they stand, and about values that are null or empty.

Not for: what a schema allows, only for the forms that the importer is known to read. Reads no files.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codegen.actions_document import ActionsDocument, Call, found, mapping, mappings_in, text
from codegen.findings import Finding
from codegen.lint_arguments import MAX_FIELD_TEXT_CHARS, SCALARS

COMBINING = ("oneOf", "anyOf", "allOf", "not")
KEYWORDS = {  # whatever is not named here, the importer refuses or has not been seen to accept
    "type",
    "description",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "default",
    "example",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
}
_COMPONENT = re.compile(r"#/components/schemas/([^/]+)")


@dataclass(frozen=True, slots=True)
class _Node:
    """
    One schema at one place; a reference is not followed, for its target is a place of its own.

    Args:
        where: Names of the fields that lead to it, `[]` for the items of a list.
        component: Name of the component that it is part of; empty inside an operation.
    """

    place: Call | str
    where: str
    schema: Mapping[str, Any]
    component: str = ""


def components_are_a_mapping(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when there is no mapping of component schemas."""
    if not isinstance(mapping(actions.document, "components").get("schemas"), dict):
        problem = "`components.schemas` is no mapping; the importer refuses a document without one, even an empty one"
        yield found("importer-schemas", "components", problem, "Write `schemas:` with the schemas, or `schemas: {}`")


def references_stand_alone(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when other keys stand beside a reference."""
    for node in _nodes(actions):
        if "$ref" in node.schema and len(node.schema) > 1:
            problem = f"{node.where}: keys stand beside `$ref`; imports with such keys were fragile"
            yield found("importer-schemas", node.place, problem, "Leave `$ref` alone, or write the schema out")


def references_lead_to_schemas(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a reference leads nowhere or elsewhere than to a component schema."""
    for node in _nodes(actions):
        if "$ref" in node.schema and _target(node.schema) not in actions.schemas:
            problem = (
                f"{node.where}: `{node.schema['$ref']}` leads to no entry of components/schemas; "
                "the importer puts an empty schema in its place"
            )
            yield found("importer-schemas", node.place, problem, "Name a component schema that exists")


def schemas_are_finite(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a component schema contains itself."""
    edges: dict[str, set[str]] = {}
    for node in _nodes(actions):
        if node.component and "$ref" in node.schema:
            edges.setdefault(node.component, set()).add(_target(node.schema))
    for name in edges:
        reached: set[str] = set()
        ahead = {name}
        while ahead:
            ahead = {target for step in ahead for target in edges.get(step, ())} - reached
            reached |= ahead
        if name in reached:
            problem = "it leads back to itself; the importer refuses circular dependencies"
            yield found("importer-schemas", f"components/schemas/{name}", problem, "Write out as many levels as needed")


def types_are_single(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a schema has no type, a list of types or an unknown one."""
    for node in _nodes(actions):
        kind = node.schema.get("type")
        if "$ref" not in node.schema and kind not in (*SCALARS, "object", "array"):
            problem = f"{node.where}: `type` is `{kind}`; lists of types and schemas without one broke imports"
            step = "Write one name; leave a field that may be null out of `required`"
            yield found("importer-schemas", node.place, problem, step)


def schemas_combine_nothing(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a schema is put together of others."""
    for node in _nodes(actions):
        for key in (key for key in COMBINING if key in node.schema):
            problem = f"{node.where}: `{key}` is used; at the root it loses the operation, below it is unreliable"
            yield found("importer-schemas", node.place, problem, "Write one object with optional fields and an `enum`")


def keywords_are_proven(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a schema uses a keyword that is not known to import."""
    for node in _nodes(actions):
        for key in node.schema if "$ref" not in node.schema else ():
            if key not in KEYWORDS and key not in COMBINING:
                problem = f"{node.where}: `{key}` is used; the importer has refused it or was never seen to accept it"
                yield found(
                    "importer-schemas", node.place, problem, f"Delete it; known are {', '.join(sorted(KEYWORDS))}"
                )


def objects_are_closed(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an object pretends to take undeclared fields."""
    for node in _nodes(actions):
        if node.schema.get("additionalProperties", False) is not False:
            problem = f"{node.where}: `additionalProperties` is not false; ChatGPT cannot send undeclared fields anyway"
            yield found("importer-schemas", node.place, problem, "Declare every field, or take JSON as one string")


def objects_have_properties(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when an object declares no properties."""
    for node in _nodes(actions):
        if node.schema.get("type") == "object" and not mapping(node.schema, "properties"):
            problem = f"{node.where}: an object without properties; the importer refuses it anywhere, in replies too"
            yield found("importer-schemas", node.place, problem, "Declare at least one property")


def required_fields_are_declared(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a field is required that nobody can send."""
    for node in _nodes(actions):
        required = node.schema.get("required")
        for name in required if isinstance(required, list) else ():
            if name not in [*mapping(node.schema, "properties")]:  # a list, for a wrong name may have no hash
                problem = f"{node.where}: `{name}` is required but not declared; ChatGPT cannot send undeclared fields"
                yield found("importer-schemas", node.place, problem, "Declare it or do not require it")


def lists_have_items(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a list does not tell what it holds."""
    for node in _nodes(actions):
        if node.schema.get("type") == "array" and "items" not in node.schema:
            problem = f"{node.where}: an array without `items`; the importer needs them, with a type"
            yield found("importer-schemas", node.place, problem, "Add `items` with a `type`")


def field_texts_are_short(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when the description inside a schema is longer than that of a parameter may be."""
    for node in _nodes(actions):
        length = len(text(node.schema, "description"))
        if length > MAX_FIELD_TEXT_CHARS:
            problem = (
                f"{node.where}: `description` has {length} characters; whether fields of a body count as parameters, "
                f"which have at most {MAX_FIELD_TEXT_CHARS}, is not stated"
            )
            yield found("importer-texts", node.place, problem, f"Shorten it to at most {MAX_FIELD_TEXT_CHARS}")


def nothing_is_null(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a key has nothing after it."""
    for steps, value in _values(actions.document, ()):
        if value is None:
            place, where = _place(actions, steps)
            problem = f"{where} is null; the importer fails at keys with nothing after them"
            yield found("importer-empty", place, problem, "Give it a value, or delete the key")


def nothing_is_empty(actions: ActionsDocument) -> Iterator[Finding]:
    """Say when a list or a mapping is empty, other than in `security` and the component schemas."""
    for steps, value in _values(actions.document, ()):
        if value in ([], {}) and not _may_be_empty(steps):
            place, where = _place(actions, steps)
            problem = f"{where} is empty; the importer has refused empty lists, `items` and `properties`"
            yield found("importer-empty", place, problem, "Give it an entry, or delete the key")


def _nodes(actions: ActionsDocument) -> Iterator[_Node]:
    """Every schema of the document, each once; of parameters only those that `parameters_are_scalar` lets pass."""
    for name in actions.schemas:
        place = f"components/schemas/{name}"
        yield from _below(_Node(place, "root", mapping(actions.schemas, name), str(name)))
    for call in actions.calls:
        for parameter in call.parameters:
            schema = mapping(parameter, "schema")
            if schema.get("type") in SCALARS:
                yield from _below(_Node(call, str(parameter.get("name")), schema))
        for name, body in call.bodies.items():
            for media in mappings_in(mapping(body, "content")):
                yield from _below(_Node(call, name, mapping(media, "schema")))


def _below(node: _Node) -> Iterator[_Node]:
    yield node
    properties = mapping(node.schema, "properties")
    for name in properties:
        yield from _below(_Node(node.place, f"{node.where}.{name}", mapping(properties, name), node.component))
    if "items" in node.schema:
        yield from _below(_Node(node.place, f"{node.where}[]", mapping(node.schema, "items"), node.component))


def _target(schema: Mapping[str, Any]) -> str:
    """The name of the component schema that a reference names; empty when it names something else."""
    match = _COMPONENT.fullmatch(text(schema, "$ref"))
    return match[1] if match else ""


def _values(node: object, steps: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    yield steps, node
    pairs: list[tuple[object, object]] = []
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list):
        pairs = list(enumerate(node))
    for key, value in pairs:
        yield from _values(value, (*steps, str(key)))


def _may_be_empty(steps: tuple[str, ...]) -> bool:
    """Whether a value is the component schemas, or `security` of the document or an operation, scopes included."""
    security = steps[:1] == ("security",) or (steps[:1] == ("paths",) and steps[3:4] == ("security",))
    return security or steps == ("components", "schemas")


def _place(actions: ActionsDocument, steps: tuple[str, ...]) -> tuple[Call | str, str]:
    """The operation or the part that a value is in, and the way to it."""
    for call in actions.calls:
        if steps[:3] == ("paths", call.path, call.method):
            return call, f"`{'.'.join(steps[3:]) or call.method}`"
    return steps[0] if steps else "document", f"`{'.'.join(steps)}`"


CHECKS: tuple[Callable[[ActionsDocument], Iterable[Finding]], ...] = (
    components_are_a_mapping,
    references_stand_alone,
    references_lead_to_schemas,
    schemas_are_finite,
    types_are_single,
    schemas_combine_nothing,
    keywords_are_proven,
    objects_are_closed,
    objects_have_properties,
    required_fields_are_declared,
    lists_have_items,
    field_texts_are_short,
    nothing_is_null,
    nothing_is_empty,
)
