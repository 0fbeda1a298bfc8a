from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from codegen.change_scope import outside
from codegen.contract_diff import compare
from tests.support.contract_sides import between, side
from tests.support.documents import POLICY_SCHEMA, document, operation

PROXY: dict[str, Any] = {}
WRAPPER: dict[str, Any] = {"x-policy-bucket": "WRAPPER_REQUIRED", "x-policy-review": None, "x-policy-reason": "Binary."}
HIDDEN = {**WRAPPER, "x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "hidden"}
UNSUPPORTED = {**HIDDEN, "x-policy-exclusion": "unsupported"}
INTERNAL = {**HIDDEN, "x-policy-exclusion": "internal", "security": [{"relayBearer": ["operator"]}]}
ACTIONS: dict[str, Any] = {
    "x-policy-bucket": "ACTIONS_DIRECT",
    "x-policy-review": None,
    "security": [{"relayBearer": ["canonical"]}, {"relayBearer": ["actions"]}],
}
TAGS = [
    {"name": "Things", "x-policy-mirrored": True},
    {"name": "Videos", "x-policy-mirrored": True},
    {"name": "Administration", "x-policy-mirrored": True},
    {"name": "Relay"},
]
STREAM = {"description": "It.", "content": {name: {} for name in ("application/json", "text/event-stream")}}


def scopes(*names: str) -> dict[str, Any]:
    """An operation for SDK clients that any one of these scopes opens."""
    return {**HIDDEN, "security": [{"relayBearer": [name]} for name in names]}


def contract(*operations: tuple[str, str, Mapping[str, Any]]) -> dict[str, Any]:
    """A document with some operations beside those that stand on both sides."""
    paths: dict[str, Any] = {
        "/v1/standing": {"get": operation("standing")},
        "/v1/uploads": {"post": operation("createUpload", WRAPPER)},
        "/v1/videos": {"post": operation("createVideo", {**WRAPPER, "tags": ["Videos"]})},
        "/v1/users": {"get": operation("listUsers", {**UNSUPPORTED, "tags": ["Administration"]})},
    }
    for method, path, fields in operations:
        paths.setdefault(path, {})[method] = operation("thing", fields)
    return document(paths, tags=TAGS)


def problems(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What needs a proposal; every one names the operation that is added or changed."""
    found = outside(between(before, after))
    assert {one.operation for one in found} <= {"thing"}
    return [one.problem for one in found]


@pytest.mark.parametrize(
    "before, after, words",
    [
        (HIDDEN, PROXY, "moves from EXCLUDED hidden to PROXY_HARNESS and gains Proxy"),
        (HIDDEN, ACTIONS, "gains Actions"),
        (PROXY, ACTIONS, "gains Actions"),
        (UNSUPPORTED, HIDDEN, "gains SDK clients"),
        (UNSUPPORTED, INTERNAL, "gains Operators"),
        (INTERNAL, HIDDEN, "opening an internal operation"),
        (HIDDEN, scopes(), "needs no key any more"),
        (HIDDEN, scopes("canonical", "realtime"), "is opened to the scope realtime"),
        (PROXY, {"responses": {"200": STREAM}}, "brings text/event-stream to PROXY_HARNESS"),
    ],
)
def test_widening_what_stood_needs_a_proposal(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    """Whoever gets more of an operation that was there before, the change quotes section 10 against it."""
    (problem,) = problems(contract(("get", "/v1/things", before)), contract(("get", "/v1/things", after)))
    assert words in problem
    assert "without a proposal" in problem


@pytest.mark.parametrize(
    "before, after",
    [
        (PROXY, HIDDEN),
        (ACTIONS, HIDDEN),
        (HIDDEN, UNSUPPORTED),
        (HIDDEN, WRAPPER),
        (WRAPPER, {**WRAPPER, "x-policy-wrapper": "uploadThing"}),
        (scopes("canonical", "realtime"), HIDDEN),
        (scopes(), HIDDEN),
        (INTERNAL, UNSUPPORTED),
        (PROXY, {"summary": "Another.", "deprecated": True}),
        ({"responses": {"200": STREAM}}, {"responses": {"200": STREAM}, "summary": "Another."}),
        (HIDDEN, {**HIDDEN, "responses": {"200": STREAM}}),
    ],
)
def test_narrowing_and_what_nobody_gains_is_inside_the_scope(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Taking away, announcing, wording, and media types beside Actions and proxy need nobody's leave but a version."""
    assert problems(contract(("get", "/v1/things", before)), contract(("get", "/v1/things", after))) == []


@pytest.mark.parametrize(
    "method, path, fields, words",
    [
        ("get", "/v1/moons", {**HIDDEN, "tags": ["Relay"]}, "beside the known surfaces"),
        ("post", "/moons", {**scopes(), "tags": ["Relay"]}, "beside the known surfaces"),
        ("get", "/moons", {**scopes("actions"), "tags": ["Relay"]}, "beside the known surfaces"),
        ("post", "/v1/standing:stream", HIDDEN, "beside the known surfaces"),
        ("get", "/v1/moons", scopes("canonical", "realtime"), "has the scope realtime"),
        ("get", "/v1/moons", ACTIONS, "is new and ACTIONS_DIRECT at once"),
        ("get", "/v1/moons", scopes(), "not for keys with the scope canonical"),
        ("get", "/v1/moons", {**HIDDEN, "tags": ["Administration"]}, "of which nothing was served"),
        ("get", "/v1/moons", {"responses": {"200": STREAM}}, "brings text/event-stream"),
        (
            "get",
            "/v1/actions/videos",
            {**ACTIONS, "tags": ["Relay"], "x-policy-wraps": ["createVideo"]},
            "gets no wrapper",
        ),
        ("get", "/v1/actions/moons", {**ACTIONS, "tags": ["Relay"], "x-policy-wraps": ["standing"]}, "gets no wrapper"),
    ],
)
def test_some_additions_need_a_proposal(method: str, path: str, fields: dict[str, Any], words: str) -> None:
    """A surface, a socket, administration, a stream, video for assistants: each is told with its own reason."""
    base = contract(("put", "/v1/known", {**ACTIONS, "tags": ["Things"]}))
    added = contract((method, path, fields))
    added["paths"]["/v1/known"] = {"put": operation("known", ACTIONS)}
    base["paths"]["/v1/known"] = {"put": operation("known", ACTIONS)}
    found = problems(base, added)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    "method, path, fields",
    [
        ("get", "/v1/moons", UNSUPPORTED),
        ("get", "/v1/moons", {**UNSUPPORTED, "tags": ["Administration"]}),
        ("get", "/v1/moons", HIDDEN),
        ("get", "/v1/moons", WRAPPER),
        ("get", "/v1/moons", PROXY),
        ("post", "/v1/proxy", {**scopes("proxy"), "tags": ["Relay"]}),
        ("get", "/moons", {**scopes(), "tags": ["Relay"]}),
        ("get", "/actions/system/moons", {**INTERNAL, "tags": ["Relay"]}),
        ("post", "/v1/actions/uploads", {**ACTIONS, "tags": ["Relay"], "x-policy-wraps": ["createUpload"]}),
    ],
)
def test_the_additions_that_section_10_lists_need_none(method: str, path: str, fields: dict[str, Any]) -> None:
    """Classified operations of upstream, wrappers, the proxy itself, open pages and internal operations may come."""
    both = {"put": operation("known", ACTIONS)}
    base, added = contract(), contract((method, path, fields))
    base["paths"]["/v1/known"] = added["paths"]["/v1/known"] = both
    assert problems(base, added) == []


def test_a_scope_that_opened_nothing_before_is_new_wherever_it_stands() -> None:
    """Only `/v1/proxy` brings its scope with it."""
    (problem,) = problems(contract(), contract(("get", "/v1/moons", scopes("canonical", "proxy"))))
    assert "uses the scope proxy, which opened nothing before" in problem


@pytest.mark.parametrize(
    "place, value, user",
    [
        (("operation", "properties", "x-policy-bucket"), "PROXY_HARNESS", {}),
        (("operation", "properties", "x-policy-exclusion"), "hidden", HIDDEN),
        (("cases", "properties", "scopes", "items"), "realtime", scopes("canonical", "realtime")),
    ],
)
def test_a_new_word_of_the_policy_needs_a_proposal_for_each_use(
    place: tuple[str, ...], value: str, user: dict[str, Any]
) -> None:
    """What the schema adds is told for every operation that uses it, and by itself when none does."""
    old = deepcopy(POLICY_SCHEMA)
    node = old["$defs"]
    for part in place:
        node = node[part]
    node["enum"].remove(value)
    same = document({"/v1/things": {"get": operation("thing", user)}})
    (used,) = outside(compare(side(same, schema=old), side(same)))
    assert used.operation == "thing"
    assert f" {value}: not allowed" in used.problem
    other = document({"/v1/things": {"get": operation("thing", WRAPPER)}})
    (spare,) = outside(compare(side(other, schema=old), side(other)))
    assert (spare.operation, spare.subject) == ("", "spec/policy.schema.yaml")
    assert outside(compare(side(same, schema={}), side(same))) == []
