"""Comments in idle event streams: they keep connections open and change nothing else."""

import http.client
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from openai import AsyncOpenAI

from handlers.runtime.stream_comments import COMMENT
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.integration.conftest import AsyncFace
from tests.support.raw_http import RawConnection, RawReply, raw_request
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

KEEP_ALIVE_SECONDS = 0.1
IDLE_SECONDS = 1.5
BODY = b'{"model": "m", "input": "x", "stream": true}'
EVENTS = ("event: a\ndata: {}\n\n", "data: {}\r\n\r\n", "data: 1\ndata: 2\n\n")


@pytest.fixture(scope="module")
def patient_relay(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay that comments soon."""
    environment = {
        "RELAY_SSE_KEEPALIVE_SECONDS": str(KEEP_ALIVE_SECONDS),
        "RELAY_IDLE_TIMEOUT_SECONDS": str(IDLE_SECONDS),
    }
    with running_relay(tmp_path_factory.mktemp("patient"), upstream_server.url, environment) as relay:
        yield relay


@pytest.fixture
def patient(patient_relay: RelayProcess, upstream: SimulatedUpstream) -> RelayProcess:
    """The same, with a fresh recorder behind it."""
    del upstream
    return patient_relay


def stream(relay: RelayProcess, path: str = "/v1/responses") -> RawReply:
    """Ask for a stream and read it to its end."""
    headers = {**relay.headers, "Content-Type": "application/json", "Connection": "close"}
    with RawConnection(relay.url) as connection:
        connection.send(raw_request("POST", path, headers.items(), BODY))
        try:
            return connection.reply("POST")
        except http.client.IncompleteRead as error:
            raise AssertionError(error.partial) from None


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses:stream"])
def test_silence_between_events_is_filled(path: str, patient: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Comments stand between events only; without them the stream is what the upstream sent."""
    upstream.faults.add(Fault("createResponse", events=EVENTS, event_interval_seconds=KEEP_ALIVE_SECONDS * 8))
    reply = stream(patient, path)
    assert reply.complete
    assert reply.body.count(COMMENT) >= 2
    assert reply.body.replace(COMMENT, b"").decode() == "".join(EVENTS)
    for event in EVENTS:
        assert event.encode() in reply.body
    assert reply.header("x-accel-buffering") == "no"
    assert reply.header("cache-control")


@pytest.mark.parametrize("cut", [1, 8, 15, 16])
def test_silence_within_an_event_is_left_alone(cut: int, patient: RelayProcess, upstream: SimulatedUpstream) -> None:
    """An event that is not whole gets nothing into it, and comments do not count as news from the upstream."""
    upstream.faults.add(Fault("createResponse", events=EVENTS, silent_after_bytes=cut))
    reply = stream(patient)
    assert (reply.status, reply.complete) == (200, False)
    assert reply.body == EVENTS[0][:cut].encode()


def test_a_silent_upstream_still_ends_its_stream(patient: RelayProcess, upstream: SimulatedUpstream) -> None:
    """However many comments have been written meanwhile."""
    upstream.faults.add(Fault("createResponse", events=EVENTS, silent_after_bytes=len(EVENTS[0])))
    reply = stream(patient)
    assert (reply.status, reply.complete) == (200, False)
    assert reply.body.startswith(EVENTS[0].encode() + COMMENT * 2)
    assert reply.body.replace(COMMENT, b"") == EVENTS[0].encode()


def test_other_replies_get_no_comment(patient: RelayProcess, upstream: SimulatedUpstream) -> None:
    """JSON that falls silent stays JSON, and an error that says it is an event stream stays as it is."""
    upstream.faults.add(Fault("listModels", silent_after_bytes=10))
    with RawConnection(patient.url) as connection:
        reply = connection.exchange("GET", "/v1/models", patient.headers.items())
    assert (reply.complete, reply.header("x-accel-buffering")) == (False, None)
    assert len(reply.body) == 10
    upstream.faults.add(Fault("createResponse", status=500, headers={"content-type": "text/event-stream"}))
    failed = stream(patient)
    assert failed.status == 500
    assert COMMENT not in failed.body


def test_no_comments_are_written_where_none_are_wanted(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """A short silence is none by default."""
    upstream.faults.add(Fault("createResponse", events=EVENTS, event_interval_seconds=0.5))
    assert stream(relay).body.decode() == "".join(EVENTS)


@pytest.fixture(params=["sync", "async"])
async def patient_sdk(request: pytest.FixtureRequest, patient: RelayProcess) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, both kinds."""
    from openai import OpenAI

    if request.param == "sync":
        with OpenAI(base_url=patient.base_url, api_key=patient.key, max_retries=0, timeout=20) as client:
            yield AsyncFace(client)  # type: ignore[misc]
    else:
        async with AsyncOpenAI(base_url=patient.base_url, api_key=patient.key, max_retries=0, timeout=20) as client:
            yield client


async def test_the_official_sdk_does_not_see_comments(patient_sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The same events in the same order as without a pause, for responses and for chat."""
    for interval in (0.0, KEEP_ALIVE_SECONDS * 4):
        upstream.faults.clear()
        upstream.faults.add(Fault(event_interval_seconds=interval))
        responses = await patient_sdk.responses.create(model="m", input="x", stream=True)
        kinds = [event.type async for event in responses]
        chat = await patient_sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        chunks = [[choice.delta.model_dump() for choice in chunk.choices] async for chunk in chat]
        if not interval:
            expected = (kinds, chunks)
    assert len(expected[0]) > 3
    assert (kinds, chunks) == expected


def test_tools_speak_for_themselves(patient: RelayProcess, upstream: SimulatedUpstream) -> None:
    """A tool's event stream holds its own messages only."""
    upstream.faults.add(Fault("createResponse", delay_seconds=KEEP_ALIVE_SECONDS * 8))
    call = {"name": "createResponse", "arguments": {"model": "m", "input": "x"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {**patient.headers, "Accept": "application/json, text/event-stream"}
    reply = httpx.post(f"{patient.url}/mcp", headers=headers, json=message, timeout=20)
    assert upstream.recorder.count == 1, reply.text
    assert COMMENT not in reply.content
