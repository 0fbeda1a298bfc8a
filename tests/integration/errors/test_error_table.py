"""Every row of the error table is what a real request gets, in the envelope of the contract."""

import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from codegen.contract import FULL, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.errors import ERROR_TABLE
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.integration.errors.conftest import (
    MAX_ARTIFACT_BYTES,
    MAX_JSON_BYTES,
    StrictRelay,
    UnluckyRelay,
    marked_client,
)
from tests.support.bad_days import DEFECTIVE_PATH, Script, ScriptedUpstream, refusing_address
from tests.support.key_files import MadeKey
from tests.support.raw_http import RawConnection, RawReply
from tests.support.raw_upstream import RawUpstream
from tests.support.relay_errors import MARK, MARKED_HEADERS, assert_relay_error
from tests.support.servers import HOST, running_relay
from tests.support.sockets import HANDSHAKE
from tests.support.token_issuer import TokenIssuer, encode

pytestmark = pytest.mark.integration

QUERY = {MARK: MARK}
RESPONSE = {"model": MARK, "input": MARK}
NOWHERE = f"http://{HOST}:1"


@dataclass(frozen=True)
class Stage:
    """Everything that a request can fail at."""

    strict: httpx.Client
    impatient: httpx.Client
    unlucky: httpx.Client
    assistant: MadeKey
    store: Path
    upstream: SimulatedUpstream
    scripted: ScriptedUpstream

    @property
    def upstream_calls(self) -> int:
        """How many requests reached one of the two upstreams."""
        return self.upstream.recorder.count + len(self.scripted.heads)


@pytest.fixture
def stage(
    strict: httpx.Client,
    impatient: httpx.Client,
    unlucky: httpx.Client,
    strict_relay: StrictRelay,
    unlucky_relay: UnluckyRelay,
    upstream: SimulatedUpstream,
    scripted: ScriptedUpstream,
) -> Stage:
    """Relays, upstreams and keys."""
    scripted.play(Script())
    return Stage(strict, impatient, unlucky, strict_relay.assistant, unlucky_relay.store, upstream, scripted)


def missing_key(stage: Stage) -> httpx.Response:
    """No credentials."""
    return httpx.get(f"{stage.strict.base_url}/v1/models", headers=MARKED_HEADERS, params=QUERY)


def invalid_key(stage: Stage) -> httpx.Response:
    """A key that nobody made."""
    return stage.strict.get("/v1/models", headers={"Authorization": f"Bearer rk_{MARK}"}, params=QUERY)


def insufficient_scope(stage: Stage) -> httpx.Response:
    """An assistant's key on an operation for SDK clients."""
    return stage.strict.get("/v1/batches", headers=stage.assistant.headers, params=QUERY)


def address_not_allowed(stage: Stage) -> httpx.Response:
    """An operation for operators, from a network that is not theirs."""
    return stage.strict.get("/actions/system/info", params=QUERY)


def invalid_token(stage: Stage) -> httpx.Response:
    """A token that no key could make good."""
    token = f"{encode({'alg': 'none', 'kid': MARK})}.{encode({'sub': MARK})}.{MARK}"
    return send_message(stage.unlucky, {"Authorization": f"Bearer {token}"})


def token_issuer_unavailable(stage: Stage) -> httpx.Response:
    """A token whose issuer does not answer."""
    return send_message(stage.unlucky, {"Authorization": f"Bearer {TokenIssuer().token(sub=MARK)}"})


def oauth_not_configured(stage: Stage) -> httpx.Response:
    """The metadata of a relay that takes no tokens."""
    return stage.strict.get("/.well-known/oauth-protected-resource", params=QUERY)


def origin_not_allowed(stage: Stage) -> httpx.Response:
    """A message from a page of another site."""
    return send_message(stage.strict, {"Origin": f"https://{MARK}.test"})


def not_acceptable(stage: Stage) -> httpx.Response:
    """A message whose sender reads no event streams."""
    return send_message(stage.strict, {"Accept": f"application/json;{MARK}=1"})


def send_message(client: httpx.Client, headers: dict[str, str]) -> httpx.Response:
    """Ask for the tools."""
    message = {"jsonrpc": "2.0", "id": MARK, "method": "tools/list"}
    return client.post("/mcp", json=message, headers=headers, params=QUERY)


def unknown_operation(stage: Stage) -> httpx.Response:
    """A path that the contract does not have."""
    return stage.strict.get(f"/v1/{MARK}", params=QUERY)


def method_not_allowed(stage: Stage) -> httpx.Response:
    """A method that the path does not have."""
    return stage.strict.patch("/v1/models", params=QUERY)


def operation_unsupported(stage: Stage) -> httpx.Response:
    """An operation that the contract refuses."""
    return stage.strict.get("/v1/organization/users", params=QUERY)


def operation_not_proxied(stage: Stage) -> httpx.Response:
    """An operation of another bucket as the target of the proxy."""
    return stage.strict.post("/v1/proxy", json={"method": "GET", "path": f"/v1/files/{MARK}"}, params=QUERY)


def streaming_not_allowed(stage: Stage) -> httpx.Response:
    """A stream for an assistant."""
    body = {**RESPONSE, "stream": True}
    return stage.strict.post("/v1/responses", headers=stage.assistant.headers, json=body, params=QUERY)


def malformed_request(stage: Stage) -> RawReply:
    """A control character in the request line."""
    with RawConnection(str(stage.strict.base_url)) as connection:
        return connection.exchange("GET", f"/v1/files/{MARK}\x01", MARKED_HEADERS.items())


def invalid_parameter(stage: Stage) -> httpx.Response:
    """A query parameter of the wrong type."""
    return stage.strict.get("/v1/files", params={**QUERY, "limit": MARK})


def missing_body(stage: Stage) -> httpx.Response:
    """No body where one is needed."""
    return stage.strict.post("/v1/responses", params=QUERY)


def malformed_json(stage: Stage) -> httpx.Response:
    """Half a body."""
    return send_json(stage.strict, f'{{"model": "{MARK}", "{MARK}"')


def duplicate_key(stage: Stage) -> httpx.Response:
    """One name twice."""
    return send_json(stage.strict, f'{{"model": "{MARK}", "{MARK}": 1, "{MARK}": 2}}')


def invalid_body(stage: Stage) -> httpx.Response:
    """A body against the schema."""
    return stage.strict.post("/v1/responses", json={"model": {MARK: MARK}, MARK: MARK}, params=QUERY)


def payload_too_large(stage: Stage) -> httpx.Response:
    """A body beyond the limit."""
    return stage.strict.post("/v1/responses", json={**RESPONSE, "input": MARK * MAX_JSON_BYTES}, params=QUERY)


def unsupported_media_type(stage: Stage) -> httpx.Response:
    """Text where JSON is needed."""
    return stage.strict.post("/v1/responses", content=MARK, headers={"Content-Type": f"text/{MARK}"}, params=QUERY)


def unsupported_expectation(stage: Stage) -> httpx.Response:
    """An expectation that HTTP does not know."""
    return stage.strict.post("/v1/responses", json=RESPONSE, headers={"Expect": MARK}, params=QUERY)


def upstream_unreachable(stage: Stage) -> httpx.Response:
    """An upstream that refuses the connection."""
    return stage.unlucky.post("/v1/responses", json=RESPONSE, params=QUERY)


def upstream_protocol_error(stage: Stage) -> httpx.Response:
    """An upstream that closes the connection instead of answering."""
    return stage.impatient.post("/v1/responses", json=RESPONSE, params=QUERY)


def upstream_replied_with_key(stage: Stage) -> httpx.Response:
    """An upstream whose refusal repeats the relay's key."""
    stage.upstream.faults.add(Fault(echo_credentials=True))
    return stage.strict.post("/v1/responses", json=RESPONSE, params=QUERY)


def upstream_timeout(stage: Stage) -> httpx.Response:
    """An upstream that keeps silent."""
    stage.scripted.play(Script(then_wait=True))
    return stage.impatient.post("/v1/responses", json=RESPONSE, params=QUERY)


def artifact_not_found(stage: Stage) -> httpx.Response:
    """A link that nobody gave out."""
    return stage.strict.get(f"/artifacts/{MARK}", params=QUERY)


def range_not_satisfiable(stage: Stage) -> httpx.Response:
    """A range behind the end of a file."""
    link = stage.strict.post("/v1/actions/images/generations", json={"prompt": MARK}).json()["data"][0]["url"]
    stage.upstream.recorder.clear()
    return stage.strict.get(link, headers={"Range": "bytes=999999-"})


def artifact_store_full(stage: Stage) -> httpx.Response:
    """An image that is larger than what the relay may keep."""
    image = b64encode(b"x" * MAX_ARTIFACT_BYTES).decode()
    stage.upstream.faults.add(Fault("createImage", status=200, body={"created": 1, "data": [{"b64_json": image}]}))
    return stage.strict.post("/v1/actions/images/generations", json={"prompt": MARK})


def file_refused(stage: Stage) -> httpx.Response:
    """A file at a host that is not on the list."""
    return upload(stage.strict, f"https://{MARK}.example/{MARK}")


def file_unreachable(stage: Stage) -> httpx.Response:
    """A file at a host where nobody listens."""
    return upload(stage.strict, f"https://{HOST}:1/{MARK}")


def file_too_large(stage: Stage) -> httpx.Response:
    """A file in the body that should have come as a link."""
    body = {"purpose": "user_data", "filename": MARK, "content_base64": b64encode(b"x" * (2**16 + 1)).decode()}
    return stage.impatient.post("/v1/actions/files/upload", json=body)


def not_text(stage: Stage) -> httpx.Response:
    """An image where a text is to be read."""
    stage.upstream.faults.add(Fault("downloadFile", status=200, headers={"content-type": "image/png"}, body={}))
    return stage.strict.get(f"/v1/actions/files/{MARK}/text")


def idempotency_key_reused(stage: Stage) -> httpx.Response:
    """The key of an earlier call with another body."""
    body = {"prompt": MARK, "idempotency_key": f"{MARK}-reused"}
    stage.strict.post("/v1/actions/images/generations", json=body).raise_for_status()
    stage.upstream.recorder.clear()
    return stage.strict.post("/v1/actions/images/generations", json={**body, "prompt": "another"})


def idempotency_in_progress(stage: Stage) -> httpx.Response:
    """The key of a call that the upstream has not answered yet."""
    stage.upstream.faults.add(Fault("createImage", delay_seconds=1.0))
    body = {"prompt": MARK, "idempotency_key": f"{MARK}-running"}
    with ThreadPoolExecutor() as beside:
        first = beside.submit(stage.strict.post, "/v1/actions/images/generations", json=body)
        deadline = time.monotonic() + 5
        while not stage.upstream.recorder.count and time.monotonic() < deadline:
            time.sleep(0.01)
        second = stage.strict.post("/v1/actions/images/generations", json=body)
        assert first.result().status_code == 200
    return second


def store_unavailable(stage: Stage) -> httpx.Response:
    """A store whose table is gone."""
    with sqlite3.connect(stage.store) as database:
        database.execute("DROP TABLE IF EXISTS relay_replies")
    body = {"prompt": MARK, "idempotency_key": MARK}
    return stage.unlucky.post("/v1/actions/images/generations", json=body)


def upload(client: httpx.Client, link: str) -> httpx.Response:
    """Ask for one file by its link."""
    return client.post("/v1/actions/files/upload", json={"purpose": "user_data", "openaiFileIdRefs": [link]})


def upstream_name_unresolved(stage: Stage) -> httpx.Response:
    """An upstream with a name longer than names can be, for which no name server is asked."""
    del stage
    with relay_before(f"http://{'.'.join(['a' * 60] * 5)}") as client:
        return client.post("/v1/responses", json=RESPONSE, params=QUERY)


def upstream_tls_failed(stage: Stage) -> httpx.Response:
    """An upstream that answers a TLS handshake with something else."""
    del stage
    with RawUpstream(speaks_first=True) as raw, relay_before(f"https://{HOST}:{raw.port}") as client:
        return client.post("/v1/responses", json=RESPONSE, params=QUERY)


def upstream_circuit_open(stage: Stage) -> httpx.Response:
    """An upstream that has refused a connection just before."""
    del stage
    with refusing_address() as url, relay_before(url, RELAY_BREAKER_FAILURES="1") as client:
        client.post("/v1/responses", json=RESPONSE, params=QUERY)
        return client.post("/v1/responses", json=RESPONSE, params=QUERY)


def upstream_queue_full(stage: Stage) -> httpx.Response:
    """A second call where one may be under way and none may wait."""
    del stage
    limits = {"RELAY_MAX_UPSTREAM_CONNECTIONS": "1", "RELAY_MAX_UPSTREAM_QUEUE": "1"}
    short = {"RELAY_UPSTREAM_QUEUE_TIMEOUT_SECONDS": "0.1"}
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\n"
    with RawUpstream() as raw, relay_before(raw.url, **limits, **short) as client:
        raw.play(head)
        with client.stream("POST", "/v1/responses", json={**RESPONSE, "stream": True}):
            return client.post("/v1/responses", json=RESPONSE, params=QUERY)


def uri_too_long(stage: Stage) -> RawReply:
    """A query beyond the limit."""
    with RawConnection(str(stage.strict.base_url)) as connection:
        return connection.exchange("GET", f"/v1/models?{MARK * 4_000}", MARKED_HEADERS.items())


def headers_too_large(stage: Stage) -> RawReply:
    """A header beyond the limit."""
    with RawConnection(str(stage.strict.base_url)) as connection:
        return connection.exchange("GET", "/v1/models", [*MARKED_HEADERS.items(), (MARK, MARK * 10_000)])


def request_timeout(stage: Stage) -> RawReply:
    """Headers that do not go on."""
    del stage
    short = {"RELAY_HEADER_TIMEOUT_SECONDS": "0.5"}
    with relay_before(NOWHERE, **short) as client, RawConnection(str(client.base_url)) as connection:
        connection.send(f"GET /v1/models?{MARK} HTTP/1.1\r\n{MARK}: ".encode())
        return connection.reply()


def overloaded(stage: Stage) -> httpx.Response:
    """A second request where one may run."""
    del stage
    with relay_before(NOWHERE, RELAY_MAX_CONCURRENT_REQUESTS="1") as client, body_to_come(client):
        return refusal_of(client)


def key_concurrency_exceeded(stage: Stage) -> httpx.Response:
    """A second request of a key that may have one."""
    del stage
    with relay_before(NOWHERE, RELAY_MAX_CONCURRENT_REQUESTS_PER_KEY="1") as client, body_to_come(client):
        return refusal_of(client)


@contextmanager
def body_to_come(client: httpx.Client) -> Iterator[None]:
    """Let a request run whose body does not come."""
    with RawConnection(str(client.base_url)) as connection:
        key = client.headers["Authorization"]
        headers = {"Authorization": key, "Content-Type": "application/json", "Content-Length": "9"}
        connection.send_head("POST", "/v1/responses", headers.items())
        yield


def refusal_of(client: httpx.Client) -> httpx.Response:
    """What a request gets once the one before it has begun."""
    deadline = time.monotonic() + 5
    while (reply := client.get("/v1/health", params=QUERY)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    return reply


@contextmanager
def relay_before(url: str, **environment: str) -> Iterator[httpx.Client]:
    """A client of a relay of its own before the upstream at a URL."""
    with (
        TemporaryDirectory() as folder,
        running_relay(Path(folder), url, environment) as process,
        marked_client(process) as client,
    ):
        yield client


def upgrade_required(stage: Stage) -> httpx.Response:
    """A socket, asked for like a page."""
    return stage.strict.get("/v1/realtime", params=QUERY)


def socket_limit_reached(stage: Stage) -> RawReply:
    """A second socket for a key that may have one."""
    headers = {**HANDSHAKE, **MARKED_HEADERS, "Authorization": stage.strict.headers["Authorization"]}
    with RawConnection(str(stage.strict.base_url)) as first, RawConnection(str(stage.strict.base_url)) as second:
        first.send_head("GET", f"/v1/realtime?{MARK}={MARK}", headers.items())
        assert first.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        stage.upstream.recorder.clear()
        return second.exchange("GET", f"/v1/realtime?{MARK}={MARK}", headers.items())


def internal_error(stage: Stage) -> httpx.Response:
    """A defect of the relay."""
    return stage.unlucky.get(DEFECTIVE_PATH, params=QUERY)


def send_json(client: httpx.Client, text: str) -> httpx.Response:
    """Send text as a JSON body."""
    headers = {"Content-Type": "application/json"}
    return client.post("/v1/responses", content=text, headers=headers, params=QUERY)


SCENARIOS: dict[type[exc.RelayError], Callable[[Stage], httpx.Response | RawReply]] = {
    exc.MissingKey: missing_key,
    exc.InvalidKey: invalid_key,
    exc.InsufficientScope: insufficient_scope,
    exc.AddressNotAllowed: address_not_allowed,
    exc.InvalidToken: invalid_token,
    exc.TokenIssuerUnavailable: token_issuer_unavailable,
    exc.OAuthNotConfigured: oauth_not_configured,
    exc.OriginNotAllowed: origin_not_allowed,
    exc.NotAcceptable: not_acceptable,
    exc.UnknownOperation: unknown_operation,
    exc.MethodNotAllowed: method_not_allowed,
    exc.OperationUnsupported: operation_unsupported,
    exc.OperationNotProxied: operation_not_proxied,
    exc.StreamingNotAllowed: streaming_not_allowed,
    exc.MalformedRequest: malformed_request,
    exc.InvalidParameter: invalid_parameter,
    exc.MissingBody: missing_body,
    exc.MalformedJson: malformed_json,
    exc.DuplicateKey: duplicate_key,
    exc.InvalidBody: invalid_body,
    exc.PayloadTooLarge: payload_too_large,
    exc.UnsupportedMediaType: unsupported_media_type,
    exc.UnsupportedExpectation: unsupported_expectation,
    exc.UpstreamUnreachable: upstream_unreachable,
    exc.UpstreamProtocolError: upstream_protocol_error,
    exc.UpstreamErrorWithheld: upstream_replied_with_key,
    exc.UpstreamTimeout: upstream_timeout,
    exc.UpstreamNameUnresolved: upstream_name_unresolved,
    exc.UpstreamTlsFailed: upstream_tls_failed,
    exc.UpstreamCircuitOpen: upstream_circuit_open,
    exc.UpstreamQueueFull: upstream_queue_full,
    exc.ArtifactNotFound: artifact_not_found,
    exc.RangeNotSatisfiable: range_not_satisfiable,
    exc.ArtifactStoreFull: artifact_store_full,
    exc.FileRefused: file_refused,
    exc.FileUnreachable: file_unreachable,
    exc.FileTooLarge: file_too_large,
    exc.NotText: not_text,
    exc.IdempotencyKeyReused: idempotency_key_reused,
    exc.IdempotencyInProgress: idempotency_in_progress,
    exc.StoreUnavailable: store_unavailable,
    exc.UriTooLong: uri_too_long,
    exc.HeadersTooLarge: headers_too_large,
    exc.RequestTimeout: request_timeout,
    exc.Overloaded: overloaded,
    exc.KeyConcurrencyExceeded: key_concurrency_exceeded,
    exc.UpgradeRequired: upgrade_required,
    exc.SocketLimitReached: socket_limit_reached,
    exc.InternalError: internal_error,
}
REACH_THE_UPSTREAM = {
    exc.UpstreamProtocolError,
    exc.UpstreamErrorWithheld,
    exc.UpstreamTimeout,
    exc.ArtifactStoreFull,
    exc.NotText,
    exc.IdempotencyInProgress,  # the first call, which is still running
}


@pytest.mark.parametrize("error", ERROR_TABLE, ids=lambda error: error.__name__)
def test_every_row_of_the_table_is_what_a_real_request_gets(error: type[exc.RelayError], stage: Stage) -> None:
    """Status, type and code are those of the row, the envelope is the contract's, the request is not repeated."""
    assert_relay_error(SCENARIOS[error](stage), error)
    assert stage.upstream_calls == (1 if error in REACH_THE_UPSTREAM else 0)


def test_the_table_and_the_contract_list_the_same_types_and_codes() -> None:
    """The enums of `RelayErrorEnvelope` are exactly what the table can produce."""
    document = load_contract(GENERATED, FULL).document
    fields = document["components"]["schemas"]["RelayErrorEnvelope"]["properties"]["error"]["properties"]
    assert set(fields["type"]["enum"]) == {rule.type for rule in ERROR_TABLE.values()}
    assert set(fields["code"]["enum"]) == {rule.code for rule in ERROR_TABLE.values()}


def test_every_error_that_can_be_raised_has_a_row() -> None:
    """Each most specific `RelayError` stands in the table, and no code stands for two of them."""

    def leaves(kind: type[exc.RelayError]) -> set[type[exc.RelayError]]:
        children = kind.__subclasses__()
        return {kind} if not children else set().union(*(leaves(child) for child in children))

    assert leaves(exc.RelayError) == set(ERROR_TABLE)
    assert len({rule.code for rule in ERROR_TABLE.values()}) == len(ERROR_TABLE)
