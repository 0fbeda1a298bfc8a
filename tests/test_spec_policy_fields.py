"""
What the reader itself holds: `spec/policy.schema.yaml`, one bucket per operation, unique ids, no wildcard.

Not for: what holds between operations and between documents (`test_spec_policy`). Opens no sockets.
"""

from collections.abc import Callable

import pytest

from codegen.contract import ACTIONS, Bucket, read_contract
from codegen.exceptions import InvalidContract
from codegen.reader import Document
from tests.support.documents import ROOT, decide, edited, first, node_of, nodes

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


REFUSED: dict[str, Change] = {
    "no bucket": lambda d: node_of(d, DIRECT).pop("x-policy-bucket"),
    "an unknown bucket": lambda d: decide(d, DIRECT, bucket="PUBLIC"),
    "two buckets": lambda d: decide(d, DIRECT, bucket=["ACTIONS_DIRECT", "PROXY_HARNESS"]),
    "a wrapped operation without a reason": lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED"),
    "an excluded operation without a reason": lambda d: decide(d, DIRECT, bucket="EXCLUDED", exclusion="hidden"),
    "an excluded operation without an exclusion": lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="No."),
    "an unknown exclusion": lambda d: decide(d, DIRECT, bucket="EXCLUDED", reason="No.", exclusion="secret"),
    "an exclusion on a served bucket": lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", exclusion="hidden"),
    "a reason where none belongs": lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", reason="Because."),
    "a proxied operation without a review": lambda d: decide(d, HARNESS, bucket="PROXY_HARNESS"),
    "a proxied operation with an unknown review": lambda d: decide(d, HARNESS, bucket="PROXY_HARNESS", review="mine"),
    "a review where none belongs": lambda d: decide(d, DIRECT, bucket="ACTIONS_DIRECT", review="json_read"),
    "a wrapper on a proxied operation": lambda d: decide(
        d, HARNESS, bucket="PROXY_HARNESS", review="json_read", wrapper="wrapIt"
    ),
    "wraps as a word": lambda d: node_of(d, DIRECT).update({"x-policy-wraps": "createFile"}),
    "wraps nothing": lambda d: node_of(d, DIRECT).update({"x-policy-wraps": []}),
    "wraps one twice": lambda d: node_of(d, DIRECT).update({"x-policy-wraps": ["createFile", "createFile"]}),
    "a mistyped field": lambda d: node_of(d, DIRECT).update({"x-policy-buckets": "EXCLUDED"}),
    "a field of another vendor": lambda d: node_of(d, DIRECT).update({"x-stainless-skip": True}),
    "a reason that is no sentence": lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED", reason="multipart"),
    "a reason without an end": lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED", reason="Multipart. And"),
    "a reason over two lines": lambda d: decide(d, WRAPPED, bucket="WRAPPER_REQUIRED", reason="One.\nTwo."),
    "an end without deprecation": lambda d: node_of(d, DIRECT).update({"x-sunset": "2027-01-01"}),
    "an end with deprecation denied": lambda d: node_of(d, DIRECT).update(
        {"x-sunset": "2027-01-01", "deprecated": False}
    ),
    "an end that is no day": lambda d: node_of(d, DIRECT).update({"x-sunset": "soon", "deprecated": True}),
    "deprecated in words": lambda d: node_of(d, DIRECT).update({"deprecated": "yes"}),
    "an id with a space": lambda d: node_of(d, DIRECT).update({"operationId": "create response"}),
    "an id twice": lambda d: node_of(d, DIRECT).update({"operationId": HARNESS}),
    "no id": lambda d: node_of(d, DIRECT).pop("operationId"),
    "a wildcard path": lambda d: d["paths"].update({"/v1/files/*": {"get": d["paths"]["/v1/files"]["get"]}}),
    "a catch-all path": lambda d: d["paths"].update({"/v1/{path}": {"get": d["paths"]["/v1/files"]["get"]}}),
    "two tags": lambda d: node_of(d, DIRECT)["tags"].append("Files"),
    "a review without a risk": lambda d: d["x-policy-reviews"]["json_read"].pop("risk"),
    "a review with more than belongs": lambda d: d["x-policy-reviews"]["json_read"].update({"by": "me"}),
    "a review whose day is none": lambda d: d["x-policy-reviews"]["json_read"].update({"since": "2026"}),
    "a review with a strange name": lambda d: d["x-policy-reviews"].update(
        {"JSON-read": d["x-policy-reviews"]["json_read"]}
    ),
    "a tag with an unknown field": lambda d: d["tags"][0].update({"x-policy-open": True}),
    "a tag that is not mirrored": lambda d: d["tags"][1].update({"x-policy-mirrored": False}),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_the_reader_refuses(change: Change) -> None:
    """A document with this mistake does not load, for the runtime's tools or anybody's."""
    with pytest.raises(InvalidContract):
        edited(FULL_CONTRACT, change)


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
