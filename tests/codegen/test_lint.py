"""Each check of `contract lint` fails on an edited copy of the real document, and the real document keeps them all."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codegen import lint, lint_arguments, lint_schemas
from codegen.actions_document import FILE, ActionsDocument
from codegen.contract import METHODS
from codegen.exceptions import UnreadableDocument
from codegen.findings import Finding
from codegen.reader import read_yaml
from tests.support.documents import ROOT

TEXT = (ROOT / FILE).read_text(encoding="utf-8")
DOCUMENT = read_yaml(ROOT / FILE)
Check = Callable[[ActionsDocument], Iterable[Finding]]

LIST = ("paths", "/v1/files", "get")
SEARCH = ("paths", "/v1/vector_stores/{vector_store_id}/search", "post")
ASK = ("paths", "/v1/responses", "post")
FILE_SCHEMA = ("components", "schemas", "File")
ASKED = ("components", "schemas", "CreateResponse", "properties")
ANSWER = ("components", "schemas", "Response", "properties")
TEXTS = {"type": "array", "items": {"type": "string"}}
FILES_IN = {**TEXTS, "description": "One to three PDF files."}


@dataclass(frozen=True)
class Case:
    """
    One bad edit.

    Args:
        check: The check that must report it, under the rule `importer-<rule>`.
        words: Part of the problem.
        steps: The place that is replaced.
    """

    check: Check
    rule: str
    words: str
    steps: tuple[str, ...]
    value: object


def query(**changes: object) -> dict[str, Any]:
    """A good parameter after changes."""
    return {"name": "q", "in": "query", "description": "Words.", "schema": {"type": "string"}, **changes}


def json_body(schema: object) -> dict[str, Any]:
    """A JSON body."""
    return {"content": {"application/json": {"schema": schema}}}


def edited(*steps: str, value: object) -> ActionsDocument:
    """A copy of the document with one place replaced."""
    document = deepcopy(DOCUMENT)
    place = document
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    return ActionsDocument(document, TEXT)


def header_cases() -> list[Case]:
    """Bad edits of version, server, size and security."""
    url = ("servers",)
    plain = [
        "http://relay.example.com",
        "https://Relay.example.com",
        "https://relay.example.com:8443",
        "https://a.b/",
        "https://localhost",
        "https://{host}.example.com",
        "/v1",
        None,
    ]
    schemes = {"a": {"type": "http", "scheme": "bearer"}, "b": {"type": "http", "scheme": "basic"}}
    many = {f"/v1/p{number}": {"get": {"operationId": f"get{number}"}} for number in range(31)}
    return [
        *(Case(lint.version_is_accepted, "version", "3.1.0", ("openapi",), v) for v in ("3.0.3", "3.1.2", 3.1, None)),
        Case(lint.server_is_one, "server", "0 entries", url, []),
        Case(lint.server_is_one, "server", "0 entries", url, None),
        Case(
            lint.server_is_one, "server", "2 entries", url, [{"url": "https://a.example"}, {"url": "https://b.example"}]
        ),
        *(Case(lint.server_is_plain, "server", "no plain https address", url, [{"url": address}]) for address in plain),
        *(
            Case(lint.server_is_public, "server", "not public", url, [{"url": f"https://{host}"}])
            for host in ("10.0.0.1", "127.0.0.1", "127.1", "0x7f.1", "relay.internal")
        ),
        Case(lint.server_is_the_documents, "server", "keeps only one", ("paths", "/v1/files", "servers"), []),
        Case(lint.server_is_the_documents, "server", "keeps only one", (*LIST, "servers"), []),
        Case(lint.operations_are_few, "operations", "31 operations", ("paths",), many),
        *(
            Case(lint.methods_are_known, "operations", f"`{key}`", ("paths", "/v1/files", key), {})
            for key in ("head", "options", "trace", "$ref")
        ),
        Case(lint.document_is_small, "size", "as JSON with two blanks", (*ASK, "description"), "x" * 800_000),
        Case(lint.document_is_small, "size", "as JSON with two blanks", (*ASK, "x-note"), ["\u00e9"] * 60_000),
        Case(lint.security_is_one_scheme, "security", "2 security schemes", ("components", "securitySchemes"), schemes),
    ]


def operation_cases() -> list[Case]:
    """Bad edits of names, texts, consent and replies."""
    return [
        *(
            Case(lint.names_are_plain, "operations", "cannot name a function", (*LIST, "operationId"), value)
            for value in ("list-files", "1st", "x" * 65, "", None)
        ),
        Case(lint.names_are_unique, "operations", "stands twice", (*LIST, "operationId"), "createResponse"),
        *(
            Case(lint.consent_is_explicit, "operations", "asks the user", (*ASK, "x-openai-isConsequential"), value)
            for value in (None, "false")
        ),
        Case(lint.purpose_is_told, "texts", "relevant", ("info", "description"), ""),
        *(
            Case(lint.operations_are_described, "texts", f"`{key}` is missing", (*LIST, key), value)
            for key in ("summary", "description")
            for value in ("", None)
        ),
        *(
            Case(lint.texts_are_short, "texts", f"`{key}` has 300 characters", (*LIST, key), "x" * 300)
            for key in ("summary", "description")
        ),
        Case(lint.replies_never_redirect, "replies", "`307` redirects", (*LIST, "responses", "307"), {}),
        Case(lint.replies_never_stream, "replies", "`stream`", (*ASKED, "stream"), {"type": "boolean"}),
        Case(lint.replies_never_stream, "replies", "`stream`", (*LIST, "parameters"), [query(name="stream")]),
    ]


def argument_cases() -> list[Case]:
    """Bad edits of parameters and bodies."""
    given = lint_arguments

    def parameter(check: Check, words: str, value: dict[str, Any]) -> Case:
        return Case(check, "parameters", words, (*SEARCH, "parameters"), [value])

    reference = {"$ref": "#/components/parameters/Limit"}
    path_level = ("paths", "/v1/files", "parameters")
    no_objects = [TEXTS, {"type": "string"}, {"oneOf": [{"type": "object"}]}, {"$ref": "#/components/schemas/Nowhere"}]
    media = ["multipart/form-data", "text/event-stream", "application/octet-stream"]
    body = {"schema": {"type": "string"}}
    return [
        Case(given.parameters_stand_in_operations, "parameters", "stands at the path", path_level, [query()]),
        parameter(given.parameters_are_inline, "skips parameters that are references", reference),
        parameter(given.parameters_are_inline, "skips parameters", query(schema={"$ref": "#/components/schemas/File"})),
        parameter(given.parameters_are_named, "has no name", query(name=None)),
        *(parameter(given.parameters_are_in_the_url, f"`{p}`", query(**{"in": p})) for p in ("header", "cookie")),
        *(
            parameter(given.parameters_are_scalar, "no scalar type", query(schema=schema))
            for schema in (TEXTS, {"type": "object"}, {"type": ["string", "null"]}, {}, None)
        ),
        *(
            parameter(given.parameters_are_described, f"has {len(value)} characters", query(description=value))
            for value in ("", "x" * 701)
        ),
        parameter(given.arguments_are_named_once, "share one namespace", query(name="query")),
        Case(given.arguments_are_named_once, "parameters", "`q` stands twice", (*LIST, "parameters"), [query()] * 2),
        Case(given.bodies_are_inline, "bodies", "the request body is a ref", (*ASK, "requestBody"), {"$ref": "#/a"}),
        Case(
            given.bodies_are_inline, "bodies", "the reply `200` is a ref", (*ASK, "responses", "200"), {"$ref": "#/a"}
        ),
        *(
            Case(given.bodies_are_objects, "bodies", "no object schema", (*ASK, "requestBody"), json_body(schema))
            for schema in (*no_objects, {"type": "object"}, None)
        ),
        *(
            Case(given.bodies_are_json, "media-types", f"is {kind}", (*ASK, *place, "content"), {kind: body})
            for kind in media
            for place in (("requestBody",), ("responses", "200"))
        ),
        Case(
            given.bodies_are_json, "media-types", "without content", (*ASK, "responses", "200"), {"description": "It."}
        ),
        Case(
            given.bodies_are_json,
            "media-types",
            "application/json or text/event-stream",
            (*ASK, "responses", "200", "content"),
            {"application/json": body, "text/event-stream": body},
        ),
    ]


def file_cases() -> list[Case]:
    """Bad edits of files that come in or go out."""
    given = lint_arguments
    name_in, name_out = given.FILES_IN, given.FILES_OUT

    def wanted(check: Check, words: str, value: dict[str, Any]) -> Case:
        return Case(check, "files", words, (*ASKED, name_in), value)

    nested = {"type": "object", "properties": {name_in: FILES_IN}}
    taking = json_body({"type": "object", "properties": {name_in: FILES_IN}})
    delete = ("paths", "/v1/files/{file_id}", "delete", "requestBody")
    texts = ["", "The files.", "Some PDF files.", "Up to three things.", "Up to 12 PDF files."]
    return [
        Case(given.files_come_by_post, "files", "misplaced", (*LIST, "parameters"), [query(name=name_in)]),
        Case(given.files_come_by_post, "files", "misplaced", (*ASKED, "text"), nested),
        Case(given.files_come_by_post, "files", "misplaced", delete, taking),
        *(
            wanted(given.files_are_texts_in_the_document, "no list of strings", {**FILES_IN, **schema})
            for schema in ({"type": "string"}, {"items": {"type": "object"}}, {"items": None})
        ),
        *(wanted(given.files_are_described, "lacks the type or", {**FILES_IN, "description": t}) for t in texts),
        wanted(given.files_are_few, "allows 11 files", {**FILES_IN, "maxItems": 11}),
        Case(given.files_are_few, "files", "allows 11 files", (*ANSWER, name_out), {**TEXTS, "maxItems": 11}),
        Case(given.returned_files_are_a_list, "files", "is no list", (*ANSWER, name_out), {"type": "string"}),
    ]


def schema_cases() -> list[Case]:
    """Bad edits of schemas, and values that are null or empty."""
    given = lint_schemas

    def file(check: Check, words: str, value: object) -> Case:
        return Case(check, "schemas", words, FILE_SCHEMA, value)

    def ref(name: str) -> dict[str, str]:
        return {"$ref": f"#/components/{name}"}

    def holder(schema: object) -> dict[str, Any]:
        return {"type": "object", "properties": {"a": schema}}

    reply = (*LIST, "responses", "200")
    long = {"type": "string", "description": "x" * 701}
    wrong: list[object] = [None, []]
    without: list[dict[str, Any]] = [{}, {"properties": {}}, {"properties": None}, {"additionalProperties": True}]
    circles = [
        ref("schemas/File"),
        holder(ref("schemas/File")),
        holder({"type": "array", "items": ref("schemas/FileList")}),
    ]
    return [
        *(
            Case(given.components_are_a_mapping, "schemas", "no mapping", ("components", "schemas"), value)
            for value in wrong
        ),
        file(given.references_stand_alone, "beside `$ref`", {**ref("schemas/Model"), "description": "A sibling."}),
        *(
            file(given.references_lead_to_schemas, "leads to no entry", value)
            for value in (
                ref("schemas/Nowhere"),
                ref("responses/File"),
                ref("schemas/Model/properties/id"),
                {"$ref": 5},
            )
        ),
        *(file(given.schemas_are_finite, "back to itself", schema) for schema in circles),
        *(
            file(given.types_are_single, "`type` is", schema)
            for schema in ({"type": ["string", "null"]}, {"description": "It."}, {"type": "null"}, holder({}), None)
        ),
        file(given.types_are_single, "root[]", {"type": "array", "items": {}}),
        Case(given.types_are_single, "schemas", "the reply `200`", reply, json_body(None)),
        *(file(given.schemas_combine_nothing, f"`{key}`", {key: [{"type": "string"}]}) for key in given.COMBINING),
        *(
            file(given.keywords_are_proven, f"`{key}`", {"type": "string", key: True})
            for key in ("nullable", "patternProperties", "title", "const")
        ),
        *(
            file(given.objects_are_closed, "not false", {**holder({"type": "string"}), "additionalProperties": value})
            for value in (True, {"type": "string"})
        ),
        *(file(given.objects_have_properties, "without properties", {"type": "object", **more}) for more in without),
        Case(given.objects_have_properties, "schemas", "without properties", reply, json_body({"type": "object"})),
        file(given.required_fields_are_declared, "`b`", {**holder({"type": "string"}), "required": ["b"]}),
        file(given.lists_have_items, "without `items`", {"type": "array"}),
        Case(given.field_texts_are_short, "texts", "701 characters", (*ASKED, "store"), long),
        Case(
            given.nothing_is_null, "empty", "`security.0.relayBearer` is null", ("security",), [{"relayBearer": None}]
        ),
        Case(given.nothing_is_null, "empty", "`tags` is null", (*LIST, "tags"), None),
        Case(given.nothing_is_empty, "empty", "`tags` is empty", (*LIST, "tags"), []),
        Case(given.nothing_is_empty, "empty", ".a.enum` is empty", FILE_SCHEMA, holder({"type": "string", "enum": []})),
        Case(given.nothing_is_empty, "empty", "`parameters` is empty", (*LIST, "parameters"), {}),
    ]


CASES = [*header_cases(), *operation_cases(), *argument_cases(), *file_cases(), *schema_cases()]


@pytest.mark.parametrize("check", lint.CHECKS, ids=lambda check: check.__name__)
def test_every_check_has_an_edit_that_it_reports(check: Check) -> None:
    """No check is without a failing path below, and none has anything to say about the real document."""
    assert any(case.check is check for case in CASES)
    assert list(check(ActionsDocument(DOCUMENT, TEXT))) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check.__name__}[{case.words}]")
def test_what_the_importer_refuses_is_found_by_its_rule(case: Case) -> None:
    """The check that owns the edit reports it with rule, words, place and a next step; the whole lint does, too."""
    actions = edited(*case.steps, value=case.value)
    findings = list(case.check(actions))
    assert {finding.rule for finding in findings} == {f"importer-{case.rule}"}
    assert any(case.words in finding.problem for finding in findings)
    assert all(f.file == FILE and f.subject and f.next_step and ";" in f.problem for f in findings)
    assert set(findings) <= set(lint.check(actions))


@pytest.mark.parametrize(
    "steps, value",
    [
        (("security",), []),
        ((*LIST, "security"), []),
        (("security",), [{"relayBearer": []}]),
        (("servers",), [{"url": "https://relay.example.com/v2"}]),
        ((*ASK, "summary"), "x" * 299),
        ((*ASKED, "store"), {"type": "boolean", "description": "x" * 700}),
        ((*ASKED, "stream_options"), {"type": "string", "format": "uri", "example": "https://a.example"}),
        ((*ASKED, lint_arguments.FILES_IN), FILES_IN),
        ((*ASKED, lint_arguments.FILES_IN), {**FILES_IN, "maxItems": 10, "description": "A single image/png file."}),
        ((*ANSWER, lint_arguments.FILES_OUT), {**TEXTS, "items": {"type": "string", "format": "uri"}}),
    ],
)
def test_what_the_importer_takes_is_not_reported(steps: tuple[str, ...], value: object) -> None:
    """Open operations, empty scopes, a base path, texts at their limit and files as documented are fine."""
    assert lint.check(edited(*steps, value=value)) == []


@pytest.mark.parametrize("value", [None, [], {}, "text", 5, [[5]], {"a": None}, {5: [5]}, {"$ref": [5]}])
@pytest.mark.parametrize(
    "steps",
    [
        ("paths",),
        ("components",),
        ("info",),
        LIST,
        (*LIST, "parameters"),
        (*ASK, "responses"),
        FILE_SCHEMA,
        (*FILE_SCHEMA, "required"),
        (*FILE_SCHEMA, "properties", "id", "type"),
    ],
)
def test_no_shape_stops_the_lint(steps: tuple[str, ...], value: object) -> None:
    """A part of another shape than expected counts as absent; nothing is raised."""
    assert isinstance(lint.check(edited(*steps, value=value)), list)


def test_yaml_of_any_layout_is_measured() -> None:
    """Comments count, for it is the text that is pasted."""
    findings = lint.check(ActionsDocument(DOCUMENT, TEXT + "#" * 800_000))
    assert [finding.problem.split(" it has")[0] for finding in findings] == ["as YAML"]


def test_a_finding_names_the_line_of_its_operation(tmp_path: Path) -> None:
    """Findings about an operation carry the line of its method, those about the rest none; the order is stable."""
    (tmp_path / "spec").mkdir()
    wrong = TEXT.replace("openapi: 3.1.0", "openapi: 3.0.3", 1).replace(
        "operationId: listFiles", "operationId: list-files"
    )
    (tmp_path / FILE).write_text(wrong, encoding="utf-8")
    operation, version = lint.lint(tmp_path)
    assert (operation.subject, operation.rule) == ("GET /v1/files", "importer-operations")
    assert wrong.splitlines()[operation.line].strip() == "operationId: list-files"
    assert wrong.splitlines()[operation.line - 1].strip().rstrip(":") in METHODS
    assert (version.subject, version.rule, version.line) == ("openapi", "importer-version", 0)


@pytest.mark.parametrize("content", [None, b"a: [", b"- a", "openapi: 3.1.0".encode("utf-16")])
def test_a_document_that_cannot_be_read_stops_the_lint(tmp_path: Path, content: bytes | None) -> None:
    """A missing file, broken YAML, another root than a mapping and another encoding are errors, not findings."""
    (tmp_path / "spec").mkdir()
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UnreadableDocument):
        lint.lint(tmp_path)
