"""
Who gets in: key files, the two header forms, streams, what is open to everybody.

Not for: every scope on every operation (`test_authorisation_matrix`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from codegen.contract import ACTIONS, FULL, Bucket, Scope, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import RawConnection
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import RELAY_KEY, UPSTREAM_KEY, RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
TOOL_TAGS = {operation.tag for operation in CONTRACT if operation.carries is not None}
SYSTEM_INFO = "/actions/system/info"
RESPONSE = {"model": "m", "input": "x"}
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Keyed:
    """A relay with a key file."""

    relay: RelayProcess
    keys: dict[str, MadeKey]

    def client(self, key_id: str) -> httpx.Client:
        """A client with one of the keys."""
        return httpx.Client(base_url=self.relay.url, headers=self.keys[key_id].headers, timeout=10)


@pytest.fixture(scope="module")
def keyed(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """One key per scope, one with an end in the future and one that has expired, beside the bootstrap key."""
    folder = tmp_path_factory.mktemp("keyed")
    now = datetime.now(UTC)
    made = [
        *(make_key(scope.value, scope) for scope in Scope),
        make_key("lasting", Scope.CANONICAL, expires=now + YEAR),
        make_key("expired", *Scope, expires=now - timedelta(seconds=1)),
    ]
    write_keys(folder / "keys.yaml", made)
    # The links of the contract's examples lead to a host that exists; nothing is to be asked of it.
    environment = {"RELAY_KEY_FILE": str(folder / "keys.yaml"), "RELAY_FILE_HOSTS": "files.test"}
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield Keyed(relay, {key.id: key for key in made})


def test_the_actions_scope_opens_the_actions_document() -> None:
    """What assistants are offered is what their key opens, beside what carries the same operations."""
    own = [operation for operation in CONTRACT if operation.carries is None]
    opened = {(o.method, o.path) for o in own if Scope.ACTIONS in o.scopes}
    proxy = {(o.method, o.path) for o in own if Scope.PROXY in o.scopes}
    assert opened | proxy == {(o.method, o.path) for o in load_contract(GENERATED, ACTIONS)}
    assert opened | proxy == {(o.method, o.path) for o in CONTRACT if o.bucket is Bucket.ACTIONS_DIRECT}
    assert len(proxy) == 1


@pytest.mark.parametrize(
    "body",
    [{"stream": True}, {"stream": True, "background": True}],
    ids=str,
)
def test_an_assistant_gets_no_stream_of_a_new_response(
    body: dict[str, bool], keyed: Keyed, upstream: SimulatedUpstream
) -> None:
    """`stream: true` is refused for a key without `canonical`; without it the response is created."""
    with keyed.client("actions") as assistant:
        refusal = assistant.post("/v1/responses", json={**RESPONSE, **body})
        assert assert_relay_error(refusal, exc.StreamingNotAllowed)["param"] == "stream"
        assert upstream.recorder.count == 0
        for harmless in ({}, {"stream": False}, {"stream": None}):
            assert assistant.post("/v1/responses", json={**RESPONSE, **harmless}).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["stream=true", "stream=tr%75e", "%73tream=true", "stream=false&stream=true", "stream=true&stream=false"],
)
def test_an_assistant_gets_no_stream_of_a_stored_response(
    query: str, keyed: Keyed, upstream: SimulatedUpstream
) -> None:
    """However the query writes it; without it the response is answered as JSON."""
    with keyed.client("actions") as assistant:
        made = assistant.post("/v1/responses", json=RESPONSE).json()["id"]
        upstream.recorder.clear()
        refusal = assistant.get(httpx.URL(f"/v1/responses/{made}", query=query.encode()))
        assert_relay_error(refusal, exc.StreamingNotAllowed)
        assert upstream.recorder.count == 0
        assert assistant.get(f"/v1/responses/{made}?stream=false").json()["id"] == made


def test_nothing_but_a_boolean_stream_passes(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """Values that an upstream might read as true are refused as invalid."""
    with keyed.client("actions") as assistant:
        for value in ("True", "TRUE", "1", "yes", "on", "true%20", "%20true", "true%00"):
            reply = assistant.get(httpx.URL("/v1/responses/resp_1", query=f"stream={value}".encode()))
            assert_relay_error(reply, exc.InvalidParameter)
        for wrong in ("true", 1, [True], {"x": True}):
            assert_relay_error(assistant.post("/v1/responses", json={**RESPONSE, "stream": wrong}), exc.InvalidBody)
    assert upstream.recorder.count == 0


def test_both_header_forms_open(keyed: Keyed) -> None:
    """`Authorization: Bearer` in any case of the scheme, `X-Relay-Key`, or both with one key; other schemes aside."""
    for key in (RELAY_KEY, keyed.keys["canonical"].text, keyed.keys["lasting"].text):
        forms: list[list[tuple[str, str]]] = [
            [("Authorization", f"Bearer {key}")],
            [("authorization", f"bearer {key}")],
            [("Authorization", f"BEARER   {key}  ")],
            [("X-Relay-Key", key)],
            [("X-Relay-Key", key), ("Authorization", f"Bearer {key}")],
            [("X-Relay-Key", key), ("X-Relay-Key", key)],
            [("X-Relay-Key", key), ("Authorization", "Basic cHJveHk6c2VjcmV0")],
        ]
        with RawConnection(keyed.relay.url) as connection:
            for headers in forms:
                assert connection.exchange("GET", "/v1/models", headers).status == 200


def test_what_is_no_key_does_not_open(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """Unknown, changed, expired, contradicting or misplaced credentials: 401 and no call."""
    key = keyed.keys["canonical"].text
    other = keyed.keys["lasting"].text
    invalid: list[list[tuple[str, str]]] = [
        [("Authorization", "Bearer rk_unknown")],
        [("Authorization", f"Bearer {key[:-1]}")],
        [("Authorization", f"Bearer {key}x")],
        [("Authorization", f"Bearer {key.swapcase()}")],
        [("Authorization", f"Bearer {UPSTREAM_KEY}")],
        [("Authorization", f"Bearer {keyed.keys['expired'].text}")],
        [("X-Relay-Key", keyed.keys["expired"].text)],
        [("Authorization", f"Bearer {key} {key}")],
        [("Authorization", f"Bearer {key},{key}")],
        [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {other}")],
        [("Authorization", f"Bearer {key}"), ("X-Relay-Key", other)],
        [("Authorization", f"Bearer {key}"), ("X-Relay-Key", "")],
        [("Authorization", f"Basic {key}")],
        [("Authorization", "Basic cms6cms=")],
        [("Authorization", key)],
        [("Authorization", f"Bearer é{key}")],
    ]
    missing: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("X-Relay-Key", "")],
        [("Cookie", f"authorization={key}")],
        [("Api-Key", key)],
        [("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{key}")],
    ]
    with RawConnection(keyed.relay.url) as connection:
        for headers in invalid:
            assert_relay_error(connection.exchange("GET", "/v1/models", headers), exc.InvalidKey)
        for headers in missing:
            assert_relay_error(connection.exchange("GET", "/v1/models", headers), exc.MissingKey)
        for query in (f"key={key}", f"api_key={key}", f"access_token={key}"):
            assert_relay_error(connection.exchange("GET", f"/v1/models?{query}"), exc.MissingKey)
    assert upstream.recorder.count == 0


def test_open_operations_look_at_no_key(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """Probes, documents and pages are answered without a key, and with a wrong one."""
    for operation in CONTRACT:
        if operation.open:
            path = operation.path.replace("{asset}", "docs.css").replace("{token}", "forged")
            expected = 200 if path == operation.path or "docs" in path else 404  # a link is its own permission
            if operation.tag in TOOL_TAGS:
                expected = 404  # no issuer is configured
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                assert httpx.get(f"{keyed.relay.url}{path}", headers=headers).status_code == expected
    assert upstream.recorder.count == 0


def test_system_info_is_for_operators_only(keyed: Keyed) -> None:
    """The bootstrap key does not open it; what it tells holds no credential."""
    with keyed.client("operator") as operator:
        reply = operator.get(SYSTEM_INFO)
    assert reply.status_code == 200
    assert set(reply.json()["key_ids"]) == {"bootstrap", *keyed.keys}
    for secret in (RELAY_KEY, UPSTREAM_KEY, *(key.text for key in keyed.keys.values())):
        assert secret not in reply.text
    refused = httpx.get(f"{keyed.relay.url}{SYSTEM_INFO}", headers=keyed.relay.headers)
    assert_relay_error(refused, exc.InsufficientScope)


def test_internal_operations_are_in_no_published_document(keyed: Keyed) -> None:
    """Neither path nor operationId nor tag of an internal operation can be read anywhere."""
    internal = [operation for operation in CONTRACT if not operation.published]
    assert SYSTEM_INFO in {operation.path for operation in internal}
    for path in ("/openapi.json", "/openapi.actions.json", "/docs", "/docs/docs.js", "/policy"):
        text = httpx.get(f"{keyed.relay.url}{path}").text
        for operation in internal:
            assert operation.path not in text
            assert operation.id not in text
            assert f'"{operation.tag}"' not in text


def test_a_counter_shows_that_refused_requests_call_nobody(keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """`upstream_calls` of the system info counts exactly the requests that reached the upstream."""

    def counted() -> int:
        with keyed.client("operator") as operator:
            return int(operator.get(SYSTEM_INFO).json()["upstream_calls"])

    before = counted()
    with keyed.client("canonical") as client:
        client.post("/v1/responses", json={"model": 5})
        client.get("/v1/organization/users")
        client.get("/v1/nothing")
        assert counted() == before
        client.get("/v1/models")
        assert counted() == before + 1
    assert upstream.recorder.count == 1
