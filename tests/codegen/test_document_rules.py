"""Rules of one document hold on plain data, also where the typed model cannot be built. Opens no sockets."""

from collections.abc import Callable

import pytest

from codegen.check import check_document
from codegen.contract import FULL
from codegen.document_rules import (
    LOAD_RULES,
    DocumentRule,
    document_loads,
    named_reviews,
    no_wildcard,
    policy_fields,
    policy_fields_in_place,
    unique_operation_ids,
)
from codegen.reader import Document
from tests.support.documents import POLICY_SCHEMA, document, operation

LOST = {"$ref": "#/components/schemas/Lost"}
BROKEN: dict[str, tuple[DocumentRule, Document, str]] = {
    "loads: no paths": (document_loads, {"info": {"version": "1.0.0"}, "tags": [], "components": {}}, "paths"),
    "loads: no version": (document_loads, document(info={}), "info version"),
    "loads: a tag without a name": (document_loads, document(tags=[{"description": "It."}]), "tags"),
    "loads: a path item that is a list": (document_loads, document({"/v1/things": []}), "/v1/things"),
    "loads: a path that is a number": (document_loads, {"paths": {5: {}}}, "5"),
    "loads: an operation that is text": (document_loads, document({"/v1/things": {"get": "x"}}), "GET /v1/things"),
    "loads: a lost reference of an operation": (
        document_loads,
        document({"/v1/things": {"get": operation(changes={"requestBody": LOST})}}),
        "GET /v1/things",
    ),
    "loads: a lost reference of a path": (
        document_loads,
        document({"/v1/things": {"parameters": [LOST], "get": operation()}}),
        "/v1/things",
    ),
    "loads: a lost reference of a component": (
        document_loads,
        document(components={"schemas": {"Thing": {"properties": {"a": LOST}}}}),
        "schemas Thing",
    ),
    "loads: a status code that is a number": (
        document_loads,
        document({"/v1/things": {"get": operation(changes={"responses": {200: {"description": "It."}}})}}),
        "GET /v1/things",
    ),
    "fields: one at the top": (
        policy_fields_in_place,
        document() | {"x-policy-default": "EXCLUDED"},
        "x-policy-default",
    ),
    "fields: one of a path": (
        policy_fields_in_place,
        document({"/v1/things": {"x-policy-bucket": "EXCLUDED", "get": operation()}}),
        "/v1/things",
    ),
    "fields: one below an operation": (
        policy_fields_in_place,
        document({"/v1/things": {"get": operation(changes={"parameters": [{"x-policy-bucket": "EXCLUDED"}]})}}),
        "GET /v1/things",
    ),
    "fields: one of a component": (
        policy_fields_in_place,
        document(components={"schemas": {"Thing": {"x-policy-bucket": "EXCLUDED"}}}),
        "schemas Thing",
    ),
    "ids: one twice": (
        unique_operation_ids,
        document({"/v1/things": {"get": operation()}, "/v1/others": {"get": operation()}}),
        "GET /v1/others",
    ),
    "reviews: one that does not exist": (
        named_reviews,
        document({"/v1/things": {"get": operation(changes={"x-policy-review": "mine"})}}),
        "GET /v1/things",
    ),
    "wildcard: two names of one path": (
        no_wildcard,
        document({"/v1/things/{a}": {"get": operation("a")}, "/v1/things/{b}": {"get": operation("b")}}),
        "/v1/things/{b}",
    ),
}
BROKEN |= {
    f"wildcard: {path}": (no_wildcard, document({path: {"get": operation()}}), path)
    for path in (
        "/v1/*",
        "/v1/{path}",
        "/v1/{rest}",
        "/{anything}",
        "/v1/things/{id:path}",
        "/v1/things/{id*}",
        "/v1/things?beta=true",
        "/v1/things#top",
        "v1/things",
    )
}


@pytest.mark.parametrize("rule, broken, culprit", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_is_found(rule: DocumentRule, broken: Document, culprit: str) -> None:
    """The rule names the place that breaks it."""
    assert culprit in {finding.subject for finding in rule(FULL, broken)}


@pytest.mark.parametrize("rule", LOAD_RULES, ids=lambda rule: rule.__name__)
def test_a_sound_document_has_no_finding(rule: DocumentRule) -> None:
    """What is right is not reported, and each rule is shown to fail above."""
    assert list(rule(FULL, document())) == []
    assert rule in {broken_rule for broken_rule, _, _ in BROKEN.values()}


def test_fields_are_explained_by_the_rule_that_owns_them() -> None:
    """A wrong field names itself; without a bucket nothing else is said about the fields that depend on it."""
    wrong = operation(changes={"x-policy-bucket": "WRAPPER_REQUIRED", "x-stainless": 1})
    findings = policy_fields(FULL, document({"/v1/things": {"get": wrong}}), POLICY_SCHEMA)
    assert {(finding.rule, finding.problem) for finding in findings} == {
        ("reason-given", "`x-policy-reason` must be given"),
        ("proxy-reviewed", "`x-policy-review` must not stand here"),
        ("closed-vocabulary", "`x-stainless` must not stand here"),
    }
    nothing = operation(changes={"x-policy-bucket": None})
    (finding,) = policy_fields(FULL, document({"/v1/things": {"get": nothing}}), POLICY_SCHEMA)
    assert (finding.rule, finding.problem) == ("bucket-total", "`x-policy-bucket` must be given")


STRANGE: dict[str, Callable[[], Document]] = {
    "nothing": dict,
    "paths are a list": lambda: document() | {"paths": []},
    "tags are a mapping": lambda: document(tags={}),
    "a tag is text": lambda: document(tags=["Things"]),
    "tags of an operation are a number": lambda: document({"/v1/things": {"get": operation(changes={"tags": 5})}}),
    "components are text": lambda: document(components="none"),
    "reviews are a list": lambda: document() | {"x-policy-reviews": []},
    "a key is a number": lambda: document({"/v1/things": {"get": {**operation(), 5: 6}}}),
    "a bucket is a mapping": lambda: document({"/v1/things": {"get": operation(changes={"x-policy-bucket": {}})}}),
    "no responses": lambda: document({"/v1/things": {"get": operation(changes={"responses": None})}}),
    "an unknown scope": lambda: document(security=[{"relayBearer": ["everything"]}]),
    "no info": lambda: document(info=None),
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE.keys())
def test_a_document_of_any_shape_gives_findings(strange: Callable[[], Document]) -> None:
    """Whatever is written, the answer is findings or a model, never an exception and never neither."""
    findings, contract = check_document(FULL, strange(), POLICY_SCHEMA)
    assert findings or contract
