"""Seeded changes of a small upstream document, each reported once, with level, bucket and nothing beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codegen.contract import read_contract
from codegen.drift import drift
from codegen.drift_report import Change, Drift, Kind, Level, Weight
from codegen.exceptions import InvalidContract
from codegen.looseness import LOOSER, read_looseness
from codegen.reader import Document
from tests.support.documents import ROOT, node_of
from tests.support.upstream_documents import (
    JSON,
    MULTIPART,
    answer,
    body,
    upstream_operation,
    write_checkout,
    write_upstream,
)

Edit = Callable[[Document], object]
HEAD = "operationId\tkind\tplace\tvalue\treason\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that agrees with the unchanged document."""
    return write_checkout(tmp_path)


def after(root: Path, *edits: Edit) -> Drift:
    """The drift of the document after these edits."""
    return drift(root, write_upstream(root, lambda source: [edit(source) for edit in edits]))


def only(found: Drift) -> Change:
    """The single change of a drift."""
    assert len(found.changes) == 1, found.to_markdown()
    return found.changes[0]


def in_node(operation_id: str, **fields: Any) -> Edit:
    """An edit that gives an operation other fields."""
    return lambda source: node_of(source, operation_id).update(fields)


def own_schema(operation_id: str, *required: str, **properties: Any) -> Edit:
    """An edit that gives an operation a JSON body of its own."""
    known = {"name": {"type": "string"}, "purpose": {"type": "string", "enum": ["batch", "vision", "evals"]}}
    schema = {"type": "object", "required": list(required), "properties": {**known, **properties}}
    content = {"required": True, "content": {JSON: {"schema": schema}}}
    return lambda source: node_of(source, operation_id).update(requestBody=content)


def order(*values: str, **fields: Any) -> list[dict[str, Any]]:
    """The parameter `order` with other values."""
    return [{"name": "order", "in": "query", "schema": {"type": "string", "enum": list(values)}, **fields}]


def rename_path(old: str, new: str) -> Edit:
    """An edit that puts a path item at another path."""
    return lambda source: source["paths"].update({new: source["paths"].pop(old)})


def add(path: str, method: str, **fields: Any) -> Edit:
    """An edit that adds the operation `fresh`."""
    return lambda source: source["paths"].setdefault(path, {}).update({method: upstream_operation("fresh", **fields)})


def test_an_unchanged_document_gives_an_empty_report(root: Path) -> None:
    """No change: no finding, exit code 0, and a report that says so."""
    found = after(root)
    assert found.changes == ()
    assert found.exit_code == 0
    assert "Nothing" in found.to_markdown()
    assert json.loads(found.to_json()) == {"exit_code": 0, "changes": []}


LOOK, BREAKING = Level.LOOK, Level.BREAKING
EXPOSED, SERVED, REFUSED = Weight.EXPOSED, Weight.SERVED, Weight.REFUSED
SEEDED: dict[str, tuple[Edit, Kind, Level, Weight, str, str]] = {
    "new operation": (
        add("/others", "get"), Kind.NEW_OPERATION, LOOK, Weight.UNCLASSIFIED, "fresh", "application/json",
    ),
    "new variant": (
        lambda d: d["paths"].update({"/pictures?beta=true": {"post": upstream_operation("beta_createPicture")}}),
        Kind.NEW_OPERATION, LOOK, SERVED, "beta_createPicture", "nothing",
    ),
    "removed, exposed": (
        lambda d: d["paths"]["/things/{thing_id}"].pop("get"),
        Kind.REMOVED_OPERATION, BREAKING, EXPOSED, "retrieveThing", "no more",
    ),
    "removed, refused": (
        lambda d: d["paths"]["/admin/users"].pop("post"),
        Kind.REMOVED_OPERATION, LOOK, REFUSED, "create-user", "no more",
    ),
    "removed variant": (
        lambda d: d["paths"].pop("/things?beta=true"),
        Kind.REMOVED_OPERATION, LOOK, EXPOSED, "beta_createThing", "no more",
    ),
    "moved": (
        rename_path("/pictures", "/images"), Kind.MOVED_OPERATION, BREAKING, SERVED, "createPicture", "/v1/pictures",
    ),
    "other name in braces": (
        rename_path("/pictures/{picture_id}/content", "/pictures/{id}/content"),
        Kind.MOVED_OPERATION, LOOK, SERVED, "downloadPicture", "inside braces",
    ),
    "renamed": (
        in_node("retrieveThing", operationId="getThing"),
        Kind.RENAMED_OPERATION, LOOK, EXPOSED, "getThing", "`retrieveThing`",
    ),
    "request media added": (
        in_node("createThing", requestBody=body(JSON, MULTIPART)),
        Kind.REQUEST_MEDIA, LOOK, EXPOSED, "createThing", MULTIPART,
    ),
    "request media removed": (
        in_node("createPicture", requestBody=body(JSON)),
        Kind.REQUEST_MEDIA, BREAKING, SERVED, "createPicture", MULTIPART,
    ),
    "request media removed, refused": (
        in_node("create-user", requestBody=body("text/csv")),
        Kind.REQUEST_MEDIA, LOOK, REFUSED, "create-user", "text/csv",
    ),
    "body where none was, required": (
        in_node("deleteThing", requestBody=body(JSON)),
        Kind.REQUEST_MEDIA, BREAKING, EXPOSED, "deleteThing", "a body is required",
    ),
    "response media added": (
        in_node("createThing", responses=answer(JSON, "text/event-stream")),
        Kind.RESPONSE_MEDIA, LOOK, EXPOSED, "createThing", "text/event-stream",
    ),
    "response media removed": (
        in_node("downloadPicture", responses=answer("image/webp")),
        Kind.RESPONSE_MEDIA, BREAKING, SERVED, "downloadPicture", "image/webp",
    ),
    "deprecated": (
        in_node("listThings", deprecated=True), Kind.NEWLY_DEPRECATED, LOOK, EXPOSED, "listThings", "its end",
    ),
    "new required field": (
        own_schema("createThing", "name", "owner", owner={"type": "string"}),
        Kind.NEW_REQUIRED_FIELD, BREAKING, EXPOSED, "createThing", "`body owner`",
    ),
    "optional field now required": (
        own_schema("createThing", "name", "purpose"),
        Kind.NEW_REQUIRED_FIELD, BREAKING, EXPOSED, "createThing", "`body purpose`",
    ),
    "new required parameter": (
        in_node("retrieveThing", parameters=order("asc", required=True)),
        Kind.NEW_REQUIRED_PARAMETER, BREAKING, EXPOSED, "retrieveThing", "`query order`",
    ),
    "optional parameter now required": (
        in_node("listThings", parameters=order("asc", "desc", required=True)),
        Kind.NEW_REQUIRED_PARAMETER, BREAKING, EXPOSED, "listThings", "`query order`",
    ),
    "narrowed enum of a field": (
        own_schema("createThing", "name", purpose={"type": "string", "enum": ["batch"]}),
        Kind.NARROWED_ENUM, BREAKING, EXPOSED, "createThing", "no longer allows `evals`, `vision`",
    ),
    "narrowed enum of a parameter": (
        in_node("listThings", parameters=order("asc")),
        Kind.NARROWED_ENUM, BREAKING, EXPOSED, "listThings", "no longer allows `desc`",
    ),
    "widened enum": (
        in_node("listThings", parameters=order("asc", "desc", "none")),
        Kind.WIDENED_ENUM, LOOK, EXPOSED, "listThings", "also allows `none`",
    ),
    "enum opened": (
        own_schema("createThing", "name", purpose={"type": "string"}),
        Kind.WIDENED_ENUM, LOOK, EXPOSED, "createThing", "any other value",
    ),
    "no longer required": (
        own_schema("createThing"), Kind.NO_LONGER_REQUIRED, LOOK, EXPOSED, "createThing", "`body name`",
    ),
    "required by a variant": (
        own_schema("beta_createThing", "name", "agent"),
        Kind.NEW_REQUIRED_FIELD, BREAKING, EXPOSED, "beta_createThing", "`body agent`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_change_is_reported_once_and_rightly(root: Path, name: str) -> None:
    """One edit gives one change with its kind, level, weight, operation and what is different."""
    edit, kind, level, weight, operation_id, words = SEEDED[name]
    found = after(root, edit)
    change = only(found)
    assert (change.kind, change.level, change.weight, change.operation.id) == (kind, level, weight, operation_id)
    assert words in change.detail
    assert found.exit_code == level


def test_changes_of_different_operations_are_all_reported_weightiest_first(root: Path) -> None:
    """Together they are as many as the edits, and what breaks exposed operations stands on top."""
    names = ("renamed", "removed, refused", "narrowed enum of a field", "response media removed", "new operation")
    found = after(root, *(SEEDED[name][0] for name in names))
    assert [(c.level, c.weight) for c in found.changes] == [
        (BREAKING, EXPOSED),
        (BREAKING, SERVED),
        (LOOK, EXPOSED),
        (LOOK, Weight.UNCLASSIFIED),
        (LOOK, REFUSED),
    ]
    assert found.exit_code == 2


def test_a_body_that_becomes_required_is_reported(root: Path) -> None:
    """A contract that allows no body while upstream asks for one lets through what upstream refuses."""
    full = root / "spec" / "openapi.full.yaml"
    source = json.loads(full.read_text(encoding="utf-8"))
    node_of(source, "createPicture")["requestBody"]["required"] = False
    full.write_text(json.dumps(source), encoding="utf-8")
    change = only(after(root))
    assert (change.kind, change.operation.id) == (Kind.NEW_REQUIRED_BODY, "createPicture")


def test_an_operation_that_is_kept_after_all_is_reported(root: Path) -> None:
    """A deprecation that is in the lock and no longer in the document is a change to look at."""
    lock = root / "spec" / "upstream.lock.tsv"
    text = lock.read_text(encoding="utf-8")
    pinned = "POST\t/v1/pictures\tcreatePicture\tapplication/json,multipart/form-data\tapplication/json\t"
    lock.write_text(text.replace(f"{pinned}-", f"{pinned}deprecated"), encoding="utf-8")
    assert only(after(root)).kind is Kind.NO_LONGER_DEPRECATED


def test_a_refused_operation_may_ask_for_what_it_likes(root: Path) -> None:
    """Requests of unsupported operations are not compared: none is ever sent."""
    edits = (in_node("list-users", parameters=order("asc", required=True)), own_schema("create-user", "name", "owner"))
    assert after(root, *edits).changes == ()


@pytest.mark.parametrize(
    "edit, verdict",
    [
        (add("/others", "get"), "PROXY_HARNESS json_read"),
        (add("/admin/groups", "get"), "EXCLUDED unsupported"),
        (add("/billing", "get", security=[{"AdminApiKeyAuth": []}]), "EXCLUDED unsupported"),
        (add("/others/client_secrets", "post"), "EXCLUDED hidden"),
        (add("/others/{id}/content", "get"), "EXCLUDED hidden"),
        (add("/others", "get", responses=answer("audio/mpeg")), "EXCLUDED hidden"),
        (add("/others", "post", requestBody=body("text/csv")), "EXCLUDED hidden"),
        (add("/pictures/{picture_id}/content/small", "get"), "EXCLUDED hidden"),
        (add("/others", "post", requestBody=body(MULTIPART)), "WRAPPER_REQUIRED"),
        (add("/others", "post", responses=answer("text/event-stream")), "WRAPPER_REQUIRED"),
        (add("/others:run", "post"), "WRAPPER_REQUIRED"),
        (add("/things/{thing_id}?beta=true", "get"), "PROXY_HARNESS json_read"),
    ],
)
def test_a_new_operation_comes_with_a_suggestion_and_its_reason(root: Path, edit: Edit, verdict: str) -> None:
    """Media types, path and neighbours give a bucket by GOVERNANCE's rules; the reason is a sentence."""
    before = (root / "spec" / "openapi.full.yaml").read_bytes()
    suggestion = only(after(root, edit)).suggestion
    assert suggestion is not None
    assert suggestion.verdict == verdict
    assert suggestion.reason.endswith(".")
    assert (root / "spec" / "openapi.full.yaml").read_bytes() == before


def test_known_looseness_is_not_reported_until_it_ends(root: Path) -> None:
    """A line hides its own difference and no other; without the difference the line itself is reported."""
    line = "createThing\tnew-required-field\tbody owner\t-\tThe relay's clients have none.\n"
    (root / LOOSER).write_text(HEAD + line, encoding="utf-8")
    assert after(root, own_schema("createThing", "name", "owner")).changes == ()
    assert only(after(root, own_schema("createThing", "name", "owner", "purpose"))).detail == "`body purpose`"
    assert only(after(root)).kind is Kind.LOOSENESS_ENDED


@pytest.mark.parametrize(
    "lines, word",
    [
        ("operationId\tkind\n", "must hold operationId"),
        (f"{HEAD}createThing\tnew-required-field\tbody owner\t-\n", "5 cells"),
        (f"{HEAD}createThing\tnew-required-field\tbody owner\t-\t \n", "a reason"),
        (f"{HEAD}createThing\twidened-enum\tbody owner\t-\tBecause.\n", "the kind must be"),
        (f"{HEAD}unheardOf\tnew-required-field\tbody owner\t-\tBecause.\n", "`unheardOf`"),
        (HEAD + "createThing\tnew-required-field\tbody owner\t-\tBecause.\n" * 2, "twice"),
    ],
)
def test_a_bad_line_of_known_looseness_stops_all(root: Path, lines: str, word: str) -> None:
    """A list of exceptions with a mistake hides nothing."""
    (root / LOOSER).write_text(lines, encoding="utf-8")
    with pytest.raises(InvalidContract, match=word):
        after(root)


def test_the_shipped_list_of_known_looseness_holds() -> None:
    """Its lines name operations of the contract that are served, each with a reason."""
    contract = read_contract(ROOT)
    known = read_looseness(ROOT, contract)
    assert known
    assert all(contract.operations[entry.operation_id].served for entry in known)


def test_both_reports_name_what_matters(root: Path) -> None:
    """Markdown and JSON hold operation, bucket, change, suggestion and next step."""
    found = after(root, SEEDED["new operation"][0], SEEDED["narrowed enum of a field"][0])
    markdown = found.to_markdown()
    assert markdown.index("## Breaks a served operation (1)") < markdown.index("## To look at (1)")
    for word in ("`POST /v1/things` `createThing`", "ACTIONS_DIRECT", "Suggested: `PROXY_HARNESS json_read`"):
        assert word in markdown
    breaking, new = json.loads(found.to_json())["changes"]
    assert (breaking["kind"], breaking["level"], breaking["concerns"]) == ("narrowed-enum", "breaking", "exposed")
    assert (breaking["bucket"], breaking["suggestion"]) == ("ACTIONS_DIRECT", None)
    assert new["suggestion"]["bucket"] == "PROXY_HARNESS json_read"
    assert new["next_step"]


def test_upstream_texts_stay_in_their_cell(root: Path) -> None:
    """Names from upstream cannot break out of the table or of their code marks."""
    found = after(root, in_node("retrieveThing", operationId="get`|\n<b>Thing"))
    rows = [line for line in found.to_markdown().splitlines() if "<b>" in line]
    assert len(rows) == 1
    assert rows[0].count("|") == 6
    assert "`get???<b>Thing`" in rows[0]
