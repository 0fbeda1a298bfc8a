"""
What the reader itself holds: `spec/policy.schema.yaml`, one bucket per operation, unique ids, no wildcard.

Not for: what holds between operations and between documents (`test_spec_policy`). Opens no sockets.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest

from codegen.check import check_document
from codegen.contract import ACTIONS, Bucket, read_contract
from codegen.exceptions import InvalidContract
from codegen.reader import Document
from tests.support.documents import POLICY_SCHEMA, ROOT, decide, edited, first, node_of, nodes

FULL_CONTRACT = read_contract(ROOT)
ACTIONS_CONTRACT = read_contract(ROOT, ACTIONS)
DIRECT = first(FULL_CONTRACT, Bucket.ACTIONS_DIRECT)
HARNESS = first(FULL_CONTRACT, Bucket.PROXY_HARNESS)
WRAPPED = first(FULL_CONTRACT, Bucket.WRAPPER_REQUIRED)

Change = Callable[[Document], object]


def test_every_operation_has_exactly_one_bucket() -> None:
    """The buckets split the contract: each operation is in one of them, and all of them are needed."""
    sizes = {bucket: sum(operation.bucket is bucket for operation in FULL_CONTRACT) for bucket in Bucket}
    assert sum(sizes.values()) == len(FULL_CONTRACT.operations) == sum(1 for _ in nodes(FULL_CONTRACT.document))
    assert all(sizes.values())


REFUSED: dict[str, tuple[str, Change]] = {
    "no bucket": ("bucket-total", lambda d: node_of(d, DIRECT).pop("x-policy-bucket")),
    "an unknown bucket": ("bucket-total", lambda d: decide(d, DIRECT, bucket="PUBLIC")),
    "two buckets": ("bucket-total", lambda d: decide(d, DIRECT, bucket=["ACTIONS_DIRECT", "PROXY_HARNESS"])),
    "a wrapped operation without a reason": ("reason-given", lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED")),
    "an excluded operation without a reason": (
        "reason-given",
        lambda d: decide(d, DIRECT, bucket="EXCLUDED", exclusion="hidden"),
    ),
    "an excluded operation without an exclusion": (
        "bucket-total",
        lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="No."),
    ),
    "an unknown exclusion": (
        "bucket-total",
        lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="No.", exclusion="secret"),
    ),
    "an exclusion on a served bucket": (
        "bucket-total",
        lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", exclusion="hidden"),
    ),
    "a reason where none belongs": (
        "reason-given",
        lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", reason="Because."),
    ),
    "a proxied operation without a review": ("proxy-reviewed", lambda d: decide(d, HARNESS, bucket="PROXY_HARNESS")),
    "a proxied operation with an unknown review": (
        "proxy-reviewed",
        lambda d: decide(d, HARNESS, bucket="PROXY_HARNESS", review="mine"),
    ),
    "a review where none belongs": (
        "proxy-reviewed",
        lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", review="json_read"),
    ),
    "a wrapper on an excluded operation": (
        "wrapper-links",
        lambda d: decide(d, HARNESS, bucket="EXCLUDED", exclusion="hidden", reason="No.", wrapper="wrapIt"),
    ),
    "wraps as a word": ("wrapper-links", lambda d: node_of(d, DIRECT).update({"x-policy-wraps": "createFile"})),
    "wraps nothing": ("wrapper-links", lambda d: node_of(d, DIRECT).update({"x-policy-wraps": []})),
    "wraps one twice": (
        "wrapper-links",
        lambda d: node_of(d, DIRECT).update({"x-policy-wraps": ["createFile", "createFile"]}),
    ),
    "a mistyped field": ("closed-vocabulary", lambda d: node_of(d, DIRECT).update({"x-policy-buckets": "EXCLUDED"})),
    "a field of another vendor": ("closed-vocabulary", lambda d: node_of(d, DIRECT).update({"x-stainless-skip": True})),
    "a reason that is no sentence": (
        "reason-given",
        lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED", reason="multipart"),
    ),
    "a reason without an end": (
        "reason-given",
        lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED", reason="Multipart. And"),
    ),
    "a reason over two lines": (
        "reason-given",
        lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED", reason="One.\nTwo."),
    ),
    "an end without deprecation": (
        "deprecated-with-sunset",
        lambda d: node_of(d, DIRECT).update({"x-sunset": "2027-01-01"}),
    ),
    "an end with deprecation denied": (
        "deprecated-with-sunset",
        lambda d: node_of(d, DIRECT).update({"x-sunset": "2027-01-01", "deprecated": False}),
    ),
    "an end that is no day": (
        "deprecated-with-sunset",
        lambda d: node_of(d, DIRECT).update({"x-sunset": "soon", "deprecated": True}),
    ),
    "deprecated in words": ("deprecated-with-sunset", lambda d: node_of(d, DIRECT).update({"deprecated": "yes"})),
    "an id with a space": (
        "unique-operation-ids",
        lambda d: node_of(d, DIRECT).update({"operationId": "create response"}),
    ),
    "an id twice": ("unique-operation-ids", lambda d: node_of(d, DIRECT).update({"operationId": HARNESS})),
    "no id": ("unique-operation-ids", lambda d: node_of(d, DIRECT).pop("operationId")),
    "a wildcard path": (
        "no-wildcard",
        lambda d: d["paths"].update({"/v1/files/*": {"get": d["paths"]["/v1/files"]["get"]}}),
    ),
    "a catch-all path": (
        "no-wildcard",
        lambda d: d["paths"].update({"/v1/{path}": {"get": d["paths"]["/v1/files"]["get"]}}),
    ),
    "two tags": ("document-loads", lambda d: node_of(d, DIRECT)["tags"].append("Files")),
    "a review without a risk": ("proxy-reviewed", lambda d: d["x-policy-reviews"]["json_read"].pop("risk")),
    "a review with more than belongs": (
        "proxy-reviewed",
        lambda d: d["x-policy-reviews"]["json_read"].update({"by": "me"}),
    ),
    "a review whose day is none": (
        "proxy-reviewed",
        lambda d: d["x-policy-reviews"]["json_read"].update({"since": "2026"}),
    ),
    "a review with a strange name": (
        "proxy-reviewed",
        lambda d: d["x-policy-reviews"].update({"JSON-read": d["x-policy-reviews"]["json_read"]}),
    ),
    "a tag with an unknown field": ("closed-vocabulary", lambda d: d["tags"][0].update({"x-policy-open": True})),
    "a tag that is not mirrored": ("closed-vocabulary", lambda d: d["tags"][1].update({"x-policy-mirrored": False})),
}


@pytest.mark.parametrize("rule, change", REFUSED.values(), ids=REFUSED.keys())
def test_the_reader_refuses(rule: str, change: Change) -> None:
    """A document with this mistake does not load, and `contract check` names the rule that owns it."""
    with pytest.raises(InvalidContract):
        edited(FULL_CONTRACT, change)
    copy = deepcopy(FULL_CONTRACT.document)
    change(copy)
    assert rule in {finding.rule for finding in check_document("openapi.full", copy, POLICY_SCHEMA)[0]}


ACCEPTED: dict[str, Change] = {
    "nothing changed": lambda d: None,
    "a hidden operation": lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="Not now.", exclusion="hidden"),
    "a wrapped operation": lambda d: decide(
        d, DIRECT, bucket="WRAPPER_REQUIRED", reason="Too long for one call.", wrapper="askAndWait"
    ),
    "a wrapped operation whose wrapper is to come": lambda d: decide(
        d, DIRECT, bucket="WRAPPER_REQUIRED", reason="Too long."
    ),
    "a proxied operation": lambda d: decide(d, DIRECT, bucket="PROXY_HARNESS", review="json_read"),
    "a proxied operation with a wrapper": lambda d: decide(
        d, DIRECT, bucket="PROXY_HARNESS", review="json_read", wrapper="askAndWait"
    ),
    "a direct operation with a wrapper": lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", wrapper="askAndWait"),
    "a direct operation that wraps": lambda d: node_of(d, DIRECT).update({"x-policy-wraps": [WRAPPED]}),
    "an end": lambda d: node_of(d, DIRECT).update({"x-sunset": "2027-01-01", "deprecated": True}),
    "a deprecation without a day": lambda d: node_of(d, DIRECT).update({"deprecated": True}),
    "a consequential operation": lambda d: node_of(d, DIRECT).update({"x-openai-isConsequential": True}),
    "another review": lambda d: d["x-policy-reviews"].update({"json_other": d["x-policy-reviews"]["json_read"]}),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_the_reader_accepts(change: Change) -> None:
    """A decision that the policy allows loads."""
    edited(FULL_CONTRACT, change)


def test_a_broken_actions_document_does_not_load() -> None:
    """The policy fields of the Actions document are held against the same schema."""
    with pytest.raises(InvalidContract):
        edited(ACTIONS_CONTRACT, lambda d: node_of(d, DIRECT).pop("x-policy-bucket"))
