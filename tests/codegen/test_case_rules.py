"""The rule `proxy-cases` passes on the shipped cases and fails on each kind of gap and nonsense. Opens no sockets."""

from dataclasses import replace
from typing import Any

import pytest

from codegen.case_rules import RULE, cases_fit, error_codes, proxy_cases
from codegen.contract import Bucket, Contract, Exclusion, Scope, read_contract
from codegen.findings import Finding
from codegen.policy_cases import ALLOWED, PolicyCase, Surface, read_policy_cases
from tests.support.documents import ROOT, decide, edited, first

FULL_CONTRACT = read_contract(ROOT)
SHIPPED = read_policy_cases(ROOT)
HARNESS = first(FULL_CONTRACT, Bucket.PROXY_HARNESS)
DIRECT = first(FULL_CONTRACT, Bucket.ACTIONS_DIRECT)
UNSUPPORTED = first(FULL_CONTRACT, Bucket.EXCLUDED, Exclusion.UNSUPPORTED)
BATCH = PolicyCase(
    file="tests/policy_cases/team_reads_a_batch.yaml",
    line=5,
    index=1,
    situation="A team reads a batch.",
    surface=Surface.PROXY,
    scopes=frozenset({Scope.PROXY}),
    operation="retrieveBatch",
    method="GET",
    path="/v1/batches/batch_example1",
    query={},
    body=None,
    verdict=ALLOWED,
    why="",
)


def gaps(cases: list[PolicyCase], contract: Contract = FULL_CONTRACT) -> list[Finding]:
    """What the cases leave open."""
    return list(proxy_cases(contract, cases))


def without(operation: str, *, allowed: bool) -> list[PolicyCase]:
    """The shipped cases without those of an operation that end in one way."""
    return [c for c in SHIPPED if (c.operation, c.allowed) != (operation, allowed)]


def test_the_shipped_cases_keep_the_rule() -> None:
    """Every operation of the proxy is shown both ways, and every case makes sense."""
    assert gaps(SHIPPED) == []
    assert list(cases_fit(FULL_CONTRACT, SHIPPED)) == []


@pytest.mark.parametrize("allowed, word", [(True, "allowed"), (False, "refused")])
def test_each_proxy_operation_needs_both_cases(allowed: bool, word: str) -> None:
    """Whichever operation loses its only case of one kind is named, with its place and what to do."""
    for operation in FULL_CONTRACT:
        if operation.bucket is not Bucket.PROXY_HARNESS:
            continue
        (finding,) = gaps(without(operation.id, allowed=allowed))
        assert (finding.rule, finding.file) == (RULE, "spec/openapi.full.yaml")
        assert finding.subject == f"{operation.method} {operation.path}"
        assert finding.problem == f"`{operation.id}` has no {word} case through the proxy"
        assert finding.next_step == "Write one in tests/policy_cases/*.yaml"


def test_an_operation_without_any_case_is_one_finding() -> None:
    """Both gaps are told at once."""
    problems = [finding.problem for finding in gaps([])]
    assert len(problems) == sum(operation.bucket is Bucket.PROXY_HARNESS for operation in FULL_CONTRACT)
    assert f"`{HARNESS}` has no allowed and no refused case through the proxy" in problems


def test_an_operation_that_joins_the_proxy_needs_cases() -> None:
    """Another bucket alone is not enough."""
    contract = edited(FULL_CONTRACT, lambda d: decide(d, DIRECT, bucket="PROXY_HARNESS", review="json_read"))
    assert [DIRECT in finding.problem for finding in gaps(SHIPPED, contract)] == [True]


@pytest.mark.parametrize("changes", [{"surface": Surface.DIRECT}, {"scopes": frozenset({Scope.ACTIONS})}], ids=str)
def test_only_cases_that_get_into_the_proxy_count(changes: dict[str, Any]) -> None:
    """A direct call, or a key that the proxy refuses whatever it asks for, shows nothing about an operation."""
    refused = [replace(c, **changes) if c.operation == HARNESS and not c.allowed else c for c in SHIPPED]
    assert [finding.problem for finding in gaps(refused)] == [f"`{HARNESS}` has no refused case through the proxy"]


SENSELESS: dict[str, tuple[dict[str, Any], str]] = {
    "no operation of the contract": ({"operation": "readBatch"}, "`readBatch` is no operation"),
    "another method": ({"method": "POST"}, "is no request of `retrieveBatch`"),
    "a segment too few": ({"path": "/v1/batches"}, "is no request of `retrieveBatch`"),
    "a segment too many": ({"path": "/v1/batches/batch_example1/cancel"}, "is no request of `retrieveBatch`"),
    "another word": ({"path": "/v1/batch/batch_example1"}, "is no request of `retrieveBatch`"),
    "an empty id": ({"path": "/v1/batches/"}, "is no request of `retrieveBatch`"),
    "a code of nobody": ({"verdict": "forbidden"}, "not `forbidden`"),
    "a key that does not open the proxy": ({"scopes": frozenset({Scope.CANONICAL})}, "cannot be reached this way"),
    "no key": ({"scopes": frozenset()}, "cannot be reached this way"),
    "directly with the key of the proxy": ({"surface": Surface.DIRECT}, "cannot be reached this way"),
    "another bucket through the proxy": (
        {"operation": "retrieveFile", "path": "/v1/files/file-example1"},
        "`retrieveFile` (ACTIONS_DIRECT) cannot be reached this way",
    ),
    "an unsupported operation": (
        {
            "operation": UNSUPPORTED,
            "surface": Surface.DIRECT,
            "scopes": frozenset({Scope.CANONICAL}),
            "method": FULL_CONTRACT.operations[UNSUPPORTED].method,
            "path": FULL_CONTRACT.operations[UNSUPPORTED].path.replace("{", "").replace("}", ""),
        },
        "(EXCLUDED) cannot be reached this way",
    ),
}


@pytest.mark.parametrize("changes, problem", SENSELESS.values(), ids=SENSELESS.keys())
def test_a_case_that_makes_no_sense_is_found(changes: dict[str, Any], problem: str) -> None:
    """The finding leads to the case and says what to do."""
    (finding,) = cases_fit(FULL_CONTRACT, [replace(BATCH, **changes)])
    assert problem in finding.problem
    assert (finding.rule, finding.file, finding.line) == (RULE, BATCH.file, BATCH.line)
    assert finding.subject == f"case {BATCH.id}"
    assert finding.next_step


def test_a_case_that_makes_sense_is_not_found() -> None:
    """The same case unchanged, and reached directly by the keys that open it."""
    direct = replace(BATCH, surface=Surface.DIRECT, scopes=frozenset({Scope.CANONICAL, Scope.ACTIONS}))
    health = replace(direct, operation="retrieveHealth", path="/health", scopes=frozenset())
    refused = replace(BATCH, path="/v1/batches/%2e%2e", method="BREW", verdict="invalid_body")
    assert list(cases_fit(FULL_CONTRACT, [BATCH, direct, health, refused])) == []


def test_a_document_without_error_codes_has_no_refused_verdict() -> None:
    """Where no list of codes stands, none is guessed."""
    refused = replace(BATCH, verdict="invalid_body")
    contract = edited(FULL_CONTRACT, lambda d: d["components"]["schemas"].pop("RelayErrorEnvelope"))
    assert error_codes(contract.document) == frozenset()
    assert [finding.line for finding in cases_fit(contract, [refused])] == [BATCH.line]
