from typing import Any

import pytest

from codegen.changes import Change, Kind
from codegen.semver import Level
from tests.support.contract_sides import between, changed
from tests.support.documents import document, operation

TEXT: dict[str, Any] = {"schema": {"type": "string"}}
INTERNAL: dict[str, Any] = {
    "x-policy-bucket": "EXCLUDED",
    "x-policy-exclusion": "internal",
    "x-policy-reason": "For operators.",
    "x-policy-review": None,
    "security": [{"relayBearer": ["operator"]}],
}


def parameter(**fields: Any) -> dict[str, Any]:
    """An operation with one query parameter."""
    return {"parameters": [{"name": "limit", "in": "query", **TEXT, **fields}]}


def body(*media_types: str, **fields: Any) -> dict[str, Any]:
    """An operation with a body."""
    return {"requestBody": {"content": dict.fromkeys(media_types or ("application/json",), TEXT), **fields}}


def reply(code: str = "200", *media_types: str, **fields: Any) -> dict[str, Any]:
    """An operation with one reply."""
    content = dict.fromkeys(media_types or ("application/json",), TEXT)
    return {"responses": {code: {"description": "It.", "content": content, **fields}}}


def summary(changes: tuple[Change, ...]) -> list[tuple[str, str, Level]]:
    """Kind, detail and level."""
    return [(change.kind, change.detail, change.level) for change in changes]


@pytest.mark.parametrize(
    "before, after, kind, detail, level",
    [
        ({}, parameter(), Kind.PARAMETER, "query limit added", Level.MINOR),
        ({}, parameter(required=True), Kind.PARAMETER, "required query limit added", Level.MAJOR),
        (parameter(), {}, Kind.PARAMETER, "query limit removed", Level.MAJOR),
        (parameter(), parameter(required=True), Kind.PARAMETER, "query limit: now required", Level.MAJOR),
        (parameter(required=True), parameter(), Kind.PARAMETER, "query limit: no longer required", Level.MINOR),
        (parameter(), parameter(deprecated=True), Kind.PARAMETER, "query limit: deprecated", Level.MINOR),
        (parameter(), parameter(description="How many."), Kind.TEXT, "query limit: description", Level.PATCH),
        (
            parameter(),
            parameter(style="form"),
            Kind.SCHEMA,
            "query limit: style changed; it cannot be weighed",
            Level.MAJOR,
        ),
        (
            parameter(schema={"type": "integer", "default": 20}),
            parameter(schema={"type": "integer", "default": 10}),
            Kind.SCHEMA,
            "query limit: default 20 -> 10",
            Level.MAJOR,
        ),
        ({}, body(), Kind.BODY, "request body added", Level.MINOR),
        ({}, body(required=True), Kind.BODY, "required request body added", Level.MAJOR),
        (body(), {}, Kind.BODY, "request body removed", Level.MAJOR),
        (body(), body(required=True), Kind.BODY, "body: now required", Level.MAJOR),
        (body(required=True), body(), Kind.BODY, "body: no longer required", Level.MINOR),
        (body(), body("application/json", "text/plain"), Kind.MEDIA_TYPE, "body: text/plain added", Level.MINOR),
        (body("application/json", "text/plain"), body(), Kind.MEDIA_TYPE, "body: text/plain removed", Level.MAJOR),
        (
            reply(),
            reply("200", "application/json", "text/plain"),
            Kind.MEDIA_TYPE,
            "reply 200: text/plain added",
            Level.MINOR,
        ),
        (
            reply("200", "application/json", "text/plain"),
            reply(),
            Kind.MEDIA_TYPE,
            "reply 200: text/plain removed",
            Level.MAJOR,
        ),
        (
            reply(),
            {"responses": {**reply()["responses"], "202": {"description": "Later."}}},
            Kind.RESPONSE,
            "reply 202 added",
            Level.MINOR,
        ),
        (
            {"responses": {**reply()["responses"], "202": {"description": "Later."}}},
            reply(),
            Kind.RESPONSE,
            "reply 202 removed",
            Level.MAJOR,
        ),
        (reply(), reply(headers={"Location": TEXT}), Kind.RESPONSE, "reply 200: header Location added", Level.MINOR),
        (reply(headers={"Location": TEXT}), reply(), Kind.RESPONSE, "reply 200: header Location removed", Level.MAJOR),
        (
            reply(headers={"Location": TEXT}),
            reply(headers={"Location": {"schema": {"type": "integer"}}}),
            Kind.SCHEMA,
            "reply 200 header Location: type string -> integer",
            Level.MAJOR,
        ),
        (reply(), reply(description="Another."), Kind.TEXT, "reply 200: description", Level.PATCH),
        (reply(), reply(links={}), Kind.SCHEMA, "reply 200: links changed; it cannot be weighed", Level.MAJOR),
        ({}, {"callbacks": {"moon": {}}}, Kind.SCHEMA, "callbacks changed; it cannot be weighed", Level.MAJOR),
        ({}, {"summary": "Another.", "description": "More."}, Kind.TEXT, "summary, description", Level.PATCH),
    ],
)
def test_each_edit_of_a_shape_is_named_and_weighed(
    before: dict[str, Any], after: dict[str, Any], kind: Kind, detail: str, level: Level
) -> None:
    """One edit is one change with its place; what nobody can weigh counts as breaking."""
    assert summary(changed({**reply(), **before}, {**reply(), **after})) == [(kind, detail, level)]


def test_direction_comes_from_where_the_schema_stands() -> None:
    """The same edit is minor for who writes a body and major for who reads a reply, and is told for each."""
    wide = {"schema": {"type": ["string", "null"]}}
    before = {**body(), **reply()}
    after = {
        "requestBody": {"content": {"application/json": wide}},
        "responses": {"200": {"description": "It.", "content": {"application/json": wide}}},
    }
    assert summary(changed(before, after)) == [
        (Kind.SCHEMA, "body: type string -> null, string", Level.MINOR),
        (Kind.SCHEMA, "reply 200: type string -> null, string", Level.MAJOR),
    ]


def test_a_path_whose_names_change_has_moved_and_nothing_more() -> None:
    """The parameter of a renamed template is the same value in the same place."""

    def thing(name: str) -> dict[str, Any]:
        node = operation(changes={"parameters": [{"name": name, "in": "path", "required": True, **TEXT}]})
        return document({f"/v1/things/{{{name}}}": {"get": node}})

    (change,) = between(thing("thing_id"), thing("id")).changes
    assert change.kind is Kind.MOVED


def shared(bound: int) -> dict[str, Any]:
    """Components that operations share, with a bound that matters."""
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": bound}}}
    return {"schemas": {"Thing": schema, "Box": {"items": {"$ref": "#/components/schemas/Thing"}}}}


def using(**fields: Any) -> dict[str, Any]:
    """An operation whose body leads to the shared component by way of another one."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Box"}}}
    return operation(fields.pop("id"), {"requestBody": {"content": content}, **fields})


def test_a_shared_component_is_told_once_with_the_operations_that_it_reaches() -> None:
    """Its change is weighed by whoever is reached, through however many components."""
    paths = {f"/v1/{name}": {"post": using(id=name)} for name in ("a", "b")}
    paths["/v1/c"] = {"post": using(id="c", **INTERNAL)}
    paths["/v1/d"] = {"get": operation("d")}
    (change,) = between(document(paths, components=shared(9)), document(paths, components=shared(5))).changes
    assert (change.subject, change.detail) == ("schemas/Thing", "name: maxLength 9 -> 5")
    assert change.operations == {"a", "b", "c"}
    assert change.level is Level.MAJOR


def test_a_component_that_only_operators_reach_is_a_patch() -> None:
    """Nobody else has been promised its shape."""
    paths = {"/v1/c": {"post": using(id="c", **INTERNAL)}}
    (change,) = between(document(paths, components=shared(9)), document(paths, components=shared(5))).changes
    assert change.level is Level.PATCH


def test_a_shared_reply_is_told_once() -> None:
    """A response component is the subject of its own changes, also of those of its schema."""

    def sample(kind: str) -> dict[str, Any]:
        answer = {"description": "It.", "content": {"application/json": {"schema": {"type": kind}}}}
        nodes = {name: {"responses": {"200": {"$ref": "#/components/responses/It"}}} for name in ("a", "b")}
        paths = {f"/v1/{name}": {"get": operation(name, node)} for name, node in nodes.items()}
        return document(paths, components={"responses": {"It": answer}})

    (change,) = between(sample("string"), sample("integer")).changes
    assert (change.subject, change.detail) == ("responses/It", "type string -> integer")
    assert change.operations == {"a", "b"}


def test_what_a_refused_operation_loses_goes_without_saying() -> None:
    """An operation that becomes unsupported is stripped of its body; its bucket says all."""
    stripped = {**INTERNAL, "x-policy-exclusion": "unsupported", "security": None}
    (change,) = changed({**body(), **parameter()}, stripped)
    assert change.kind is Kind.BUCKET


def test_parameters_of_the_path_item_count_and_its_other_fields_are_not_overlooked() -> None:
    """A path item may hold what its operations share."""
    base = document()
    shared_parameter = document({"/v1/things": {"parameters": parameter()["parameters"], "get": operation()}})
    assert summary(between(base, shared_parameter).changes) == [(Kind.PARAMETER, "query limit added", Level.MINOR)]
    elsewhere = document({"/v1/things": {"servers": [{"url": "/x"}], "get": operation()}})
    assert [change.level for change in between(base, elsewhere).changes] == [Level.MAJOR]
