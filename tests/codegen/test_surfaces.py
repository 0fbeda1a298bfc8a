import re

import pytest

from codegen.contract import Bucket, Operation, Scope, read_contract
from codegen.surfaces import Surface, surfaces
from tests.support.documents import ROOT, single

WHY = {"x-policy-reason": "It is so.", "x-policy-review": None}
OPERATOR = {"security": [{"relayBearer": ["operator"]}]}
EXPECTED: list[tuple[dict[str, object], list[Surface]]] = [
    ({"x-policy-bucket": "PROXY_HARNESS"}, [Surface.PROXY, Surface.CANONICAL]),
    ({"x-policy-bucket": "ACTIONS_DIRECT", "x-policy-review": None}, [Surface.ACTIONS, Surface.CANONICAL]),
    (
        {"x-policy-bucket": "PROXY_HARNESS", "x-policy-wrapper": "wrapThing"},
        [Surface.WRAPPER, Surface.PROXY, Surface.CANONICAL],
    ),
    (
        {"x-policy-bucket": "ACTIONS_DIRECT", "x-policy-review": None, "x-policy-wrapper": "wrapThing"},
        [Surface.ACTIONS, Surface.WRAPPER, Surface.CANONICAL],
    ),
    ({"x-policy-bucket": "WRAPPER_REQUIRED", **WHY}, [Surface.CANONICAL]),
    (
        {"x-policy-bucket": "WRAPPER_REQUIRED", "x-policy-wrapper": "wrapThing", **WHY},
        [Surface.WRAPPER, Surface.CANONICAL],
    ),
    ({"x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "hidden", **WHY}, [Surface.CANONICAL]),
    ({"x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "unsupported", **WHY}, []),
    ({"x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "internal", **WHY, **OPERATOR}, [Surface.OPERATOR]),
    ({"x-policy-bucket": "EXCLUDED", "x-policy-exclusion": "hidden", **WHY, "security": []}, [Surface.OPEN]),
]
COLUMNS = {"Actions": Surface.ACTIONS, "Proxy": Surface.PROXY, "Canonical": Surface.CANONICAL}
COLUMNS["Operator"] = Surface.OPERATOR


@pytest.mark.parametrize("changes, expected", EXPECTED, ids=lambda value: str(value)[:60])
def test_an_operation_is_reached_as_its_decision_says(changes: dict[str, object], expected: list[Surface]) -> None:
    """Bucket, exclusion, wrapper and scopes together say by which surfaces an operation is reached."""
    assert list(surfaces(single(changes))) == expected


def test_the_surfaces_are_those_of_the_table_in_the_governance() -> None:
    """For every operation behind the canonical or operator scope, the ✔ of its row are its surfaces."""
    text = (ROOT / "GOVERNANCE.md").read_text(encoding="utf-8")
    head, _rule, *rows = re.findall(r"^\|.*\|$", text.split("## 4. Buckets")[1].split("## 5.")[0], re.MULTILINE)
    names = [cell.strip() for cell in head.strip("|").split("|")][1:]
    table = {}
    for row in rows:
        first, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        table[tuple(re.findall(r"`(\w+)`", first))] = {
            COLUMNS[name] for name, cell in zip(names, cells, strict=True) if cell == "✔"
        }
    compared = [o for o in read_contract(ROOT) if o.scopes & {Scope.CANONICAL, Scope.OPERATOR}]
    assert {verdict(operation) for operation in compared} == set(table)
    for operation in compared:
        assert set(surfaces(operation)) - {Surface.WRAPPER} == table[verdict(operation)], operation.id


def test_the_proxy_itself_is_offered_to_assistants_and_reached_by_its_own_scope_alone() -> None:
    """`/v1/proxy` is in the Actions document, but no key opens it but one that has its scope."""
    operation = read_contract(ROOT).operations["forwardRequest"]
    assert (operation.bucket, set(operation.scopes)) == (Bucket.ACTIONS_DIRECT, {Scope.PROXY})
    assert list(surfaces(operation)) == [Surface.ACTIONS, Surface.PROXY]


def test_wrappers_are_for_assistants_alone() -> None:
    """SDK clients have what they wrap."""
    wrappers = [operation for operation in read_contract(ROOT) if operation.wraps]
    assert wrappers
    assert all(list(surfaces(operation)) == [Surface.ACTIONS] for operation in wrappers)


def verdict(operation: Operation) -> tuple[str, ...]:
    """Bucket and exclusion, as the first column writes them."""
    return (operation.bucket, operation.exclusion) if operation.exclusion else (operation.bucket,)
