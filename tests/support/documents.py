"""Small documents in the form of the contract, and edited copies of the real one, for tests that break rules."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from codegen.contract import METHODS, Bucket, Contract, Exclusion, Operation, build_contract
from codegen.reader import Document, read_yaml

ROOT = Path(__file__).parents[2]
POLICY_SCHEMA = read_yaml(ROOT / "spec" / "policy.schema.yaml")
DECISION = ("x-policy-reason", "x-policy-wrapper", "x-policy-exclusion", "x-policy-review")
REVIEWS = {"json_read": {"requirement": "Reads only.", "risk": "Names are seen.", "since": "2026-11-22"}}


def operation(operation_id: str = "retrieveThing", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    A classified operation that may pass through the proxy.

    Args:
        changes: Further fields, or other values for the usual ones; `None` leaves a field out.
    """
    node = {
        "operationId": operation_id,
        "x-policy-bucket": "PROXY_HARNESS",
        "x-policy-review": "json_read",
        "summary": "Fetch a thing.",
        "tags": ["Things"],
        "responses": {"200": {"description": "It.", "content": {"application/json": {"schema": {"type": "object"}}}}},
        **(changes or {}),
    }
    return {key: value for key, value in node.items() if value is not None}


def document(paths: Mapping[str, Any] | None = None, **top: Any) -> Document:
    """
    A document of one mirrored tag, `Things`.

    Args:
        paths: `/v1/things` with one operation unless given.
        top: Further top-level fields, or other values for the usual ones.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "things", "version": "1.2.3"},
        "security": [{"relayBearer": ["canonical"]}, {"relayKey": ["canonical"]}],
        "x-policy-reviews": deepcopy(REVIEWS),
        "tags": [{"name": "Things", "x-policy-mirrored": True}],
        "paths": {"/v1/things": {"get": operation()}} if paths is None else dict(paths),
        "components": {},
        **top,
    }


def build(source: Document) -> Contract:
    """Build the model as the tools do: with the policy schema."""
    return build_contract("sample", source, policy_schema=POLICY_SCHEMA)


def single(changes: Mapping[str, Any], path: str = "/v1/things", method: str = "get") -> Operation:
    """The only operation of a document in which it alone is changed."""
    (built,) = build(document({path: {method: operation(changes=changes)}}))
    return built


def edited(contract: Contract, change: Callable[[Document], object]) -> Contract:
    """
    A copy of a contract after a change, held against the policy schema like the original.

    Args:
        change: Edits the copied document in place.

    Raises:
        InvalidContract: The change broke a rule that the reader holds.
    """
    copy = deepcopy(contract.document)
    change(copy)
    return build_contract(contract.name, copy, policy_schema=POLICY_SCHEMA)


def node_of(source: Document, operation_id: str) -> dict[str, Any]:
    """The node of an operation inside a document, for an edit in place."""
    for item in source["paths"].values():
        for node in item.values():
            if isinstance(node, dict) and node.get("operationId") == operation_id:
                return node
    raise KeyError(operation_id)


def nodes(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation of a document with its place."""
    for path, item in document["paths"].items():
        for method, node in item.items():
            if method in METHODS:
                yield f"{method.upper()} {path}", node


def first(contract: Contract, bucket: Bucket, exclusion: Exclusion | None = None) -> str:
    """The first operationId with this verdict."""
    return next(o.id for o in contract if o.bucket is bucket and (exclusion is None or o.exclusion is exclusion))


def decide(document: Document, operation_id: str, **fields: object) -> dict[str, Any]:
    """Give an operation another decision; the fields of the old one go away."""
    node = node_of(document, operation_id)
    for name in DECISION:
        node.pop(name, None)
    node.update({f"x-policy-{name}": value for name, value in fields.items()})
    return node
