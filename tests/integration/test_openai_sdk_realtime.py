import base64
from typing import Final

import orjson
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.realtime import RealtimeServerEvent

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.sockets import AUDIO_DELTA_BYTES, AUDIO_DELTAS
from tests.support.servers import UPSTREAM_KEY, RelayProcess

pytestmark = pytest.mark.integration

MODEL: Final = "gpt-realtime"
OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


async def test_client_secrets_are_handed_out(sdk: AsyncOpenAI) -> None:
    """A secret for a browser comes with the session that it opens."""
    secret = await sdk.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 600},
        session={
            "type": "realtime",
            "model": MODEL,
            "output_modalities": ["audio"],
            "audio": {"output": {"voice": "ash"}},
        },
    )
    assert secret.value.startswith("ek_")
    assert secret.session.type == "realtime"
    translation = await sdk.realtime.translations.client_secrets.create(
        session={"model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}
    )
    assert translation.value.startswith("ek_")
    assert translation.session.model == "gpt-realtime-translate"


async def test_a_call_is_opened_with_an_offer(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The offer arrives unchanged; the answer is SDP, and `Location` names the call on this relay."""
    answer = await sdk.realtime.calls.create(sdp=OFFER, session={"type": "realtime", "model": MODEL})
    assert answer.text.startswith("v=0")
    assert answer.response.status_code == 201
    assert answer.response.headers["content-type"] == "application/sdp"
    assert answer.response.headers["location"].startswith("/v1/realtime/calls/rtc_")
    assert OFFER.encode() in upstream.recorder.requests[0].body_start


async def test_a_call_is_answered_referred_and_ended(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """Everything that one can do to an incoming call reaches the upstream under the call's id."""
    calls = sdk.realtime.calls
    await calls.accept("rtc_1", type="realtime", model=MODEL, instructions="Be brief.", max_output_tokens="inf")
    await calls.refer("rtc_1", target_uri="tel:+14155550123")
    await calls.reject("rtc_2", status_code=486)
    await calls.hangup("rtc_1")
    recorded = upstream.recorder.requests
    assert [request.path for request in recorded] == [
        "/v1/realtime/calls/rtc_1/accept",
        "/v1/realtime/calls/rtc_1/refer",
        "/v1/realtime/calls/rtc_2/reject",
        "/v1/realtime/calls/rtc_1/hangup",
    ]
    assert orjson.loads(recorded[1].body_start) == {"target_uri": "tel:+14155550123"}


async def test_the_sessions_of_the_beta_are_created(sdk: AsyncOpenAI) -> None:
    """The older interface hands out sessions with their secrets as well."""
    session = await sdk.beta.realtime.sessions.create(model=MODEL, modalities=["audio", "text"], voice="alloy")
    assert session.client_secret.value.startswith("ek_")
    transcription = await sdk.beta.realtime.transcription_sessions.create(
        input_audio_format="pcm16", input_audio_transcription={"model": "gpt-4o-transcribe", "language": "en"}
    )
    assert transcription.client_secret.value.startswith("ek_")


async def test_a_chatkit_session_is_created_and_cancelled(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A session belongs to its user and can be cancelled under its id."""
    sessions = sdk.beta.chatkit.sessions
    created = await sessions.create(
        user="user-1",
        workflow={"id": "wf_example1", "state_variables": {"lang": "en"}},
        expires_after={"anchor": "created_at", "seconds": 300},
        rate_limits={"max_requests_per_1_minute": 5},
        chatkit_configuration={"file_upload": {"enabled": True, "max_files": 2}},
    )
    assert (created.user, created.status, created.workflow.id) == ("user-1", "active", "wf_example1")
    assert upstream.recorder.requests[0].header("openai-beta") == "chatkit_beta=v1"
    cancelled = await sessions.cancel(created.id)
    assert (cancelled.id, cancelled.status) == (created.id, "cancelled")


async def test_chatkit_threads_are_read_and_deleted(sdk: AsyncOpenAI) -> None:
    """A listed thread is found under its id with its items, and can be deleted."""
    threads = sdk.beta.chatkit.threads
    listed = [thread async for thread in threads.list(limit=5, order="desc")]
    assert listed
    found = await threads.retrieve(listed[0].id)
    assert found.id == listed[0].id
    items = [item async for item in threads.list_items(found.id, order="asc")]
    assert {item.thread_id for item in items} == {found.id}
    deleted = await threads.delete("cthr_another")
    assert (deleted.id, deleted.deleted) == ("cthr_another", True)


class TestSockets:
    async def test_the_async_client_speaks_and_listens(self, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
        """With `base_url` alone changed, `realtime.connect` configures a session, asks, and hears the whole answer."""
        heard: list[RealtimeServerEvent] = []
        async with (
            AsyncOpenAI(base_url=relay.base_url, api_key=relay.key) as client,
            client.realtime.connect(model=MODEL) as connection,
        ):
            await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
            await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(4_800)).decode())
            await connection.response.create()
            async for event in connection:
                heard.append(event)
                if event.type == "response.done":
                    break
        expect_answer(heard, upstream)

    # The SDK's own way to connect, which its library wants written otherwise from 17.1 on.
    @pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager:DeprecationWarning")
    def test_the_sync_client_speaks_and_listens(self, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
        """The same for the client of programs without an event loop."""
        heard: list[RealtimeServerEvent] = []
        with (
            OpenAI(base_url=relay.base_url, api_key=relay.key) as client,
            client.realtime.connect(model=MODEL) as connection,
        ):
            connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
            connection.input_audio_buffer.append(audio=base64.b64encode(bytes(4_800)).decode())
            connection.response.create()
            for event in connection:
                heard.append(event)
                if event.type == "response.done":
                    break
        expect_answer(heard, upstream)


def expect_answer(heard: list[RealtimeServerEvent], upstream: SimulatedUpstream) -> None:
    """A session under the relay's credentials, updated, with all audio of one answer in order."""
    assert [event.type for event in heard[:3]] == ["session.created", "session.updated", "response.created"]
    audio = [base64.b64decode(event.delta) for event in heard if event.type == "response.output_audio.delta"]
    assert audio == [bytes([number]) * AUDIO_DELTA_BYTES for number in range(AUDIO_DELTAS)]
    (record,) = upstream.recorder.sockets
    assert record.authorization == f"Bearer {UPSTREAM_KEY}"
    assert record.request.query == f"model={MODEL}"
    sent = [orjson.loads(text)["type"] for text in record.texts]
    assert sent == ["session.update", "input_audio_buffer.append", "response.create"]
