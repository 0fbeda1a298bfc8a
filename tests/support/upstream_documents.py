"""A small OpenAPI document in upstream's form and a checkout whose contract and lock agree with it."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson

from codegen.pin import LOCK, pin
from codegen.reader import Document
from tests.support.documents import POLICY_SCHEMA, document, operation

JSON = "application/json"
MULTIPART = "multipart/form-data"
PURPOSE = {"type": "string", "enum": ["batch", "vision", "evals"]}
ORDER = {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["asc", "desc"]}}
THING = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "purpose": {"$ref": "#/components/schemas/Purpose"}},
}


def answer(*media: str) -> dict[str, Any]:
    """Responses of an operation that answers in these media types."""
    return {"200": {"description": "It.", "content": {name: {"schema": {"type": "object"}} for name in media}}}


def body(*media: str) -> dict[str, Any]:
    """A required body of the schema `Thing`."""
    return {"required": True, "content": {name: {"schema": {"$ref": "#/components/schemas/Thing"}} for name in media}}


def upstream_operation(operation_id: str, **fields: Any) -> dict[str, Any]:
    """An operation that answers JSON unless the fields say otherwise."""
    return {"operationId": operation_id, "responses": answer(JSON), **fields}


def upstream() -> Document:
    """Nine operations: exposed, served, refused and a variant."""
    return {
        "openapi": "3.1.0",
        "servers": [{"url": "https://api.example/v1"}],
        "security": [{"ApiKeyAuth": []}],
        "paths": {
            "/things": {
                "get": upstream_operation("listThings", parameters=[ORDER]),
                "post": upstream_operation("createThing", requestBody=body(JSON)),
            },
            "/things/{thing_id}": {
                "parameters": [{"name": "thing_id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "get": upstream_operation("retrieveThing"),
                "delete": upstream_operation("deleteThing"),
            },
            "/things?beta=true": {"post": upstream_operation("beta_createThing", requestBody=body(JSON))},
            "/pictures": {"post": upstream_operation("createPicture", requestBody=body(JSON, MULTIPART))},
            "/pictures/{picture_id}/content": {
                "get": upstream_operation("downloadPicture", responses=answer("image/png"))
            },
            "/admin/users": {
                "get": upstream_operation("list-users", security=[{"AdminApiKeyAuth": []}], parameters=[ORDER]),
                "post": upstream_operation("create-user", requestBody=body(JSON)),
            },
        },
        "components": {"schemas": {"Thing": deepcopy(THING), "Purpose": deepcopy(PURPOSE)}},
    }


def contract() -> Document:
    """The contract that goes with it."""
    hidden = {"x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "hidden", "x-policy-reason": "No."}
    refused = {**hidden, "x-policy-exclusion": "unsupported"}
    decisions: dict[str, dict[str, Any]] = {
        "createThing": {"x-policy-bucket": "ACTIONS_DIRECT"},
        "createPicture": {"x-policy-bucket": "WRAPPER_REQUIRED", "x-policy-reason": "Multipart."},
        "downloadPicture": hidden,
        "list-users": refused,
        "create-user": refused,
    }
    source = upstream()
    paths: dict[str, Any] = {}
    for path, item in source["paths"].items():
        for method in ("get", "post", "delete"):
            if method in item and "?" not in path:
                node = item[method]
                parameters = [*item.get("parameters", ()), *node.get("parameters", ())]
                decision = decisions.get(node["operationId"], {})
                changes = {
                    **({"x-policy-review": None} if decision else {}),
                    **decision,
                    "responses": node["responses"],
                    **({"requestBody": node["requestBody"]} if "requestBody" in node else {}),
                    **({"parameters": parameters} if parameters else {}),
                }
                paths.setdefault(f"/v1{path}", {})[method] = operation(node["operationId"], changes)
    return document(paths, components=source["components"])


def write_checkout(root: Path) -> Path:
    """Write the contract and the lock of the unchanged document; returns the root."""
    spec = root / "spec"
    spec.mkdir()
    (spec / "policy.schema.yaml").write_bytes(orjson.dumps(POLICY_SCHEMA))  # JSON is YAML
    (spec / "openapi.full.yaml").write_bytes(orjson.dumps(contract()))
    (root / LOCK).write_text(pin(write_upstream(root)), encoding="utf-8")
    return root


def write_upstream(root: Path, change: Callable[[Document], object] = lambda _: None) -> Path:
    """Write the document of upstream after a change in place."""
    source = upstream()
    change(source)
    path = root / "upstream.json"
    path.write_bytes(orjson.dumps(source))
    return path
