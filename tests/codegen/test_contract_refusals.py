"""What does not load: mistakes in the policy, in `security`, and documents of the wrong shape."""

from copy import deepcopy
from typing import Any

import pytest

from codegen.contract import build_contract
from codegen.exceptions import ContractError, InvalidContract
from codegen.reader import Document
from tests.support.documents import build, document, operation, single


@pytest.mark.parametrize(
    "security",
    [
        pytest.param([{"relayBearer": []}], id="no scope"),
        pytest.param([{"relayBearer": ["canonical", "actions"]}], id="two scopes at once"),
        pytest.param([{"relayBearer": ["canonical"], "relayKey": ["canonical"]}], id="two schemes at once"),
        pytest.param([{}], id="an alternative that asks for nothing"),
        pytest.param([{"relayBearer": ["everything"]}], id="an unknown scope"),
    ],
)
def test_every_alternative_of_security_is_one_scheme_with_one_known_scope(security: list[dict[str, list[str]]]) -> None:
    """What cannot be read as "any one of these scopes opens it" does not load, so nothing opens by mistake."""
    with pytest.raises(InvalidContract, match="GET /v1/things"):
        single({"security": security})


def test_a_document_that_says_nothing_about_security_opens_nothing() -> None:
    """Open operations are explicitly open: without any `security` the document does not load or stays closed."""
    silent = document()
    del silent["security"]
    try:
        (built,) = build(silent)
    except InvalidContract:
        return
    assert not built.open


def test_all_findings_come_at_once_with_file_place_and_next_step() -> None:
    """A contract with several mistakes is refused with one line for each."""
    source = document(
        {
            "/v1/a": {"get": operation("same"), "post": operation("same")},
            "/v1/*": {"get": operation("wildcard")},
            "/v1/b": {"get": operation("unclassified", {"x-policy-bucket": None, "x-policy-review": None})},
            "/v1/c": {"get": operation("unreviewed", {"x-policy-review": "nobody"})},
        }
    )
    with pytest.raises(InvalidContract) as caught:
        build(source)
    assert len(caught.value.findings) == 4
    assert all(finding.startswith("spec/sample.yaml: ") for finding in caught.value.findings)
    text = str(caught.value)
    assert "POST /v1/a: operationId `same` is taken by /v1/a" in text
    assert "GET /v1/*: wildcard paths are not allowed" in text
    assert "GET /v1/b: unclassified; `x-policy-bucket` must be one of ACTIONS_DIRECT, PROXY_HARNESS" in text
    assert "GET /v1/c: no record `nobody` in x-policy-reviews" in text


@pytest.mark.parametrize("bucket", [None, "", "actions_direct", "PROXY", True])
def test_an_unclassified_operation_does_not_load_even_without_the_policy_schema(bucket: object) -> None:
    """The runtime, which has no policy schema, still refuses an operation whose bucket is missing or unknown."""
    source = document({"/v1/things": {"get": {**operation(), "x-policy-bucket": bucket}}})
    with pytest.raises(InvalidContract, match="unclassified"):
        build_contract("sample", source)


@pytest.mark.parametrize("exclusion", [None, "", "everything"])
def test_an_exclusion_that_says_nothing_does_not_load_even_without_the_policy_schema(exclusion: str | None) -> None:
    """The runtime never takes an EXCLUDED operation without a known exclusion for one that it may serve."""
    changes = {"x-policy-bucket": "EXCLUDED", "x-policy-reason": "Not for this.", "x-policy-review": None}
    node = operation(changes={**changes, "x-policy-exclusion": exclusion})
    with pytest.raises(InvalidContract):
        build_contract("sample", document({"/v1/things": {"get": node}}))


def test_an_operation_has_exactly_one_tag() -> None:
    """No tag or two tags would leave open which module serves the operation."""
    for tags in ([], ["Things", "Others"]):
        with pytest.raises(InvalidContract, match="GET /v1/things: cannot be read"):
            single({"tags": tags})


def garbled(value: object) -> list[tuple[str, Document]]:
    """Documents in which one place each holds something that does not belong there."""
    full = operation(
        changes={
            "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer"}}],
            "requestBody": {"content": {"application/json": {"schema": {}, "examples": {"one": {"value": 1}}}}},
        }
    )
    places: list[tuple[str, Document]] = []

    def visit(source: Document, node: Any, trail: tuple[Any, ...]) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            copy = deepcopy(source)
            parent: Any = copy
            for part in trail:
                parent = parent[part]
            parent[key] = value
            places.append((".".join(map(str, (*trail, key))), copy))
            if isinstance(node[key], (dict, list)):
                visit(source, node[key], (*trail, key))

    whole = document({"/v1/things": {"post": full}})
    visit(whole, whole, ())
    return places


@pytest.mark.parametrize("value", [None, 5, "text", [], ["text"], {}, {"$ref": 5}, {200: {}}], ids=repr)
def test_a_document_of_the_wrong_shape_is_refused_in_words(value: object) -> None:
    """Whatever stands in the wrong place ends in an error of the contract, which says where, never in a traceback."""
    tracebacks = []
    for place, source in garbled(value):
        try:
            build(source)
        except ContractError:
            continue
        except Exception as error:  # noqa: BLE001 - exactly these are what the test looks for
            tracebacks.append(f"{place} = {value!r}: {type(error).__name__}: {error}")
    assert not tracebacks, "\n".join(tracebacks)
