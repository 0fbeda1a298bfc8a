import httpx
import pytest

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from tests.integration.conftest import SDK_KINDS

pytestmark = pytest.mark.integration

# operationId to the reason why the SDK cannot reach it; each is driven by plain HTTP below. It may only shrink.
BEYOND_THE_SDK = {
    "cancelEvalRun": "the SDK posts to `…/runs/{run_id}/cancel`, which the pinned upstream document does not have",
    "createResponseStream": "the relay's own; the SDK streams with `stream=True`",
}


def test_a_run_of_an_eval_is_cancelled_over_plain_http(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """`cancelEvalRun`: the run is found cancelled under its id."""
    criterion = {"type": "string_check", "name": "x", "input": "a", "reference": "b", "operation": "eq"}
    parent = client.post(
        "/v1/evals",
        json={
            "data_source_config": {"type": "custom", "item_schema": {"type": "object"}},
            "testing_criteria": [criterion],
        },
    ).json()
    source = {"type": "jsonl", "source": {"type": "file_id", "id": "file-example1"}}
    run = client.post(f"/v1/evals/{parent['id']}/runs", json={"data_source": source}).json()
    reply = client.post(f"/v1/evals/{parent['id']}/runs/{run['id']}")
    assert reply.status_code == 200
    assert (reply.json()["id"], reply.json()["status"]) == (run["id"], "canceled")
    assert upstream.recorder.requests[-1].operation_id == "cancelEvalRun"


def test_a_response_is_streamed_over_plain_http(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """`createResponseStream`: the answer is an event stream although the body does not ask for one."""
    reply = client.post("/v1/responses:stream", json={"model": "gpt-6-luna", "input": "Hello"})
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "event: response.completed" in reply.text
    assert upstream.recorder.requests[-1].operation_id == "createResponse"


@pytest.mark.parametrize("kind", SDK_KINDS)
def test_every_served_operation_has_been_answered_to_the_sdk(kind: str, exercised: dict[str, set[str]]) -> None:
    """Over all modules beside this one, the SDK has had each operation answered, but for those listed above."""
    served = {o.id for o in load_contract(GENERATED, FULL) if o.mirrored and o.served}
    missing = served - exercised[kind]
    assert missing == set(BEYOND_THE_SDK), "run all of tests/integration/test_openai_sdk_*.py together"
