"""
What the upstream's document allows, the relay never refuses: a pinned sample of generated requests.

The large run is `scripts/false_refusals --document FILE`; with `--examples 8` and
`--write-sample tests/data/valid_requests.jsonl` it writes the sample anew.
"""

from collections import Counter
from pathlib import Path

import httpx
import pytest

from codegen.contract import FULL, JSON, Operation, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.matching import OperationIndex
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.false_refusals import ANSWER, refusal_of
from tests.support.valid_requests import ValidRequest, read_sample

pytestmark = pytest.mark.fuzz

SAMPLE = Path(__file__).parent.parent / "data" / "valid_requests.jsonl"
CONTRACT = load_contract(GENERATED, FULL)
LEAST_PER_OPERATION = 8


@pytest.fixture(scope="module")
def sample() -> list[ValidRequest]:
    """The pinned requests."""
    return read_sample(SAMPLE)


def _can_be_json(operation: Operation) -> bool:
    return operation.body is None or not operation.body.required or JSON in operation.request_media


def test_no_request_of_the_sample_is_refused(
    sample: list[ValidRequest], client: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Every request that is valid by the upstream's document reaches the upstream."""
    upstream.faults.add(ANSWER)
    refusals = [refusal for request in sample if (refusal := refusal_of(request, client))]
    assert refusals == []
    assert upstream.recorder.count == len(sample)


def test_sample_covers_every_served_operation(sample: list[ValidRequest]) -> None:
    """The sample asks every mirrored operation that is served and can be asked without a multipart body."""
    index = OperationIndex((operation, operation.id) for operation in CONTRACT)
    found: Counter[str] = Counter()
    for request in sample:
        match = index.match(request.path)
        assert match is not None, request
        found[match.methods[request.method]] += 1
    wanted = {o.id for o in CONTRACT if o.mirrored and o.served and not o.colon_path and _can_be_json(o)}
    assert wanted == set(found)
    assert min(found.values()) >= LEAST_PER_OPERATION


def test_refusals_are_seen(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """A request that the relay refuses counts as refused and does not reach the upstream."""
    upstream.faults.add(ANSWER)
    refusal = refusal_of(ValidRequest("POST", "/v1/embeddings", "", '{"model":5}'), client)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "invalid_body")
    assert upstream.recorder.count == 0
