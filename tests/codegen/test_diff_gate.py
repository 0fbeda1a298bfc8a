from typing import Any

import pytest

from codegen.contract_diff import ContractDiff, compare
from codegen.diff_gate import (
    EVIDENCE_READABLE,
    ONE_VERSION,
    PROPOSAL_GIVEN,
    PROXY_REVIEWED,
    VERSION_SAYS_SO,
    gate,
    needed_version,
)
from codegen.proposals import Proposal
from tests.support.contract_sides import side
from tests.support.documents import document, operation

HIDDEN: dict[str, Any] = {
    "x-policy-bucket": "EXCLUDED",
    "x-policy-exclusion": "hidden",
    "x-policy-reason": "For people.",
    "x-policy-review": None,
}


def numbered(version: str) -> dict[str, Any]:
    """The `info` of a document."""
    return {"title": "things", "version": version}


def diff(before: str, after: str, *, actions: str = "", changes: dict[str, Any] | None = None) -> ContractDiff:
    """A diff between versions, with one operation that changes or not."""
    old = side(document(info=numbered(before)), document({}, info=numbered(before)))
    paths = {"/v1/things": {"get": operation(changes=changes)}}
    new = side(document(paths, info=numbered(after)), document({}, info=numbered(actions or after)))
    return compare(old, new)


def rules(found: ContractDiff) -> list[str]:
    """Rules that keep it from passing."""
    return [finding.rule for finding in gate(found)]


@pytest.mark.parametrize(
    "changes, enough, too_little",
    [
        (None, "1.2.3", "1.2.2"),
        ({"summary": "Another."}, "1.2.4", "1.2.3"),
        ({"deprecated": True}, "1.3.0", "1.2.9"),
        (HIDDEN, "2.0.0", "1.9.9"),
    ],
)
def test_the_version_has_to_say_what_has_changed(changes: dict[str, Any] | None, enough: str, too_little: str) -> None:
    """The needed version and anything higher pass; the finding names the version to write."""
    assert rules(diff("1.2.3", enough, changes=changes)) == []
    assert rules(diff("1.2.3", "10.0.0", changes=changes)) == []
    (finding,) = gate(diff("1.2.3", too_little, changes=changes))
    assert finding.rule == VERSION_SAYS_SO
    assert finding.next_step == f"Write {enough} in both documents and in pyproject.toml"


def test_both_documents_carry_one_version() -> None:
    """An Actions document that stays behind is named."""
    (finding,) = gate(diff("1.2.3", "1.2.4", actions="1.2.3"))
    assert (finding.rule, finding.file) == (ONE_VERSION, "spec/openapi.actions.yaml")


@pytest.mark.parametrize("before, after", [("soon", "1.2.3"), ("1.2.3", "1.3"), ("1.2.3", "1.3.0-rc.1")])
def test_a_version_that_cannot_be_compared_fails(before: str, after: str) -> None:
    """On either side, and nothing crashes."""
    assert rules(diff(before, after)) == [VERSION_SAYS_SO]
    assert needed_version(diff("soon", "1.2.3")) is None


def test_what_is_new_to_the_proxy_needs_review_and_cases() -> None:
    """Added or moved there, each operation lacks both until they exist; what stood there is not asked again."""
    without = document({"/v1/others": {"get": operation("listOthers")}}, info=numbered("1.0.0"))
    paths = {
        "/v1/others": {"get": operation("listOthers")},
        "/v1/things": {"get": operation(changes={"x-policy-review": None})},
    }
    head = side(document(paths, info=numbered("2.0.0")), document({}, info=numbered("2.0.0")))
    found = gate(compare(side(without), head))
    assert [(finding.rule, finding.subject) for finding in found] == [
        ("proxy-cases", "GET /v1/things"),
        (PROXY_REVIEWED, "GET /v1/things"),
    ]


def test_a_proposal_lets_pass_what_it_names_and_nothing_else() -> None:
    """The finding says which operation a proposal has to name."""
    closed = document({"/v1/things": {"get": operation(changes=HIDDEN)}})
    opened = document({"/v1/things": {"get": operation(changes={**HIDDEN, "security": []})}}, info=numbered("1.3.0"))
    actions = document({}, info=numbered("1.3.0"))

    def found(*names: str) -> list[Any]:
        proposals = (Proposal("spec/proposals/a.md", "A", frozenset(names), ("reads",)),) if names else ()
        return gate(compare(side(closed), side(opened, actions, proposals=proposals)))

    for names in ((), ("listOthers",)):
        (finding,) = found(*names)
        assert finding.rule == PROPOSAL_GIVEN
        assert "names retrieveThing" in finding.next_step
    assert found("retrieveThing", "listOthers") == []


def test_evidence_that_cannot_be_read_is_told_by_the_gate() -> None:
    """A broken proposal or case file keeps the change from passing; that of BASE is nobody's business."""
    broken = side(document(), document({}), problems=("spec/proposals/a.md: broken.",))
    whole = side(document(), document({}))
    (finding,) = gate(compare(whole, broken))
    assert (finding.rule, finding.problem) == (EVIDENCE_READABLE, "spec/proposals/a.md: broken")
    assert gate(compare(broken, whole)) == []
