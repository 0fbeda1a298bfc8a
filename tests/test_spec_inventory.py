"""Holds the contract against the pinned inventory of the upstream, spec/upstream.lock.tsv. Opens no sockets."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from codegen.contract import read_contract
from codegen.pin import LOCK, read_lock
from codegen.reader import Document
from codegen.rules import upstream_classified
from codegen.upstream import VARIANT
from tests.support.documents import ROOT, edited, node_of

FULL_CONTRACT = read_contract(ROOT)
UPSTREAM = list(read_lock(ROOT / LOCK).values())

Change = Callable[[Document], object]


def test_every_upstream_operation_is_in_the_contract() -> None:
    """Each line of the lock file is classified with its own operationId and request media types, and no other is."""
    assert list(upstream_classified(FULL_CONTRACT, UPSTREAM)) == []


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda d: d["paths"].pop("/v1/models"), "GET /v1/models is not in the contract"),
        (lambda d: node_of(d, "listModels").update(operationId="listTheModels"), "listTheModels in the contract"),
        (lambda d: node_of(d, "listModels").update(tags=["Relay"]), "not under a mirrored tag"),
        (lambda d: node_of(d, "createEmbedding").pop("requestBody"), "POST /v1/embeddings takes []"),
        (
            lambda d: node_of(d, "listModels")["responses"].pop("200"),
            "GET /v1/models does not list the reply ['application/json'] of upstream",
        ),
        (
            lambda d: d["paths"].update(
                {"/v1/invented": {"get": {**node_of(d, "listModels"), "operationId": "invented"}}}
            ),
            "GET /v1/invented is mirrored and not upstream's",
        ),
        (lambda d: [node_of(d, "getAssistant").pop(k) for k in ("deprecated", "x-sunset")], "is deprecated upstream"),
    ],
)
def test_a_difference_from_the_upstream_is_found(change: Change, word: str) -> None:
    """Missing, renamed, misplaced, changed and invented operations are reported with what differs."""
    findings = list(upstream_classified(edited(FULL_CONTRACT, change), UPSTREAM))
    assert any(word in f"{finding.subject} {finding.problem}" for finding in findings)
    assert {finding.rule for finding in findings} == {"upstream-classified"}


def test_variants_are_folded_into_their_path() -> None:
    """Every `?beta=true` line has a plain line beside it, and no path of the contract holds a query."""
    plain = {operation.place for operation in UPSTREAM if not operation.variant}
    variants = [operation.plain_place for operation in UPSTREAM if operation.variant]
    assert variants
    assert set(variants) <= plain
    assert not [operation.path for operation in FULL_CONTRACT if "?" in operation.path]


def test_a_variant_without_its_plain_line_is_found() -> None:
    """A lock file that names only the variant of an operation is not what `contract pin` writes."""
    models = next(operation for operation in UPSTREAM if operation.path == "/v1/models")
    others = [operation for operation in UPSTREAM if operation is not models]
    variant = replace(models, path=models.path + VARIANT, id=f"beta_{models.id}")
    problems = [finding.problem for finding in upstream_classified(FULL_CONTRACT, [*others, variant])]
    assert "has no plain line beside it" in problems


def test_a_lost_line_is_found() -> None:
    """An operation of upstream's whose line is gone from the lock file is reported as invented."""
    findings = list(upstream_classified(FULL_CONTRACT, [o for o in UPSTREAM if o.path != "/v1/models"]))
    assert [finding.subject for finding in findings] == ["GET /v1/models"]
