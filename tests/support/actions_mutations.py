"""
Bad edits of `spec/openapi.actions.yaml` that an importer would refuse, drop or misread, for `contract lint`.

Not for: what the policy says about the document (`operation_mutations`, `document_mutations`).
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from codegen.contract import ACTIONS, EVENT_STREAM, JSON, METHODS, MULTIPART
from codegen.lint import MAX_DOCUMENT_BYTES, MAX_OPERATIONS, MAX_TEXT_CHARS
from codegen.lint_arguments import FILES_IN, FILES_OUT, MAX_FIELD_TEXT_CHARS, MAX_FILES
from codegen.reader import Document, resolve
from tests.support.mutations import Command, Edit, Mutation, mutations_of

Node = dict[str, Any]
FILES = {"type": "array", "items": {"type": "string"}, "description": "One to three PDF files."}
TOO_LONG = "x" * (MAX_TEXT_CHARS + 1)


def document(change: Callable[[Document], object]) -> Edit:
    """An edit of the document."""
    return lambda checkout: checkout.change(ACTIONS, change)


def server(url: str) -> Edit:
    """An edit of the server's address."""
    return document(lambda d: d["servers"][0].update(url=url))


def calls(source: Document) -> Iterator[tuple[str, str, Node]]:
    """Every operation with its path and method."""
    for path, item in source["paths"].items():
        yield from ((path, method, node) for method, node in item.items() if method in METHODS)


def reading(change: Callable[[Node], object]) -> Edit:
    """An edit of the first operation with parameters and without a body."""
    return document(lambda d: change(next(n for _, _, n in calls(d) if "parameters" in n and "requestBody" not in n)))


def asking(change: Callable[[Node], object]) -> Edit:
    """An edit of the first operation with a body."""
    return document(lambda d: change(next(n for _, _, n in calls(d) if "requestBody" in n)))


def parameter(**fields: object) -> Edit:
    """An edit of a parameter of the first operation that has one; `in_` stands for `in`."""
    return reading(lambda node: node["parameters"][0].update({key.rstrip("_"): value for key, value in fields.items()}))


def field(value: object, name: str = "extra") -> Edit:
    """An edit that gives the schema of the first body a property."""

    def change(source: Document) -> None:
        schema = next(n["requestBody"]["content"][JSON]["schema"] for _, _, n in calls(source) if "requestBody" in n)
        # The reference leads into the copy that is being changed.
        dict(resolve(source, schema))["properties"][name] = deepcopy(value)

    return document(change)


def schema(value: object) -> Edit:
    """An edit of the first component schema."""
    return document(lambda d: d["components"]["schemas"].update({next(iter(d["components"]["schemas"])): value}))


def circle(source: Document) -> None:
    """Let the first component schema hold itself."""
    name = next(iter(source["components"]["schemas"]))
    holder = {"type": "object", "properties": {"again": {"$ref": f"#/components/schemas/{name}"}}}
    source["components"]["schemas"][name] = holder


def one_too_many(source: Document) -> None:
    """Write an operation often enough to have more than an action may have."""
    path, method, node = next(calls(source))
    for number in range(MAX_OPERATIONS + 1 - len(list(calls(source)))):
        source["paths"][f"{path}/{number}"] = {method: {**node, "operationId": f"{node['operationId']}{number}"}}


def clash(source: Document) -> None:
    """Give the first operation with a body a parameter of the same name as a property of the body."""
    node = next(node for _, _, node in calls(source) if "requestBody" in node)
    name = next(iter(resolve(source, node["requestBody"]["content"][JSON]["schema"])["properties"]))
    node["parameters"] = [{"name": name, "in": "query", "description": "It.", "schema": {"type": "string"}}]


def renamed_media(body: Node, media: str) -> None:
    """Give a body another media type in place of JSON."""
    body["content"] = {media: body["content"][JSON]}


LINTED: dict[str, dict[str, Edit]] = {
    "importer-version": {
        "OpenAPI 3.0": document(lambda d: d.update(openapi="3.0.3")),
        "OpenAPI 3.2": document(lambda d: d.update(openapi="3.2.0")),
    },
    "importer-server": {
        "server without TLS": server("http://relay.example.com"),
        "server with a port": server("https://relay.example.com:8443"),
        "server with a slash at the end": server("https://relay.example.com/"),
        "server in capitals": server("https://Relay.example.com"),
        "server that nobody reaches": server("https://10.0.0.1"),
        "two servers": document(lambda d: d["servers"].append({"url": "https://other.example.com"})),
        "server of one operation": reading(lambda node: node.update(servers=[{"url": "https://other.example.com"}])),
    },
    "importer-operations": {
        "31 operations": document(one_too_many),
        "HEAD": document(lambda d: next(iter(d["paths"].values())).update(head={"responses": {}})),
        "no word on consent": asking(lambda node: node.pop("x-openai-isConsequential")),
        "consent as text": asking(lambda node: node.update({"x-openai-isConsequential": "false"})),
        "name that is none of a function": reading(lambda node: node.update(operationId="get-it")),
        "name of 65 characters": reading(lambda node: node.update(operationId="g" * 65)),
    },
    "importer-texts": {
        "summary of 300 characters": reading(lambda node: node.update(summary=TOO_LONG)),
        "description of 300 characters": reading(lambda node: node.update(description=TOO_LONG)),
        "no summary": reading(lambda node: node.pop("summary")),
        "no description": asking(lambda node: node.pop("description")),
        "no word on its purpose": document(lambda d: d["info"].pop("description")),
        "long text of a field": field({"type": "string", "description": "x" * (MAX_FIELD_TEXT_CHARS + 1)}),
    },
    "importer-parameters": {
        "parameter in a header": parameter(in_="header"),
        "parameter in a cookie": parameter(in_="cookie"),
        "parameter that is a reference": reading(
            lambda node: node.update(parameters=[{"$ref": "#/components/parameters/limit"}])
        ),
        "schema of a parameter that is a reference": parameter(schema={"$ref": "#/components/schemas/File"}),
        "parameter without a name": parameter(name=""),
        "parameter that is a list": parameter(schema={"type": "array", "items": {"type": "string"}}),
        "parameter of two types": parameter(schema={"type": ["string", "null"]}),
        "parameter without a description": parameter(description=""),
        "parameter with a long description": parameter(description="x" * (MAX_FIELD_TEXT_CHARS + 1)),
        "parameter named like a field of the body": document(clash),
        "parameters of a path": document(
            lambda d: next(iter(d["paths"].values())).update(parameters=[{"name": "a", "in": "query"}])
        ),
    },
    "importer-bodies": {
        "body that is a reference": asking(
            lambda node: node.update(requestBody={"$ref": "#/components/requestBodies/A"})
        ),
        "reply that is a reference": asking(lambda node: node["responses"].update({"200": {"$ref": "#/components/a"}})),
        "body that is a list": asking(
            lambda node: node["requestBody"]["content"][JSON].update(
                schema={"type": "array", "items": {"type": "string"}}
            )
        ),
    },
    "importer-media-types": {
        "multipart body": asking(lambda node: renamed_media(node["requestBody"], MULTIPART)),
        "event stream as a reply": asking(lambda node: renamed_media(node["responses"]["200"], EVENT_STREAM)),
        "reply in two media types": asking(lambda node: node["responses"]["200"]["content"].update({"text/plain": {}})),
        "reply without content": reading(lambda node: node["responses"]["200"].pop("content")),
    },
    "importer-files": {
        "files as objects": field(
            {**FILES, "items": {"type": "object", "properties": {"id": {"type": "string"}}}}, FILES_IN
        ),
        "files as one text": field({**FILES, "type": "string"}, FILES_IN),
        "files without number and kind": field({**FILES, "description": "The files."}, FILES_IN),
        "more files than a call carries": field({**FILES, "maxItems": MAX_FILES + 1}, FILES_IN),
        "files below the top": field({"type": "object", "properties": {FILES_IN: FILES}}),
        "files in the address": parameter(name=FILES_IN),
        "returned file that is no list": asking(
            lambda node: node["responses"]["200"]["content"][JSON].update(
                schema={"type": "object", "properties": {FILES_OUT: {"type": "string"}}}
            )
        ),
    },
    "importer-replies": {
        "redirect": reading(lambda node: node["responses"].update({"307": {"description": "Elsewhere."}})),
        "stream in the body": field({"type": "boolean"}, "stream"),
        "stream in the query": parameter(name="stream"),
    },
    "importer-schemas": {
        "oneOf": field({"oneOf": [{"type": "string"}, {"type": "integer"}]}),
        "anyOf at the root": schema({"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]}),
        "list of types": field({"type": ["string", "null"]}),
        "no type": field({"description": "It."}),
        "object without properties": field({"type": "object"}),
        "object with empty properties": field({"type": "object", "properties": {}}),
        "array without items": field({"type": "array"}),
        "object that takes any field": field(
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}
        ),
        "required field that nobody declares": field(
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}
        ),
        "keyword that was never seen to import": field({"type": "string", "nullable": True}),
        "field that refers to nothing": field({"$ref": "#/components/schemas/Lost"}),
        "reference with a neighbour": field({"$ref": "#/components/schemas/ErrorEnvelope", "description": "It."}),
        "schema that holds itself": document(circle),
        "no component schemas": document(lambda d: d["components"].update(schemas=None)),
    },
    "importer-empty": {
        "key with nothing after it": reading(lambda node: node.update(tags=None)),
        "empty list of tags": reading(lambda node: node.update(tags=[])),
        "empty list of values": field({"type": "string", "enum": []}),
    },
    "importer-security": {
        "two security schemes": document(
            lambda d: d["components"]["securitySchemes"].update(other={"type": "http", "scheme": "basic"})
        ),
    },
    "importer-size": {
        "document that the editor cannot print": document(
            lambda d: d["info"].update(description="x" * MAX_DOCUMENT_BYTES)
        ),
    },
}


MUTATIONS: tuple[Mutation, ...] = mutations_of(Command.LINT, LINTED)
