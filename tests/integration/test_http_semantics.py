"""Methods, connections and streams work as HTTP and server-sent events say."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from codegen.contract import EVENT_STREAM, FULL, JSON, Operation, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.contract_requests import example_of, plain_path
from tests.support.raw_http import RawConnection
from tests.support.servers import RelayProcess, ServerThread, running_relay, simulated_upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
STREAMING = [operation for operation in CONTRACT if operation.streaming and operation.mirrored]
RESPONSE = {"model": "m", "input": "x"}
EVENT_INTERVAL_SECONDS = 0.08
MAX_JSON_BYTES = 5_000
# Differ between two replies to the same question.
FLEETING = {"date", "openai-processing-ms", "x-relay-request-id", "x-request-id"}


@dataclass(frozen=True)
class Slow:
    """An upstream that pauses between the events of a stream, and a relay with a small limit before it."""

    upstream: SimulatedUpstream
    relay: RelayProcess


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    """`EVENT_INTERVAL_SECONDS` and `MAX_JSON_BYTES`."""
    upstream = simulated_upstream(event_interval_seconds=EVENT_INTERVAL_SECONDS)
    environment = {"RELAY_MAX_JSON_BYTES": str(MAX_JSON_BYTES)}
    with (
        ServerThread(upstream) as server,
        running_relay(tmp_path_factory.mktemp("slow"), server.url, environment) as relay,
    ):
        yield Slow(upstream, relay)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models",
        "/v1/files/none",
        "/v1/files/file-size-100000000/content",
        "/v1/organization/users",
        "/v1/files?limit=x",
        "/v1/nothing",
        "/health",
        "/openapi.json",
        "/docs/docs.css",
    ],
)
def test_head_answers_like_get_without_a_body(target: str, relay: RelayProcess) -> None:
    """Status and headers are those of GET, the length included, and the connection goes on."""
    with (
        RawConnection(relay.url) as connection,
        httpx.stream("GET", f"{relay.url}{target}", headers=relay.headers) as got,
    ):
        for _ in range(2):
            head = connection.exchange("HEAD", target, relay.headers.items())
            assert head.status == got.status_code
            assert head.body == b""
            steady = {name: value for name, value in head.headers if name not in FLEETING}
            assert steady == {name: value for name, value in got.headers.items() if name not in FLEETING}
            assert "content-length" in steady


def test_head_asks_the_upstream_with_get_and_leaves_the_content_there(
    relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """The upstream need not know HEAD; nobody waits for a body that nobody wants, and the call is ended."""
    upstream.faults.add(Fault(silent_after_bytes=0))
    with RawConnection(relay.url) as connection:
        head = connection.exchange("HEAD", "/v1/files/file-size-1000/content", relay.headers.items())
    assert (head.status, head.header("content-length")) == (200, "1000")
    (received,) = upstream.recorder.requests
    assert received.method == "GET"
    wait_until(lambda: received.disconnected_at is not None)


def test_options_names_the_methods_of_every_path_and_needs_no_key(
    relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """204 with `Allow`; nothing about other origins, nothing upstream."""
    methods: dict[str, set[str]] = {}
    for operation in CONTRACT:
        methods.setdefault(plain_path(operation), set()).add(operation.method)
    with httpx.Client(base_url=relay.url) as anybody:
        for path, known in methods.items():
            reply = anybody.options(path, headers={"Origin": "https://example.com"})
            assert (reply.status_code, reply.content) == (204, b"")
            assert "content-length" not in reply.headers
            expected = {*known, "OPTIONS", *({"HEAD"} if "GET" in known else ())}
            assert set(reply.headers["allow"].split(", ")) == expected, path
            assert not [name for name in reply.headers if name.startswith("access-control-")]
        assert anybody.options("/v1/nothing").status_code == 404
    assert upstream.recorder.count == 0


def test_a_connection_survives_refusals(slow: Slow) -> None:
    """After every kind of refusal, whether its body was read or not, the next request on the connection is answered."""
    slow.upstream.recorder.clear()
    key = slow.relay.headers
    body = orjson.dumps(RESPONSE)
    large = b" " * 300_000
    refused: list[tuple[str, str, dict[str, str], bytes, int]] = [
        ("POST", "/v1/nothing", {**key, "Content-Type": JSON}, large, 404),
        ("PUT", "/v1/models", {**key, "Content-Type": JSON}, large, 405),
        ("POST", "/v1/responses", {"Content-Type": JSON}, large, 401),
        ("POST", "/v1/assistants", {**key, "Content-Type": JSON}, large, 403),
        ("POST", "/v1/responses", {**key, "Content-Type": "text/plain"}, large, 415),
        ("POST", "/v1/responses", {**key, "Content-Type": JSON}, large, 413),
        ("POST", "/v1/responses", {**key, "Content-Type": JSON}, b"{", 400),
        ("POST", "/v1/responses", {**key, "Content-Type": JSON, "Expect": "x"}, large, 417),
        ("POST", "/v1/files?limit=x", {**key, "Content-Type": JSON}, large, 415),
        ("GET", "/v1/files?limit=x", key, large, 400),
    ]
    with RawConnection(slow.relay.url) as connection:
        for method, target, headers, content, status in refused:
            assert connection.exchange(method, target, headers.items(), content).status == status
            assert connection.exchange("GET", "/livez").status == 200
        assert slow.upstream.recorder.count == 0
        answer = connection.exchange("POST", "/v1/responses", {**key, "Content-Type": JSON}.items(), body)
        assert (answer.status, answer.complete) == (200, True)


def test_a_body_where_none_belongs_is_not_forwarded(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """A body on an operation without one is dropped, and is not taken for the next request."""
    smuggled = b"GET /v1/batches HTTP/1.1\r\nHost: relay.test\r\n\r\n"
    with RawConnection(relay.url) as connection:
        headers = {**relay.headers, "Content-Type": JSON}
        assert connection.exchange("GET", "/v1/models", headers.items(), smuggled).status == 200
        assert connection.exchange("GET", "/livez").status == 200
    (received,) = upstream.recorder.requests
    assert (received.path, received.body_size) == ("/v1/models", 0)


@pytest.mark.parametrize("operation", STREAMING, ids=[operation.id for operation in STREAMING])
def test_a_stream_arrives_event_by_event(operation: Operation, slow: Slow) -> None:
    """Every event but the last is with the client while the upstream is still at work."""
    with httpx.Client(base_url=slow.relay.url, headers=slow.relay.headers, timeout=10) as client:
        path = plain_path(operation)
        if operation.method == "GET":
            created = client.post("/v1/responses", json={**RESPONSE, "background": True}).json()
            path = f"/v1/responses/{created['id']}?stream=true"
        slow.upstream.recorder.clear()
        with client.stream(operation.method, path, **streaming_body(operation)) as reply:
            assert reply.status_code == 200
            assert reply.headers["content-type"].startswith(EVENT_STREAM)
            assert "content-length" not in reply.headers
            (received,) = slow.upstream.recorder.requests
            still_at_work = []
            for line in reply.iter_lines():
                if line.startswith("data:"):
                    still_at_work.append(received.finished_at is None)
    assert len(still_at_work) > 1, "the example has too few events to tell"
    assert all(still_at_work[:-1])


def streaming_body(operation: Operation) -> dict[str, Any]:
    """What makes an operation answer with a stream, as arguments of an HTTP client."""
    if operation.method == "GET" or operation.body is None:
        return {}
    if JSON in operation.request_media:
        # Speech is asked for its events in another way.
        return {"json": {**example_of(operation), "stream": True, "stream_format": "sse"}}
    return {"data": {"model": "m", "stream": "true"}, "files": {"file": ("a.wav", b"RIFF")}}


class TestResponsesStream:
    """`POST /v1/responses:stream` is `createResponse` that always streams."""

    @pytest.mark.parametrize("stream", [{}, {"stream": True}, {"stream": False}, {"stream": None}], ids=str)
    def test_it_streams_whatever_the_body_says(
        self, stream: dict[str, Any], client: httpx.Client, upstream: SimulatedUpstream
    ) -> None:
        """The upstream gets the body with `stream` true, under the path of `createResponse`, with the query."""
        body = {"input": "grüße", **stream, "model": "m", "unknown": [1.5, None, {"a": 10**30}]}
        reply = client.post("/v1/responses:stream?beta=true", json=body)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith(EVENT_STREAM)
        assert "event: response.completed" in reply.text
        (received,) = upstream.recorder.requests
        assert (received.method, received.path, received.query) == ("POST", "/v1/responses", "beta=true")
        assert json.loads(received.body_start) == {**body, "stream": True}
        assert received.header("content-length") == str(received.body_size)

    def test_it_answers_the_events_of_create_response(self, client: httpx.Client) -> None:
        """The same events in the same order as with `stream: true`."""
        streams = [
            client.post("/v1/responses:stream", json=RESPONSE),
            client.post("/v1/responses", json={**RESPONSE, "stream": True}),
        ]
        wrapped, direct = ([line for line in s.text.splitlines() if line.startswith("event:")] for s in streams)
        assert wrapped == direct

    def test_it_validates_like_create_response(self, client: httpx.Client, upstream: SimulatedUpstream) -> None:
        """A body that `createResponse` refuses is refused with the same error, without a call."""
        bodies: list[Any] = [{"model": 5}, {**RESPONSE, "temperature": 9}, [], {**RESPONSE, "stream": "yes"}]
        for body in bodies:
            wrapped, direct = (client.post(f"/v1/responses{suffix}", json=body) for suffix in (":stream", ""))
            assert wrapped.status_code == direct.status_code == 400
            assert wrapped.json() == direct.json()
        assert upstream.recorder.count == 0

    def test_it_never_sends_what_is_not_json(self, client: httpx.Client, upstream: SimulatedUpstream) -> None:
        """A number beyond a double is refused or forwarded as it came; it does not become `Infinity`."""
        content = b'{"model": "m", "input": "x", "unknown": 1e999}'
        client.post("/v1/responses:stream", content=content, headers={"Content-Type": JSON})
        assert all(b"Infinity" not in received.body_start for received in upstream.recorder.requests)


def test_the_old_version_of_http_is_answered(relay: RelayProcess) -> None:
    """HTTP/1.0 without a `Host` gets its answer, then the end of the connection."""
    with RawConnection(relay.url) as connection:
        connection.send(f"GET /v1/models HTTP/1.0\r\nX-Relay-Key: {relay.key}\r\n\r\n".encode())
        reply = connection.reply()
        assert (reply.status, reply.complete) == (200, True)
        assert connection.read_until(b"\n") == b""


def test_an_absolute_target_is_its_path(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """RFC 9112 section 3.2.2: the form for proxies is accepted; it chooses neither another host nor another path."""
    with RawConnection(relay.url) as connection:
        assert connection.exchange("GET", "http://evil.test/v1/models", relay.headers.items()).status == 200
    (received,) = upstream.recorder.requests
    assert received.path == "/v1/models"
    assert received.header("host") != "evil.test"
