"""Every operation of the upstream, as pinned in the lock file, is forwarded or refused exactly as the contract says."""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.contract_requests import contract_requests
from tests.support.servers import RelayProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

LOCK_FILE = Path(__file__).parents[2] / "spec" / "upstream.lock.tsv"
CONTRACT = load_contract(GENERATED, FULL)
BY_PLACE = {(operation.method, operation.path): operation for operation in CONTRACT}


def read_lock() -> list[dict[str, str]]:
    """The lines of the lock file by column."""
    with LOCK_FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


LOCK = read_lock()


@pytest.fixture(scope="module")
def caller(relay_process: RelayProcess) -> Iterator[httpx.Client]:
    """One client with the bootstrap key for all lines."""
    with httpx.Client(base_url=relay_process.url, headers=relay_process.headers, timeout=10) as caller:
        yield caller


def status_sent(received: RecordedRequest) -> int | None:
    """The status that the upstream answered; its thread notes it down just after sending it."""
    wait_until(lambda: received.status is not None)
    return received.status


@pytest.mark.parametrize("line", LOCK, ids=[line["operationId"] for line in LOCK])
def test_operation_is_forwarded_or_refused_as_its_bucket_says(
    line: dict[str, str], upstream: SimulatedUpstream, caller: httpx.Client
) -> None:
    """Unsupported ones never reach the upstream; all others reach it once, unchanged, and its answer comes back."""
    path, _, query = line["path"].partition("?")
    operation = BY_PLACE[line["method"], path]
    for request in contract_requests(CONTRACT, operation):
        upstream.recorder.clear()
        url = httpx.URL(request.path, query=query.encode()) if query else request.path
        reply = caller.request(request.method, url, headers=dict(request.headers), content=request.content)
        if not operation.served:
            assert reply.status_code == 403
            assert reply.json()["error"]["type"] == "relay_policy_error"
            assert reply.json()["error"]["code"] == "operation_unsupported"
            assert upstream.recorder.count == 0
            continue
        (received,) = upstream.recorder.requests
        assert (received.method, received.path, received.query) == (line["method"], request.path, query)
        assert received.operation_id == operation.id
        assert received.body_sha256 == hashlib.sha256(request.content or b"").hexdigest()
        assert reply.status_code == status_sent(received)
        assert reply.headers["x-request-id"].startswith("req_"), "the answer must be upstream's own"


def test_every_operation_of_the_lock_is_tried() -> None:
    """The lock file holds 288 different upstream operations, and each is one case of the test above."""
    (mark,) = (
        mark
        for mark in vars(test_operation_is_forwarded_or_refused_as_its_bucket_says)["pytestmark"]
        if mark.name == "parametrize"
    )
    assert len(mark.args[1]) == 288
    assert len({line["operationId"] for line in LOCK}) == 288
    assert len({(line["method"], line["path"]) for line in LOCK}) == 288


def test_contract_and_lock_name_the_same_operations() -> None:
    """Every line stands in the contract under its own id; every mirrored operation without a colon is in the lock."""
    mirrored = {(o.method, o.path): o.id for o in CONTRACT if o.mirrored and not o.colon_path}
    pinned = {(line["method"], line["path"]): line["operationId"] for line in LOCK if "?" not in line["path"]}
    assert mirrored == pinned


def test_variants_belong_to_an_operation_of_the_contract() -> None:
    """A line with a query is a variant: its path without the query is in the lock as well, with the same method."""
    places = {(line["method"], line["path"]) for line in LOCK}
    variants = [line for line in LOCK if "?" in line["path"]]
    assert {line["path"].partition("?")[2] for line in variants} == {"beta=true"}
    assert {(line["method"], line["path"].partition("?")[0]) for line in variants} <= places
