"""Holds the contract against the pinned inventory of the upstream, spec/upstream.lock.tsv. Opens no sockets."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.contract import Contract, read_contract
from codegen.reader import Document
from tests.support.documents import ROOT, edited, node_of

FULL_CONTRACT = read_contract(ROOT)
LOCK = ROOT / "spec" / "upstream.lock.tsv"
BETA = "?beta=true"

Change = Callable[[Document], object]


def upstream(path: Path = LOCK) -> list[dict[str, str]]:
    """The pinned operations of the upstream, `-` read as empty."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))
    return [{name: "" if value == "-" else value for name, value in row.items()} for row in rows]


def inventory_findings(contract: Contract, rows: list[dict[str, str]]) -> list[str]:
    """Where the contract and the upstream's inventory differ; a variant with `?beta=true` is its plain operation."""
    by_place = {(operation.method, operation.path): operation for operation in contract}
    findings = []
    for row in rows:
        path = row["path"].removesuffix(BETA)
        plain_id = row["operationId"].removeprefix("beta_") if path != row["path"] else row["operationId"]
        where = f"{row['method']} {row['path']}"
        operation = by_place.get((row["method"], path))
        if operation is None:
            findings.append(f"{where} is not in the contract")
            continue
        if operation.id != plain_id:
            findings.append(f"{where} is {operation.id} in the contract and {plain_id} upstream")
        if not operation.mirrored:
            findings.append(f"{where} is not under a mirrored tag")
        media = frozenset(filter(None, row["request_media"].split(",")))
        if operation.served and operation.request_media != media:
            findings.append(f"{where} takes {sorted(operation.request_media)}, upstream takes {sorted(media)}")
        if row["deprecated"] == "deprecated" and not operation.deprecated:
            findings.append(f"{where} is deprecated upstream")
    known = {(row["method"], row["path"].removesuffix(BETA)) for row in rows}
    findings += [
        f"{o.method} {o.path} is mirrored and not upstream's"
        for o in contract
        if o.mirrored and not o.colon_path and (o.method, o.path) not in known
    ]
    return findings


def test_every_upstream_operation_is_in_the_contract() -> None:
    """Each line of the lock file is classified with its own operationId and request media types, and no other is."""
    rows = upstream()
    assert len({(row["method"], row["path"]) for row in rows}) == len(rows)
    assert inventory_findings(FULL_CONTRACT, rows) == []


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda d: d["paths"].pop("/v1/models"), "GET /v1/models is not in the contract"),
        (lambda d: node_of(d, "listModels").update(operationId="listTheModels"), "listTheModels in the contract"),
        (lambda d: node_of(d, "listModels").update(tags=["Relay"]), "not under a mirrored tag"),
        (lambda d: node_of(d, "createEmbedding").pop("requestBody"), "POST /v1/embeddings takes []"),
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
    findings = inventory_findings(edited(FULL_CONTRACT, change), upstream())
    assert any(word in finding for finding in findings)


def test_variants_are_folded_into_their_path() -> None:
    """Every `?beta=true` line has a plain line beside it, and no path of the contract holds a query."""
    rows = upstream()
    plain = {(row["method"], row["path"]) for row in rows if not row["path"].endswith(BETA)}
    variants = [(row["method"], row["path"].removesuffix(BETA)) for row in rows if row["path"].endswith(BETA)]
    assert variants
    assert set(variants) <= plain
    assert not [operation.path for operation in FULL_CONTRACT if "?" in operation.path]
