"""Answers of models for assistants: started, gathered, polled, paged and stopped, on good days and on bad ones."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from codegen.contract import EVENT_STREAM, FULL, Scope, load_contract
from handlers import response_wrappers
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED, create_app, create_services
from handlers.runtime.budget import MAX_REPLY_CHARACTERS
from handlers.runtime.settings import Settings
from handlers.runtime.shortening import escaped_length
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.model_responses import QUESTION, RESPONSE_ID, delta, error, event, response, stream_of
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import UPSTREAM_KEY, RelayProcess, ServerThread, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
START, GATHER, POLL, STOP = (
    CONTRACT.operations[name] for name in ("startResponse", "gatherResponseStream", "pollResponse", "stopResponse")
)
WRAPPERS = (START, GATHER, POLL, STOP)
MINUTES = 300.0
IDLE_TIMEOUT_SECONDS = 1
PLATFORM_CHARACTERS = 100_000
LONG_TEXT = 'She said "ü", then 🍵.\n' * 90_000  # 2 MB


@dataclass(frozen=True)
class Keyed:
    """A relay with a key per scope, which waits for no byte longer than `IDLE_TIMEOUT_SECONDS`."""

    relay: RelayProcess
    keys: dict[Scope, MadeKey]

    def client(self, scope: Scope) -> httpx.Client:
        """A client with the key of one scope."""
        return httpx.Client(base_url=self.relay.url, headers=self.keys[scope].headers, timeout=10)


@pytest.fixture(scope="module")
def keyed(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A relay with one key per scope."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = {scope: make_key(scope.value, scope) for scope in Scope}
    write_keys(folder / "keys.yaml", keys.values())
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_IDLE_TIMEOUT_SECONDS": str(IDLE_TIMEOUT_SECONDS),
    }
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield Keyed(relay, keys)


@pytest.fixture
def assistant(keyed: Keyed, upstream: SimulatedUpstream) -> Iterator[httpx.Client]:
    """What an assistant holds: a key with the scope `actions` alone."""
    del upstream
    with keyed.client(Scope.ACTIONS) as client:
        yield client


def call(client: httpx.Client, operation: Any, response_id: str = RESPONSE_ID, **fields: Any) -> httpx.Response:
    """Call a wrapper; fields go into the body, or into the query where there is none."""
    path = operation.path.replace("{response_id}", response_id)
    if operation.method == "GET":
        return client.request(operation.method, path, params=fields)
    return client.request(operation.method, path, json=fields if operation is STOP else {**QUESTION, **fields})


def answered(reply: httpx.Response) -> dict[str, Any]:
    """The answer in a good reply."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    answer: dict[str, Any] = reply.json()
    return answer


def received(upstream: SimulatedUpstream, operation_id: str) -> list[RecordedRequest]:
    """The calls of an operation that reached the upstream."""
    return [record for record in upstream.recorder.requests if record.operation_id == operation_id]


def bytes_of_a_beginning(client: httpx.Client) -> int:
    """How long the upstream's stream is up to its second piece of text."""
    stream = client.post("/v1/responses", json={**QUESTION, "stream": True}).content
    return stream.index(b"\n\n", stream.index(b'"delta":", after"')) + 2


class TestGoodDays:
    def test_an_answer_that_takes_a_while_comes_whole(
        self, assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """It is created in the background and asked for until it is finished."""
        upstream.faults.add(Fault(operation_id="createResponse", background_seconds=1.0))
        answer = answered(call(assistant, START, reasoning_effort="low", wait_seconds=10))
        assert (answer["status"], answer["truncated"]) == ("completed", False)
        assert answer["text"] == "On Friday, after the backup."
        assert {"sources", "usage"} <= set(answer)
        (created,) = received(upstream, "createResponse")
        assert b'"background": true' in created.body_start
        assert b"wait_seconds" not in created.body_start
        assert len(received(upstream, "getResponse")) >= 2

    def test_a_stream_is_gathered(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """The answer is the one that the upstream has kept, and only one call was needed."""
        answer = answered(call(assistant, GATHER))
        assert answer["status"] == "completed"
        assert upstream.recorder.count == 1
        kept = answered(call(assistant, POLL, answer["id"]))
        assert (kept["id"], kept["text"]) == (answer["id"], answer["text"])

    def test_the_same_call_is_done_once(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """With an `idempotency_key`, the second call gets the first answer."""
        for operation in (START, GATHER):
            first, second = [answered(call(assistant, operation, idempotency_key=operation.id)) for _ in range(2)]
            assert first == second
        assert len(received(upstream, "createResponse")) == 2


class TestLongWork:
    def test_minutes_of_work_are_started_polled_and_stopped(
        self, assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """Each call answers within its wait and says what to call next, until the answer is stopped."""
        upstream.faults.add(Fault(operation_id="createResponse", background_seconds=MINUTES))
        began = time.monotonic()
        answer = answered(call(assistant, START, wait_seconds=1))
        assert (answer["status"], answer["text"]) == ("in_progress", "")
        assert answer["how"] == f"Call pollResponse with response_id {answer['id']} in some seconds."
        polled = answered(call(assistant, POLL, answer["id"], wait_seconds=1))
        assert polled == answer
        assert 2 <= time.monotonic() - began < 5
        stopped = answered(call(assistant, STOP, answer["id"]))
        assert stopped["status"] == "cancelled"
        assert "how" not in stopped
        assert answered(call(assistant, POLL, answer["id"]))["status"] == "cancelled"

    def test_stopping_what_is_over_shows_how_it_ended(
        self, assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """Upstream refuses that; the assistant learns the state instead."""
        answer = answered(call(assistant, START))
        upstream.faults.add(Fault(operation_id="cancelResponse", status=400, body=error("It is completed.")))
        stopped = answered(call(assistant, STOP, answer["id"]))
        assert (stopped["status"], stopped["text"]) == ("completed", answer["text"])

    @pytest.mark.parametrize("way", ["stalls", "breaks"])
    def test_a_stream_that_stalls_or_breaks_is_handed_over(
        self, way: str, keyed: Keyed, assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """What has come is answered in time, and polling from `next` brings exactly the rest."""
        with keyed.client(Scope.CANONICAL) as client:
            size = bytes_of_a_beginning(client)
        limit: dict[str, Any] = {"silent_after_bytes": size} if way == "stalls" else {"cut_after_bytes": size + 10}
        upstream.faults.add(Fault(operation_id="createResponse", background_seconds=1.5, **limit))
        began = time.monotonic()
        beginning = answered(call(assistant, GATHER))
        assert time.monotonic() - began < IDLE_TIMEOUT_SECONDS + 1
        assert (beginning["status"], beginning["text"], beginning["next"]) == ("in_progress", "On Friday, after", 16)
        assert "offset 16" in beginning["how"]
        rest = answered(call(assistant, POLL, beginning["id"], offset=beginning["next"]))
        whole = answered(call(assistant, POLL, beginning["id"]))
        assert rest["status"] == "completed"
        assert beginning["text"] + rest["text"] == whole["text"]

    def test_a_stream_that_trickles_is_handed_over(
        self, upstream: SimulatedUpstream, upstream_server: ServerThread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Something comes all the time, but not soon enough: the time ends it, and the upstream sees it closed."""
        monkeypatch.setattr(response_wrappers, "GATHER_SECONDS", 1.0)
        upstream.faults.add(Fault(operation_id="createResponse", event_interval_seconds=0.18))
        key = make_key("actions", Scope.ACTIONS)
        settings = {"OPENAI_API_KEY": UPSTREAM_KEY, "OPENAI_BASE_URL": f"{upstream_server.url}/v1"}
        services = create_services(Settings.model_validate({**settings, "RELAY_KEY": key.text}))
        with (
            ServerThread(create_app(services)) as server,
            httpx.Client(base_url=server.url, headers=key.headers, timeout=10) as client,
        ):
            answer = answered(call(client, GATHER))
            assert answer["status"] == "in_progress"
            assert answer["text"] in {"On Friday", "On Friday, after"}
            (created,) = received(upstream, "createResponse")
            wait_until(lambda: created.disconnected_at)


class TestLongTexts:
    def test_two_megabytes_are_read_page_by_page(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """Joined, the pages are the text; no reply comes near what the platform takes."""
        upstream.faults.add(Fault(operation_id="getResponse", status=200, body=response(LONG_TEXT)))
        pages = []
        offset = 0
        while True:
            reply = call(assistant, POLL, offset=offset)
            page = answered(reply)
            assert escaped_length(reply.content) <= MAX_REPLY_CHARACTERS < PLATFORM_CHARACTERS
            pages.append(page["text"])
            if not page["truncated"]:
                break
            offset = page["next"]
            assert page["how"] == f"Call pollResponse with response_id {RESPONSE_ID} and offset {offset}."
        assert "".join(pages) == LONG_TEXT
        assert len(pages) < 60

    def test_two_megabytes_are_gathered(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """The first page comes with the way to the next one."""
        texts = [LONG_TEXT[start : start + 50_000] for start in range(0, len(LONG_TEXT), 50_000)]
        upstream.faults.add(Fault(operation_id="createResponse", events=stream_of(texts, response(LONG_TEXT))))
        reply = call(assistant, GATHER)
        answer = answered(reply)
        assert escaped_length(reply.content) <= MAX_REPLY_CHARACTERS
        assert (answer["status"], answer["truncated"]) == ("completed", True)
        assert answer["text"] == LONG_TEXT[: answer["next"]]


class TestBadDays:
    @pytest.mark.parametrize("operation", WRAPPERS, ids=lambda operation: operation.id)
    @pytest.mark.parametrize("status", [429, 500])
    def test_an_error_of_the_upstream_is_passed_on(
        self, operation: Any, status: int, assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """With its status, its body and its advice to wait."""
        body = error("Not now.", code="busy")
        upstream.faults.add(Fault(status=status, body=body, headers={"retry-after": "7"}))
        reply = call(assistant, operation)
        assert (reply.status_code, reply.json(), reply.headers["retry-after"]) == (status, body, "7")

    def test_trouble_while_waiting_does_not_lose_the_answer(
        self, assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """The id is known by then, so it is answered."""
        upstream.faults.add(Fault(operation_id="createResponse", background_seconds=MINUTES))
        upstream.faults.add(Fault(operation_id="getResponse", status=500))
        answer = answered(call(assistant, START, wait_seconds=1))
        assert (answer["status"], answer["id"][:5]) == ("queued", "resp_")

    @pytest.mark.parametrize(
        "texts",
        [
            ["\x00\ufffd garbage\n\n", "data: {]\n\n", ": comment\n\n", "data: [1]\n\n"],
            ["\ufeff", "\r\n\r\n", "event: response.completed\n\n", "data: null\n\n"],
            ["data: " + "x" * 100_000 + "\n\n", 'data: {"type": 7, "response": 7}\n\n'],
        ],
        ids=["binary", "empty", "long"],
    )
    def test_garbage_in_a_stream_does_no_harm(
        self, texts: list[str], assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """Around good events it is passed over; alone it is upstream's mistake."""
        good = stream_of(["On ", "Friday."], response("On Friday."))
        mixed = [item for found in good for item in (*texts, found)]
        upstream.faults.add(Fault(operation_id="createResponse", events=mixed, times=1))
        assert answered(call(assistant, GATHER))["text"] == "On Friday."
        upstream.faults.add(Fault(operation_id="createResponse", events=texts, times=1))
        assert_relay_error(call(assistant, GATHER), exc.UpstreamProtocolError)

    def test_an_endless_event_is_cut_off(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """Before it fills the relay's memory; what came before it counts."""
        endless = ["data: ", *["x" * 2**20] * 20]
        upstream.faults.add(Fault(operation_id="createResponse", events=[*stream_of(["On "]), *endless, "\n\n"]))
        answer = answered(call(assistant, GATHER))
        assert (answer["status"], answer["text"]) == ("in_progress", "On ")

    def test_an_error_in_a_stream_is_told(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """As a failed answer when there is one, otherwise as upstream's error."""
        trouble = event("error", code="server_error", message="The model broke.", param=None)
        upstream.faults.add(Fault(operation_id="createResponse", events=[*stream_of([]), delta("On "), trouble]))
        answer = answered(call(assistant, GATHER))
        assert (answer["status"], answer["error"], answer["text"]) == ("failed", "The model broke.", "On ")
        upstream.faults.clear()
        upstream.faults.add(Fault(operation_id="createResponse", events=[trouble]))
        reply = call(assistant, GATHER)
        assert (reply.status_code, reply.json()["error"]["message"]) == (502, "The model broke.")

    @pytest.mark.parametrize(
        "operation,upstreams,fault",
        [
            (START, "createResponse", Fault(silent=True)),
            (GATHER, "createResponse", Fault(silent=True)),
            (GATHER, "createResponse", Fault(silent_after_bytes=600)),
            (POLL, "getResponse", Fault(silent=True)),
            (STOP, "cancelResponse", Fault(silent=True)),
        ],
        ids=["start", "gather", "gather in mid-stream", "poll", "stop"],
    )
    def test_an_assistant_that_leaves_takes_the_call_along(
        self, operation: Any, upstreams: str, fault: Fault, relay: RelayProcess, upstream: SimulatedUpstream
    ) -> None:
        """The upstream sees the call that nobody waits for closed."""
        upstream.faults.add(fault)
        with httpx.Client(base_url=relay.url, headers=relay.headers, timeout=0.3) as client:
            with pytest.raises(httpx.ReadTimeout):
                call(client, operation)
            (record,) = received(upstream, upstreams)
            assert record.disconnected_at is None
        wait_until(lambda: record.disconnected_at)


class TestWhoMayAsk:
    @pytest.mark.parametrize("operation", WRAPPERS, ids=lambda operation: operation.id)
    @pytest.mark.parametrize("scope", Scope)
    def test_only_the_scope_of_assistants_opens_them(
        self, scope: Scope, operation: Any, keyed: Keyed, upstream: SimulatedUpstream
    ) -> None:
        """With any other single scope the call is refused and nothing goes upstream."""
        with keyed.client(scope) as client:
            upstream.faults.add(Fault(status=200, body=response("Done.")))
            if operation is GATHER:
                upstream.faults.clear()
            reply = call(client, operation)
        if scope is Scope.ACTIONS:
            assert answered(reply)["status"] == "completed"
        else:
            assert_relay_error(reply, exc.InsufficientScope)
            assert upstream.recorder.count == 0

    def test_a_refused_stream_names_the_wrapper(self, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
        """An assistant that asks for events is told what to call instead."""
        for reply, wrapper in (
            (assistant.post("/v1/responses", json={**QUESTION, "stream": True}), "startResponse"),
            (assistant.get(f"/v1/responses/{RESPONSE_ID}?stream=true"), "pollResponse"),
        ):
            refusal = assert_relay_error(reply, exc.StreamingNotAllowed)
            assert refusal["message"] == f"`stream` must be false for this key; call `{wrapper}` instead."
        assert upstream.recorder.count == 0

    def test_the_stream_itself_is_not_for_assistants(self, assistant: httpx.Client) -> None:
        """Its wrapper is; SDK clients go on to read events."""
        reply = assistant.post("/v1/responses:stream", json=QUESTION)
        assert_relay_error(reply, exc.InsufficientScope)

    def test_sdk_clients_stream_as_ever(self, client: httpx.Client) -> None:
        """A key with `canonical` gets the events themselves."""
        reply = client.post("/v1/responses", json={**QUESTION, "stream": True})
        assert reply.headers["content-type"].startswith(EVENT_STREAM)

    @pytest.mark.parametrize("fields", [{"wait_seconds": 31}, {"wait_seconds": -1}, {"stream": True}, {"input": ""}])
    def test_what_the_contract_does_not_offer_is_refused(
        self, fields: dict[str, Any], assistant: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """Before anything goes upstream."""
        assert_relay_error(call(assistant, START, **fields), exc.InvalidBody)
        assert upstream.recorder.count == 0
