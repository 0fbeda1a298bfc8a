"""
Holds both documents against the rules of the policy (design, section 3), and shows that each rule can fail.

Not for: single fields (`test_spec_policy_fields`), the upstream's inventory (`test_spec_inventory`), the importer's
rules (`test_actions_document`) or the order of the file (`test_spec_layout`). Opens no sockets.
"""

from collections.abc import Callable
from datetime import date

import pytest

from codegen.contract import ACTIONS, Bucket, Contract, Exclusion, Scope, read_contract
from codegen.publication import published_document
from codegen.reader import Document
from tests.support.documents import ROOT, decide, edited, first, node_of, nodes

FULL_CONTRACT = read_contract(ROOT)
ACTIONS_CONTRACT = read_contract(ROOT, ACTIONS)
DIRECT = first(FULL_CONTRACT, Bucket.ACTIONS_DIRECT)
HARNESS = first(FULL_CONTRACT, Bucket.PROXY_HARNESS)
WRAPPED = first(FULL_CONTRACT, Bucket.WRAPPER_REQUIRED)
UNSUPPORTED = first(FULL_CONTRACT, Bucket.EXCLUDED, Exclusion.UNSUPPORTED)
INTERNAL = first(FULL_CONTRACT, Bucket.EXCLUDED, Exclusion.INTERNAL)

Change = Callable[[Document], object]
Rule = Callable[[Contract], list[str]]


def direct_rule(contract: Contract) -> list[str]:
    """ACTIONS_DIRECT operations and those of the Actions document are the same, with the same method and path."""
    ours = {o.id: (o.method, o.path) for o in contract if o.bucket is Bucket.ACTIONS_DIRECT}
    theirs = {o.id: (o.method, o.path) for o in ACTIONS_CONTRACT}
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def direct_scope_rule(contract: Contract) -> list[str]:
    """The scope `actions` opens exactly the ACTIONS_DIRECT operations, in both documents."""
    wrong = [o.id for o in contract if (Scope.ACTIONS in o.scopes) is not (o.bucket is Bucket.ACTIONS_DIRECT)]
    return wrong + [
        o.id for o in ACTIONS_CONTRACT if o.scopes != {Scope.ACTIONS} or o.bucket is not Bucket.ACTIONS_DIRECT
    ]


def canonical_rule(contract: Contract) -> list[str]:
    """Every mirrored operation, whatever its bucket, opens to the scope `canonical`: none is lost to the SDK."""
    return [o.id for o in contract if o.mirrored and Scope.CANONICAL not in o.scopes]


def harness_rule(contract: Contract) -> list[str]:
    """PROXY_HARNESS operations carry no multipart, no custom verb, no content, no binary and no stream without JSON."""
    return [
        o.id
        for o in contract
        if o.bucket is Bucket.PROXY_HARNESS
        and (o.multipart or o.colon_path or o.content_path or o.binary or o.streaming_only)
    ]


def wrapped_rule(contract: Contract) -> list[str]:
    """WRAPPER_REQUIRED operations stand in no Actions document and carry no review that would let the proxy in."""
    required = [o for o in contract if o.bucket is Bucket.WRAPPER_REQUIRED]
    return [o.id for o in required if o.id in ACTIONS_CONTRACT.operations or o.review]


def wrapper_rule(contract: Contract) -> list[str]:
    """A wrapper names what it wraps and the wrapped operation names its wrapper; both exist and agree."""
    wrong = []
    for operation in contract:
        if operation.wrapper:
            wrapper = contract.operations.get(operation.wrapper)
            if wrapper is None or operation.id not in wrapper.wraps or wrapper.mirrored:
                wrong.append(operation.id)
        for name in operation.wraps:
            wrapped = contract.operations.get(name)
            if wrapped is None or wrapped.wrapper != operation.id:
                wrong.append(operation.id)
    return wrong


def internal_rule(contract: Contract) -> list[str]:
    """Internal operations need the scope `operator`, stand under no mirrored path and in no published document."""
    published = {node["operationId"] for _, node in nodes(published_document(contract))}
    return [
        o.id
        for o in contract
        if not o.published
        and (o.id in published or o.scopes != {Scope.OPERATOR} or o.mirrored or o.id in ACTIONS_CONTRACT.operations)
    ]


def operator_rule(contract: Contract) -> list[str]:
    """The scope `operator` opens internal operations and nothing else."""
    return [o.id for o in contract if Scope.OPERATOR in o.scopes and o.published]


def open_rule(contract: Contract) -> list[str]:
    """An operation that needs no key is the relay's own, only reads, and lies outside the canonical surface."""
    return [o.id for o in contract if o.open and (o.mirrored or o.method != "GET" or o.path.startswith("/v1/"))]


def review_rule(contract: Contract) -> list[str]:
    """Every record of a review is used by some operation."""
    return sorted(set(contract.reviews) - {operation.review for operation in contract})


def sunset_rule(contract: Contract) -> list[str]:
    """A deprecated operation says when it ends, and the day exists."""
    wrong = []
    for operation in contract:
        try:
            if operation.deprecated != bool(operation.sunset and date.fromisoformat(operation.sunset)):
                wrong.append(operation.id)
        except ValueError:
            wrong.append(operation.id)
    return wrong


def review_day_rule(contract: Contract) -> list[str]:
    """The day of a review exists."""
    wrong = []
    for review in contract.reviews.values():
        try:
            date.fromisoformat(review.since)
        except ValueError:
            wrong.append(review.name)
    return wrong


def spare_rule(contract: Contract) -> list[str]:
    """Unsupported operations stay short: no summary, no body, no parameters of their own."""
    return [o.id for o in contract if not o.served and (o.body or o.parameters_in("query") or o.summary)]


def wrap(document: Document, *, wrapper: str = DIRECT, wraps: str = WRAPPED, own: bool = True) -> None:
    """Link an operation with a wrapper of the relay's own."""
    node_of(document, WRAPPED)["x-policy-wrapper"] = wrapper
    node = node_of(document, DIRECT)
    node["x-policy-wraps"] = [wraps]
    if own:
        node["tags"] = ["Relay"]


BROKEN: dict[str, tuple[Rule, Change, str]] = {
    "direct: not in the Actions document": (
        direct_rule,
        lambda d: decide(d, HARNESS, bucket="ACTIONS_DIRECT"),
        HARNESS,
    ),
    "direct: in the Actions document alone": (
        direct_rule,
        lambda d: decide(d, DIRECT, bucket="PROXY_HARNESS", review="json_read"),
        DIRECT,
    ),
    "direct: another path": (
        direct_rule,
        lambda d: d["paths"].update({"/v1/answers": d["paths"].pop(FULL_CONTRACT.operations[DIRECT].path)}),
        DIRECT,
    ),
    "direct: not open to assistants": (direct_scope_rule, lambda d: node_of(d, DIRECT).pop("security"), DIRECT),
    "direct: something else open to assistants": (
        direct_scope_rule,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["actions"]}]),
        HARNESS,
    ),
    "canonical: taken from SDK clients": (
        canonical_rule,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["proxy"]}]),
        HARNESS,
    ),
    "harness: multipart": (
        harness_rule,
        lambda d: decide(d, "createFile", bucket="PROXY_HARNESS", review="json_write"),
        "createFile",
    ),
    "harness: a custom verb": (
        harness_rule,
        lambda d: decide(d, "createResponseStream", bucket="PROXY_HARNESS", review="json_generate"),
        "createResponseStream",
    ),
    "harness: JSON under /content": (
        harness_rule,
        lambda d: decide(d, "retrieveVectorStoreFileContent", bucket="PROXY_HARNESS", review="json_read"),
        "retrieveVectorStoreFileContent",
    ),
    "harness: binary": (
        harness_rule,
        lambda d: decide(d, "createSpeech", bucket="PROXY_HARNESS", review="json_generate"),
        "createSpeech",
    ),
    "harness: a stream without JSON": (
        harness_rule,
        lambda d: node_of(d, HARNESS).update(
            responses={"200": {"description": "It.", "content": {"text/event-stream": {}}}}
        ),
        HARNESS,
    ),
    "wrapped: in the Actions document": (
        wrapped_rule,
        lambda d: decide(d, DIRECT, bucket="WRAPPER_REQUIRED", reason="Too long."),
        DIRECT,
    ),
    "wrapper: that does not exist": (wrapper_rule, lambda d: wrap(d, wrapper="nobody"), WRAPPED),
    "wrapper: that does not say so": (
        wrapper_rule,
        lambda d: node_of(d, WRAPPED).update({"x-policy-wrapper": "retrieveHealth"}),
        WRAPPED,
    ),
    "wrapper: that wraps another": (wrapper_rule, lambda d: wrap(d, wraps="createImage"), DIRECT),
    "wrapper: that wraps nothing known": (wrapper_rule, lambda d: wrap(d, wraps="nobody"), DIRECT),
    "wrapper: of the upstream's own": (wrapper_rule, lambda d: wrap(d, own=False), WRAPPED),
    "wrapper: whose wrapped operation is silent": (
        wrapper_rule,
        lambda d: node_of(d, "retrieveHealth").update({"x-policy-wraps": [WRAPPED]}),
        "retrieveHealth",
    ),
    "internal: open to SDK clients": (internal_rule, lambda d: node_of(d, INTERNAL).pop("security"), INTERNAL),
    "internal: open to everybody": (internal_rule, lambda d: node_of(d, INTERNAL).update(security=[]), INTERNAL),
    "internal: mirrored": (internal_rule, lambda d: node_of(d, INTERNAL).update(tags=["Files"]), INTERNAL),
    "operator: opens something else": (
        operator_rule,
        lambda d: node_of(d, HARNESS).update(security=[{"relayBearer": ["operator"]}]),
        HARNESS,
    ),
    "open: mirrored": (open_rule, lambda d: node_of(d, HARNESS).update(security=[]), HARNESS),
    "open: under /v1/": (
        open_rule,
        lambda d: node_of(d, "retrieveCanonicalHealth").update(security=[]),
        "retrieveCanonicalHealth",
    ),
    "review: unused": (
        review_rule,
        lambda d: d["x-policy-reviews"].update({"json_other": d["x-policy-reviews"]["json_read"]}),
        "json_other",
    ),
    "review: on a day that does not exist": (
        review_day_rule,
        lambda d: d["x-policy-reviews"]["json_read"].update(since="2026-02-30"),
        "json_read",
    ),
    "sunset: deprecated without a day": (sunset_rule, lambda d: node_of(d, DIRECT).update(deprecated=True), DIRECT),
    "sunset: on a day that does not exist": (
        sunset_rule,
        lambda d: node_of(d, DIRECT).update({"deprecated": True, "x-sunset": "2027-02-30"}),
        DIRECT,
    ),
    "unsupported: with a summary": (
        spare_rule,
        lambda d: node_of(d, UNSUPPORTED).update(summary="List it."),
        UNSUPPORTED,
    ),
}
RULES = {rule: None for rule, _, _ in BROKEN.values()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_contract_obeys(rule: Rule) -> None:
    """No operation of the contract breaks the rule that the function's docstring states."""
    assert rule(FULL_CONTRACT) == []


@pytest.mark.parametrize("rule, change, culprit", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_is_found(rule: Rule, change: Change, culprit: str) -> None:
    """The rule names what breaks it in an edited copy."""
    assert culprit in rule(edited(FULL_CONTRACT, change))


def test_wrappers_linked_both_ways_obey() -> None:
    """A wrapper and its operation that name each other are fine; none exist yet, so a copy has one."""
    linked = edited(FULL_CONTRACT, wrap)
    assert wrapper_rule(linked) == []
    assert linked.operations[WRAPPED].wrapper == DIRECT
    assert linked.operations[DIRECT].wraps == (WRAPPED,)
