import asyncio
import time

import openai
import pytest
from openai import AsyncOpenAI

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.servers import RELAY_KEY, UPSTREAM_KEY

pytestmark = pytest.mark.integration

MODEL = "gpt-6-luna"


async def test_only_the_relays_own_account_reaches_the_upstream(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """Key, organisation and project of the SDK stay behind; its telemetry and idempotency key travel on."""
    stranger = sdk.with_options(organization="org-mine", project="proj_mine", default_headers={"X-Mine": "1"})
    await stranger.embeddings.create(
        model="text-embedding-3-small", input="Hello", extra_headers={"Idempotency-Key": "idem-1", "Cookie": "a=b"}
    )
    (recorded,) = upstream.recorder.requests
    assert recorded.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    names = {name.lower() for name, _ in recorded.headers}
    assert names.isdisjoint({"openai-organization", "openai-project", "x-mine", "cookie"})
    assert all(RELAY_KEY not in value and "mine" not in value for _, value in recorded.headers)
    assert recorded.header("idempotency-key") == "idem-1"
    assert recorded.header("x-stainless-lang") == "python"
    assert (recorded.header("user-agent") or "").endswith(f"/Python {openai.__version__}")


async def test_replies_carry_upstreams_request_id_and_limits_but_not_its_account(sdk: AsyncOpenAI) -> None:
    """What a caller needs for support and back-off comes through; organisation and cookies do not."""
    raw = await sdk.embeddings.with_raw_response.create(model="text-embedding-3-small", input="Hello")
    assert raw.request_id is not None
    assert raw.request_id.startswith("req_")
    assert raw.headers["x-ratelimit-remaining-requests"] == "9999"
    assert raw.headers["openai-processing-ms"].isdigit()
    assert raw.headers["x-relay-request-id"].startswith("rly_")
    assert "openai-organization" not in raw.headers
    assert "set-cookie" not in raw.headers
    parsed = await sdk.responses.create(model=MODEL, input="Hello")
    assert parsed._request_id is not None
    assert parsed._request_id.startswith("req_")


async def test_the_sdk_retries_as_upstream_advises(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A busy upstream is asked again by the SDK, never by the relay."""
    upstream.faults.add(Fault(operation_id="createResponse", times=2, status=429, headers={"retry-after-ms": "1"}))
    created = await sdk.with_options(max_retries=2).responses.create(model=MODEL, input="Hello")
    assert created.output_text
    counts = [request.header("x-stainless-retry-count") for request in upstream.recorder.requests]
    assert counts == ["0", "1", "2"]


async def test_a_compressed_reply_is_understood(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A reply that upstream compresses arrives compressed and is read by the SDK."""
    upstream.faults.add(Fault(operation_id="createResponse", gzip=True))
    raw = await sdk.responses.with_raw_response.create(model=MODEL, input="Hello")
    assert raw.headers["content-encoding"] == "gzip"
    assert raw.parse().output_text


async def test_giving_up_waiting_cancels_the_work(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The SDK's time limit ends the upstream call as well."""
    upstream.faults.add(Fault(operation_id="createResponse", silent=True))
    with pytest.raises(openai.APITimeoutError):
        await sdk.with_options(timeout=0.3).responses.create(model=MODEL, input="Hello")
    (recorded,) = upstream.recorder.requests
    deadline = time.monotonic() + 5
    while recorded.disconnected_at is None and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert recorded.disconnected_at is not None


async def test_values_in_paths_are_encoded_once(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A model name with spaces, colons, percent signs and letters beyond ASCII arrives as the same name."""
    name = "ft:große modelle:100%25"
    assert (await sdk.models.retrieve(name)).id == name
    (recorded,) = upstream.recorder.requests
    assert recorded.path.count("/") == 3


async def test_many_calls_share_one_client(sdk: AsyncOpenAI) -> None:
    """Of many calls at the same time or in a row, none gets another one's reply."""
    numbers = [str(number) for number in range(50)]
    calls = [sdk.responses.create(model=MODEL, input="Hello", metadata={"number": number}) for number in numbers]
    replies = await asyncio.gather(*calls)
    assert [reply.metadata for reply in replies] == [{"number": number} for number in numbers]
    assert len({reply.id for reply in replies}) == len(numbers)
