from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from codegen.contract import (
    Bucket,
    Exclusion,
    Scope,
    load_contract,
    read_contract,
)
from codegen.exceptions import UnreadableDocument
from codegen.publication import published_document
from tests.support.documents import ROOT, build, document, operation, single


def response(*media_types: str) -> dict[str, Any]:
    """Responses with one success of these media types."""
    return {
        "200": {"description": "It.", "content": {name: {} for name in media_types}},
        "default": {"description": "No."},
    }


def test_an_operation_says_everything_that_stands_in_the_document() -> None:
    """Identity, policy, prose and lifecycle of an operation are read as written."""
    built = single({"deprecated": True, "x-sunset": "2026-11-30"}, "/v1/things/{thing_id}", "delete")
    assert (built.id, built.method, built.path, built.tag) == (
        "retrieveThing",
        "DELETE",
        "/v1/things/{thing_id}",
        "Things",
    )
    assert (built.bucket, built.review, built.exclusion) == (Bucket.PROXY_HARNESS, "json_read", None)
    assert (built.summary, built.deprecated, built.sunset) == ("Fetch a thing.", True, "2026-11-30")
    assert built.mirrored


def test_only_tags_that_say_so_are_mirrored() -> None:
    """An operation counts as the upstream's only if its tag is marked."""
    (built,) = build(document(tags=[{"name": "Things"}]))
    assert not built.mirrored


def test_operations_come_in_the_order_of_the_document() -> None:
    """The model keeps the document's order of paths and methods."""
    paths = {
        "/z": {"post": operation("zPost"), "get": operation("zGet")},
        "/a": {"get": operation("aGet")},
    }
    assert [built.id for built in build(document(paths))] == ["zPost", "zGet", "aGet"]


def test_scopes_are_those_of_the_document_unless_the_operation_has_its_own() -> None:
    """The operation's `security` wins over the document's, and an empty list opens the operation to everybody."""
    own = [{"relayBearer": ["actions"]}, {"relayKey": ["actions"]}, {"relayBearer": ["operator"]}]
    assert single({}).scopes == {Scope.CANONICAL}
    assert single({"security": own}).scopes == {Scope.ACTIONS, Scope.OPERATOR}
    opened = single({"security": []})
    assert opened.scopes == frozenset()
    assert opened.open
    assert not single({}).open


def test_parameters_of_path_and_operation_come_together_resolved() -> None:
    """Path-level and own parameters are one list, references followed, and can be asked for by location."""
    item = {
        "parameters": [{"$ref": "#/components/parameters/thing_id"}],
        "get": operation(
            changes={
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer"}},
                    {"name": "X-Kind", "in": "header", "schema": {"type": "string"}},
                ]
            }
        ),
    }
    shared = {"thing_id": {"name": "thing_id", "in": "path", "required": True, "schema": {"type": "string"}}}
    (built,) = build(document({"/v1/things/{thing_id}": item}, components={"parameters": shared}))
    assert [(p.name, p.location, p.required) for p in built.parameters] == [
        ("thing_id", "path", True),
        ("limit", "query", False),
        ("X-Kind", "header", False),
    ]
    assert [p.name for p in built.parameters_in("query")] == ["limit"]


def test_a_body_leads_to_its_schema_and_examples() -> None:
    """Each media type of a body carries a pointer to its schema, inline or through a reference, and its examples."""
    media = {
        "application/json": {
            "schema": {"type": "object"},
            "examples": {"small": {"$ref": "#/components/examples/small"}},
        },
        "multipart/form-data": {},
    }
    components = {
        "requestBodies": {"Thing": {"required": True, "content": media}},
        "examples": {"small": {"value": {"a": 1}}},
    }
    shared = operation("createThing", {"requestBody": {"$ref": "#/components/requestBodies/Thing"}})
    inline = operation(
        "updateThing", {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
    )
    built = build(document({"/v1/things": {"post": shared, "patch": inline}}, components=components)).operations
    created, updated = built["createThing"].body, built["updateThing"].body
    assert created is not None
    assert updated is not None
    assert (created.required, updated.required) == (True, False)
    as_json = created.content["application/json"]
    assert as_json.pointer == "#/components/requestBodies/Thing/content/application~1json/schema"
    assert as_json.examples == {"small": {"a": 1}}
    assert created.content["multipart/form-data"].pointer is None
    assert updated.content["application/json"].pointer == (
        "#/paths/~1v1~1things/patch/requestBody/content/application~1json/schema"
    )
    assert built["createThing"].request_media == {"application/json", "multipart/form-data"}


@pytest.mark.parametrize(
    "media_types, streaming, streaming_only, binary, json_only",
    [
        (["application/json"], False, False, False, True),
        ([], False, False, False, True),
        (["application/json", "text/event-stream"], True, False, False, False),
        (["text/event-stream"], True, True, False, False),
        (["application/octet-stream"], False, False, True, False),
        (["application/json", "video/mp4"], False, False, True, False),
        (["text/plain"], False, False, False, False),
        (["application/sdp"], False, False, False, False),
    ],
)
def test_traits_of_a_reply_follow_from_its_media_types(
    media_types: list[str], streaming: bool, streaming_only: bool, binary: bool, json_only: bool
) -> None:
    """Streaming, binary and JSON-only are computed from the successful replies; nobody writes them down."""
    built = single({"responses": response(*media_types)})
    assert (built.streaming, built.streaming_only, built.binary, built.json_only) == (
        streaming,
        streaming_only,
        binary,
        json_only,
    )


def test_traits_of_a_request_follow_from_its_media_types_and_path() -> None:
    """Multipart, colon path and content path are computed from the operation itself."""
    form = single({"requestBody": {"content": {"multipart/form-data": {}, "application/json": {}}}}, method="post")
    assert form.multipart
    assert not form.json_only
    assert not single({}).multipart
    assert single({}, "/v1/things:stream").colon_path
    assert not single({}, "/v1/things/{thing_id}").colon_path
    assert single({}, "/v1/things/{thing_id}/content").content_path
    assert not single({}, "/v1/content/{thing_id}").content_path


def test_the_success_is_the_first_reply_of_the_200s() -> None:
    """Errors and the default never count as success; an operation without one says so."""
    both = {"404": {"description": "No."}, "201": {"description": "Made.", "content": {"text/plain": {}}}}
    assert single({"responses": both}).success[0] == "201"
    assert list(single({"responses": both}).success[1]) == ["text/plain"]
    assert single({"responses": {"default": {"description": "No."}}}).success == ("", {})


@pytest.mark.parametrize(
    "exclusion, served, published",
    [
        (Exclusion.UNSUPPORTED, False, True),
        (Exclusion.HIDDEN, True, True),
        (Exclusion.INTERNAL, True, False),
    ],
)
def test_the_exclusion_decides_who_is_served_and_what_is_published(
    exclusion: Exclusion, served: bool, published: bool
) -> None:
    """Unsupported operations serve nobody, internal ones stand in no published document, hidden ones do both."""
    built = single(
        {
            "x-policy-bucket": "EXCLUDED",
            "x-policy-reason": "Not for this.",
            "x-policy-exclusion": str(exclusion),
            "x-policy-review": None,
        }
    )
    assert (built.served, built.published) == (served, published)


def test_the_published_document_leaves_internal_operations_and_their_tags_out() -> None:
    """The public sees no internal operation, nor a path or tag that only it has; the source stays as it is."""
    internal = {
        "x-policy-bucket": "EXCLUDED",
        "x-policy-reason": "For operators.",
        "x-policy-exclusion": "internal",
        "x-policy-review": None,
        "tags": ["Inside"],
    }
    source = document(
        {
            "/v1/things": {"get": operation(), "post": operation("restartThing", internal)},
            "/inside": {"parameters": [], "get": operation("lookInside", internal)},
        },
        tags=[{"name": "Things", "x-policy-mirrored": True}, {"name": "Inside"}],
    )
    before = deepcopy(source)
    published = published_document(build(source))
    assert published["paths"] == {"/v1/things": {"get": source["paths"]["/v1/things"]["get"]}}
    assert [tag["name"] for tag in published["tags"]] == ["Things"]
    assert source == before


def test_the_checkout_and_its_generated_form_are_the_same_contract() -> None:
    """The runtime loads exactly what the maintainers wrote."""
    for name in ("openapi.full", "openapi.actions"):
        written, generated = read_contract(ROOT, name), load_contract(ROOT / "spec" / "generated", name)
        assert written.document == generated.document
        assert dict(written.operations) == dict(generated.operations)


def test_version_and_tags_are_the_documents() -> None:
    """The contract's version is `info.version`, and the tags are its table of contents."""
    built = build(document())
    assert (built.version, built.tags) == ("1.2.3", ("Things",))


def test_a_missing_document_is_reported_with_its_path(tmp_path: Path) -> None:
    """Outside a checkout the reader says which file it missed."""
    with pytest.raises(UnreadableDocument, match=r"policy\.schema\.yaml"):
        read_contract(tmp_path)
    with pytest.raises(UnreadableDocument, match=r"openapi\.full\.json"):
        load_contract(tmp_path)
