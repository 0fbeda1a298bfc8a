from pathlib import Path

import pytest

from codegen.contract import Contract, build_contract, read_contract
from codegen.exceptions import InvalidContract, UnreadableDocument
from codegen.looseness import LOOSER
from codegen.pin import LOCK
from codegen.upstream import UpstreamOperation
from codegen.upstream_summary import count_upstream, summarise_upstream
from tests.support.documents import ROOT, document, operation

REFUSED = {
    "x-policy-bucket": "EXCLUDED",
    "x-policy-exclusion": "unsupported",
    "x-policy-reason": "It is over.",
    "x-policy-review": None,
    "summary": None,
}


def contract() -> Contract:
    """One served and one refused operation of the upstream."""
    paths = {"/v1/things": {"get": operation(), "post": operation("createThing", REFUSED)}}
    return build_contract("sample", document(paths))


def line(method: str, path: str, *, deprecated: bool = False) -> UpstreamOperation:
    """A line of a lock file."""
    return UpstreamOperation(method, path, "anyId", (), ("application/json",), deprecated)


def test_each_pinned_operation_is_served_refused_or_missing() -> None:
    """Lines are held against the contract by method and path; what it does not list is counted apart."""
    pinned = [
        line("GET", "/v1/things"),
        line("POST", "/v1/things", deprecated=True),
        line("DELETE", "/v1/things", deprecated=True),
    ]
    found = count_upstream(pinned, [], contract())
    assert (found.pinned, found.served, found.refused, found.missing) == (3, 1, 1, 1)
    assert found.listed == 2
    assert found.deprecated == 2


def test_a_variant_is_a_line_but_no_operation_of_its_own() -> None:
    """`?beta=true` raises the number of lines and of variants, and nothing else."""
    plain = count_upstream([line("GET", "/v1/things")], [], contract())
    beta = line("GET", "/v1/things?beta=true", deprecated=True)
    both = count_upstream([line("GET", "/v1/things"), beta], [], contract())
    assert (both.pinned, both.variants) == (2, 1)
    assert (both.served, both.refused, both.missing, both.deprecated) == (
        plain.served,
        plain.refused,
        plain.missing,
        plain.deprecated,
    )


def test_the_shipped_numbers_add_up() -> None:
    """Every line of the shipped lock file is a variant, served or refused; every known looser place has its reason."""
    found = summarise_upstream(ROOT, read_contract(ROOT))
    lines = (ROOT / LOCK).read_text(encoding="utf-8").splitlines()
    assert found.pinned == len(lines) - 1
    assert found.variants + found.served + found.refused == found.pinned
    assert found.missing == 0
    looser = [row.split("\t") for row in (ROOT / LOOSER).read_text(encoding="utf-8").splitlines()[1:]]
    assert sorted((entry.operation_id, entry.reason) for entry in found.looser) == sorted(
        (row[0], row[-1]) for row in looser
    )


def test_a_missing_lock_file_or_a_wrong_line_stops_the_count(checkout: Path) -> None:
    """Nothing is counted when the lock file is not there, or when the file of looser places cannot be trusted."""
    read = read_contract(checkout)
    (checkout / LOOSER).write_text("operationId\tkind\n", encoding="utf-8")
    with pytest.raises(InvalidContract, match="must hold operationId"):
        summarise_upstream(checkout, read)
    (checkout / LOCK).unlink()
    with pytest.raises(UnreadableDocument, match="contract pin FILE"):
        summarise_upstream(checkout, read)
