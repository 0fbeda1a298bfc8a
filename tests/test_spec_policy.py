"""
Holds both documents against the rules of the policy (`codegen.rules`), and shows that each rule can fail.

Not for: single fields (`test_spec_policy_fields`), the upstream's inventory (`test_spec_inventory`), the importers'
rules (`codegen/test_lint`) or the order of the file (`test_spec_layout`). Opens no sockets.
"""

from collections.abc import Callable
from typing import Any

import pytest

from codegen import rules
from codegen.contract import ACTIONS, Bucket, Contract, Exclusion, read_contract
from codegen.naming import importer_name
from codegen.reader import Document
from codegen.rules import RULES, Rule
from tests.support.documents import ROOT, decide, edited, first, node_of

FULL_CONTRACT = read_contract(ROOT)
ACTIONS_CONTRACT = read_contract(ROOT, ACTIONS)
DIRECT = next(o.id for o in FULL_CONTRACT if o.bucket is Bucket.ACTIONS_DIRECT and o.mirrored)
DASHED = next(o.id for o in FULL_CONTRACT if o.bucket is Bucket.ACTIONS_DIRECT and importer_name(o.id) != o.id)
HARNESS = first(FULL_CONTRACT, Bucket.PROXY_HARNESS)
WRAPPED = first(FULL_CONTRACT, Bucket.WRAPPER_REQUIRED)
UNSUPPORTED = first(FULL_CONTRACT, Bucket.EXCLUDED, Exclusion.UNSUPPORTED)
INTERNAL = first(FULL_CONTRACT, Bucket.EXCLUDED, Exclusion.INTERNAL)

Change = Callable[[Document], object]
FILE: dict[str, Any] = {"content": {"multipart/form-data": {}}}


def wrap(document: Document, *, wrapper: str = DIRECT, wraps: str = WRAPPED, own: bool = True) -> None:
    """Link an operation with a wrapper of the relay's own."""
    node_of(document, WRAPPED)["x-policy-wrapper"] = wrapper
    node = node_of(document, DIRECT)
    node["x-policy-wraps"] = [wraps]
    if own:
        node["tags"] = ["Relay"]


BROKEN: dict[str, tuple[Rule, Change, str]] = {
    "direct: not in the Actions document": (
        rules.actions_match,
        lambda d: decide(d, HARNESS, bucket="ACTIONS_DIRECT"),
        HARNESS,
    ),
    "direct: in the Actions document alone": (
        rules.actions_match,
        lambda d: decide(d, DIRECT, bucket="PROXY_HARNESS", review="json_read"),
        DIRECT,
    ),
    "direct: another path": (
        rules.actions_match,
        lambda d: d["paths"].update({"/v1/answers": d["paths"].pop(FULL_CONTRACT.operations[DIRECT].path)}),
        DIRECT,
    ),
    "carrier: open to fewer": (
        rules.carrier_as_carried,
        lambda d: node_of(d, "sendMcpMessage").update(security=[{"relayBearer": ["actions"]}]),
        "sendMcpMessage",
    ),
    "carrier: tokens open something else": (
        rules.carrier_as_carried,
        lambda d: node_of(d, "startResponse").update(security=[{"relayToken": ["actions"]}]),
        "startResponse",
    ),
    "direct: not open to assistants": (rules.actions_scope, lambda d: node_of(d, DIRECT).pop("security"), DIRECT),
    "direct: something else open to assistants": (
        rules.actions_scope,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["actions"]}]),
        HARNESS,
    ),
    "direct: the proxy open to assistants": (
        rules.actions_scope,
        lambda d: node_of(d, "forwardRequest").update(
            security=[{"relayBearer": ["proxy"]}, {"relayBearer": ["actions"]}]
        ),
        "forwardRequest",
    ),
    "proxy: opens what is upstream's": (
        rules.proxy_alone,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["proxy"]}]),
        HARNESS,
    ),
    "proxy: opens a second operation": (
        rules.proxy_alone,
        lambda d: node_of(d, "startResponse").update(security=[{"relayBearer": ["proxy"]}]),
        "startResponse",
    ),
    "canonical: taken from SDK clients": (
        rules.canonical_kept,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["proxy"]}]),
        HARNESS,
    ),
    "harness: multipart": (
        rules.proxy_json_only,
        lambda d: decide(d, "createFile", bucket="PROXY_HARNESS", review="json_write"),
        "createFile",
    ),
    "harness: a custom verb": (
        rules.proxy_json_only,
        lambda d: decide(d, "createResponseStream", bucket="PROXY_HARNESS", review="json_generate"),
        "createResponseStream",
    ),
    "harness: JSON under /content": (
        rules.proxy_json_only,
        lambda d: decide(d, "retrieveVectorStoreFileContent", bucket="PROXY_HARNESS", review="json_read"),
        "retrieveVectorStoreFileContent",
    ),
    "harness: binary": (
        rules.proxy_json_only,
        lambda d: decide(d, "createSpeech", bucket="PROXY_HARNESS", review="json_generate"),
        "createSpeech",
    ),
    "harness: a stream without JSON": (
        rules.proxy_json_only,
        lambda d: node_of(d, HARNESS).update(
            responses={"200": {"description": "It.", "content": {"text/event-stream": {}}}}
        ),
        HARNESS,
    ),
    "harness: a body of another type": (
        rules.proxy_json_only,
        lambda d: node_of(d, HARNESS).update(requestBody={"content": {"text/plain": {}}}),
        HARNESS,
    ),
    "internal: in the Actions document": (
        rules.internal_unpublished,
        lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="No.", exclusion="internal"),
        DIRECT,
    ),
    "internal: in the Actions document under the importers' name": (
        rules.internal_unpublished,
        lambda d: decide(d, DASHED, bucket="EXCLUDED", reason="No.", exclusion="internal"),
        DASHED,
    ),
    "wrapped: in the Actions document": (
        rules.wrapper_kept_out,
        lambda d: decide(d, DIRECT, bucket="WRAPPER_REQUIRED", reason="Too long."),
        DIRECT,
    ),
    "wrapped: in the Actions document under the importers' name": (
        rules.wrapper_kept_out,
        lambda d: decide(d, DASHED, bucket="WRAPPER_REQUIRED", reason="Too long."),
        DASHED,
    ),
    "wrapper: that does not exist": (rules.wrapper_links, lambda d: wrap(d, wrapper="nobody"), WRAPPED),
    "wrapper: that does not say so": (
        rules.wrapper_links,
        lambda d: node_of(d, WRAPPED).update({"x-policy-wrapper": "retrieveHealth"}),
        WRAPPED,
    ),
    "wrapper: that wraps another": (rules.wrapper_links, lambda d: wrap(d, wraps="createImage"), DIRECT),
    "wrapper: that wraps nothing known": (rules.wrapper_links, lambda d: wrap(d, wraps="nobody"), DIRECT),
    "wrapper: that takes files": (
        rules.wrapper_links,
        lambda d: node_of(d, DIRECT).update({"x-policy-wraps": [WRAPPED], "requestBody": FILE}),
        DIRECT,
    ),
    "wrapper: of the upstream's own": (rules.wrapper_links, lambda d: wrap(d, own=False), WRAPPED),
    "wrapper: in another place": (
        rules.wrappers_in_place,
        lambda d: d["paths"].update({"/v1/answers": d["paths"].pop("/v1/actions/responses")}),
        "startResponse",
    ),
    "wrapper: that wraps nothing": (
        rules.wrappers_in_place,
        lambda d: node_of(d, "startResponse").pop("x-policy-wraps"),
        "startResponse",
    ),
    "wrapper: whose wrapped operation is silent": (
        rules.wrapper_links,
        lambda d: node_of(d, "retrieveHealth").update({"x-policy-wraps": [WRAPPED]}),
        "retrieveHealth",
    ),
    "internal: open to SDK clients": (
        rules.internal_unpublished,
        lambda d: node_of(d, INTERNAL).pop("security"),
        INTERNAL,
    ),
    "internal: open to everybody": (
        rules.internal_unpublished,
        lambda d: node_of(d, INTERNAL).update(security=[]),
        INTERNAL,
    ),
    "internal: mirrored": (rules.internal_unpublished, lambda d: node_of(d, INTERNAL).update(tags=["Files"]), INTERNAL),
    "operator: opens something else": (
        rules.operator_alone,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["operator"]}]),
        HARNESS,
    ),
    "open: mirrored": (rules.open_reads_only, lambda d: node_of(d, HARNESS).update(security=[]), HARNESS),
    "open: under /v1/": (
        rules.open_reads_only,
        lambda d: node_of(d, "retrieveCanonicalHealth").update(security=[]),
        "retrieveCanonicalHealth",
    ),
    "review: unused": (
        rules.proxy_reviewed,
        lambda d: d["x-policy-reviews"].update({"json_other": d["x-policy-reviews"]["json_read"]}),
        "x-policy-reviews json_other",
    ),
    "review: on a day that does not exist": (
        rules.proxy_reviewed,
        lambda d: d["x-policy-reviews"]["json_read"].update(since="2026-02-30"),
        "x-policy-reviews json_read",
    ),
    "sunset: deprecated without a day": (
        rules.deprecated_with_sunset,
        lambda d: node_of(d, DIRECT).update(deprecated=True),
        DIRECT,
    ),
    "sunset: on a day that does not exist": (
        rules.deprecated_with_sunset,
        lambda d: node_of(d, DIRECT).update({"deprecated": True, "x-sunset": "2027-02-30"}),
        DIRECT,
    ),
    "unsupported: with a summary": (
        rules.unsupported_bare,
        lambda d: node_of(d, UNSUPPORTED).update(summary="List it."),
        UNSUPPORTED,
    ),
}
# Edits of the Actions document.
BROKEN_ACTIONS: dict[str, tuple[Rule, Change, str]] = {
    "direct: another bucket in the Actions document": (
        rules.actions_match,
        lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="No.", exclusion="hidden"),
        DIRECT,
    ),
    "direct: open to others in the Actions document": (
        rules.actions_scope,
        lambda d: node_of(d, DIRECT).update(security=[{"relayBearer": ["canonical"]}]),
        DIRECT,
    ),
    "direct: under a name that importers do not take": (
        rules.actions_match,
        lambda d: node_of(d, importer_name(DASHED)).update(operationId=DASHED),
        DASHED,
    ),
    "proxy: open to assistants in the Actions document": (
        rules.proxy_alone,
        lambda d: node_of(d, "forwardRequest").update(
            security=[{"relayBearer": ["proxy"]}, {"relayBearer": ["actions"]}]
        ),
        "forwardRequest",
    ),
    "operator: opens an Actions operation": (
        rules.operator_alone,
        lambda d: node_of(d, DIRECT).update(security=[{"relayBearer": ["operator"]}]),
        DIRECT,
    ),
    "version: another": (rules.one_version, lambda d: d["info"].update(version="0.0.1"), "info version"),
}


def subject(contract: Contract, culprit: str) -> str:
    """How findings name an operation, given by its id, or another part of the document."""
    operation = contract.operations.get(culprit)
    return f"{operation.method} {operation.path}" if operation else culprit


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_contract_obeys(rule: Rule) -> None:
    """No operation of the contract breaks the rule that the function's docstring states."""
    assert list(rule(FULL_CONTRACT, ACTIONS_CONTRACT)) == []


@pytest.mark.parametrize("rule, change, culprit", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_is_found(rule: Rule, change: Change, culprit: str) -> None:
    """The rule names what breaks it in an edited copy, under its own name."""
    broken = edited(FULL_CONTRACT, change)
    findings = list(rule(broken, ACTIONS_CONTRACT))
    assert subject(broken, culprit) in {finding.subject for finding in findings}
    assert {finding.rule for finding in findings} == {rule.__name__.replace("_", "-")}


@pytest.mark.parametrize("rule, change, culprit", BROKEN_ACTIONS.values(), ids=BROKEN_ACTIONS.keys())
def test_a_rule_broken_by_the_actions_document_is_found(rule: Rule, change: Change, culprit: str) -> None:
    """The rule names what breaks it in an edited copy of the Actions document."""
    broken = edited(ACTIONS_CONTRACT, change)
    assert (subject(broken, culprit), "spec/openapi.actions.yaml") in {
        (finding.subject, finding.file) for finding in rule(FULL_CONTRACT, broken)
    }


def test_every_rule_is_shown_to_fail() -> None:
    """No rule is without a case that breaks it."""
    assert {rule for rule, _, _ in (*BROKEN.values(), *BROKEN_ACTIONS.values())} == set(RULES)
