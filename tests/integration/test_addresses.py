"""From where keys open what: lists of networks per scope, behind a proxy that is trusted and past it."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from codegen.contract import FULL, Scope, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.sockets import is_socket
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.contract_requests import contract_requests
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import RawConnection, RawReply
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
NEEDING_A_KEY = [operation for operation in CONTRACT if not operation.open]
OFFICE, CHATGPT, ELSEWHERE = "192.0.2.7", "4.1.2.3", "203.0.113.7"
NOT_THE_PROXY = "127.0.0.2"
ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


@dataclass(frozen=True)
class Walled:
    """A relay behind a proxy on loopback: actions for ChatGPT, canonical and operator for the office."""

    relay: RelayProcess
    keys: dict[str, MadeKey]

    def client(self, key_id: str, address: str) -> httpx.Client:
        """A client at an address, as the proxy tells it."""
        headers = {**self.keys[key_id].headers, "X-Forwarded-For": f"10.1.1.1, {address}"}
        return httpx.Client(base_url=self.relay.url, headers=headers, timeout=10)


@pytest.fixture(scope="module")
def walled(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walled]:
    """One key per scope, and one that has several."""
    folder = tmp_path_factory.mktemp("walled")
    made = [
        *(make_key(scope.value, scope) for scope in Scope),
        make_key("both", Scope.ACTIONS, Scope.CANONICAL),
        make_key("assistant", Scope.ACTIONS, Scope.PROXY),
    ]
    write_keys(folder / "keys.yaml", made)
    published = folder / "networks.json"
    published.write_text(json.dumps({"prefixes": [{"ipv4Prefix": "4.1.2.0/28"}]}), encoding="utf-8")
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_NETWORKS_ACTIONS": "chatgpt",
        "RELAY_NETWORKS_CANONICAL": "192.0.2.0/24",
        "RELAY_NETWORKS_OPERATOR": "192.0.2.0/24",
        "RELAY_CHATGPT_NETWORKS_FILE": str(published),
        "RELAY_TRUSTED_PROXIES": HOST,
    }
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield Walled(relay, {key.id: key for key in made})


def told(reply: RawReply) -> tuple[int, list[tuple[str, str]], bytes]:
    """What a client can tell two replies apart by."""
    own = {"date", "x-request-id", "x-relay-request-id"}
    return reply.status, [header for header in reply.headers if header[0] not in own], reply.body


def test_from_elsewhere_nobody_learns_whether_a_key_is_good(walled: Walled, upstream: SimulatedUpstream) -> None:
    """Every operation without a scope that is open there: one refusal, with no key, a wrong one and each right one."""
    closed = {Scope.ACTIONS, Scope.CANONICAL, Scope.OPERATOR}
    with RawConnection(walled.relay.url) as connection:
        for operation in NEEDING_A_KEY:
            if not operation.scopes <= closed:
                continue
            request = next(contract_requests(CONTRACT, operation))
            keys = [{}, {"X-Relay-Key": "rk_unknown"}, *(key.headers for key in walled.keys.values())]
            replies = []
            for key in keys:
                headers = {**request.headers, **key, "X-Forwarded-For": ELSEWHERE}
                replies.append(connection.exchange(request.method, request.path, headers.items(), request.content))
            assert_relay_error(replies[0], exc.AddressNotAllowed)
            assert [told(reply) for reply in replies] == [told(replies[0])] * len(keys)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "key_id, address, expected",
    [
        ("canonical", OFFICE, None),
        ("canonical", CHATGPT, exc.AddressNotAllowed),
        ("actions", CHATGPT, None),
        ("actions", OFFICE, exc.AddressNotAllowed),
        ("both", OFFICE, None),
        ("both", CHATGPT, None),
        ("both", ELSEWHERE, exc.AddressNotAllowed),
        ("realtime", OFFICE, exc.InsufficientScope),
    ],
)
def test_a_key_has_the_scopes_that_are_open_where_it_is(
    key_id: str, address: str, expected: type[exc.RelayError] | None, walled: Walled, upstream: SimulatedUpstream
) -> None:
    """An operation of two scopes, asked with each from each place."""
    with walled.client(key_id, address) as client:
        reply = client.get("/v1/models")
    if expected is None:
        assert reply.status_code == 200
    else:
        assert_relay_error(reply, expected)
    assert upstream.recorder.count == (expected is None)


def test_a_scope_that_is_closed_counts_for_nothing_else(walled: Walled, upstream: SimulatedUpstream) -> None:
    """A key with `canonical` streams from the office; from ChatGPT's networks it is an assistant's."""
    body = {"model": "m", "input": "x", "stream": True}
    with walled.client("both", OFFICE) as client:
        assert client.post("/v1/responses", json=body).status_code == 200
    upstream.recorder.clear()
    with walled.client("both", CHATGPT) as client:
        assert_relay_error(client.post("/v1/responses", json=body), exc.StreamingNotAllowed)
    assert upstream.recorder.count == 0


def call(client: httpx.Client, method: str, **params: Any) -> httpx.Response:
    """Send one message to the tools."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return client.post("/mcp", json=message, headers=ACCEPT)


def test_tools_are_judged_by_where_their_client_is(walled: Walled, upstream: SimulatedUpstream) -> None:
    """A call from inside has no scope that the message from outside did not have."""
    with walled.client("assistant", CHATGPT) as client:
        assert '"isError":false' in call(client, "tools/call", name="listModels", arguments={}).text
    assert upstream.recorder.count == 1
    upstream.recorder.clear()
    with walled.client("assistant", ELSEWHERE) as client:  # `proxy` is open there, `actions` is not
        reply = call(client, "tools/call", name="listModels", arguments={})
        assert reply.status_code == 200
        assert "insufficient_scope" in reply.text
    with walled.client("actions", ELSEWHERE) as client:
        assert_relay_error(call(client, "tools/list"), exc.AddressNotAllowed)
    assert upstream.recorder.count == 0


def test_what_is_open_is_open_everywhere(walled: Walled) -> None:
    """Probes, documents and pages ask for no key, so no list is about them."""
    for path in ("/health", "/livez", "/openapi.json", "/docs"):
        for value in (ELSEWHERE, "nonsense"):
            assert httpx.get(f"{walled.relay.url}{path}", headers={"X-Forwarded-For": value}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-For": ""},
        {"X-Forwarded-For": "nonsense"},
        {"X-Forwarded-For": f"{OFFICE}, nonsense"},
        {"X-Forwarded-For": f"{OFFICE}, {ELSEWHERE}"},
        {"Forwarded": f"for={ELSEWHERE}"},
        {"Forwarded": f"for={OFFICE}", "X-Forwarded-For": ELSEWHERE},
    ],
    ids=str,
)
def test_a_proxy_that_does_not_vouch_opens_nothing(headers: dict[str, str], walled: Walled) -> None:
    """Missing, malformed, contradicting: nobody is guessed to be in the office."""
    reply = httpx.get(f"{walled.relay.url}/v1/models", headers={**walled.keys["canonical"].headers, **headers})
    assert_relay_error(reply, exc.AddressNotAllowed)


def test_who_comes_past_the_proxy_is_not_believed(walled: Walled, upstream: SimulatedUpstream) -> None:
    """The headers count from the proxy's own address and from no other."""
    parts = urlsplit(walled.relay.url)
    lines = {**walled.keys["canonical"].headers, "X-Forwarded-For": OFFICE, "Connection": "close", "Host": "relay"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    answers = []
    for source in (HOST, NOT_THE_PROXY):
        with socket.create_connection((HOST, parts.port or 80), 5, (source, 0)) as connection:
            connection.sendall(f"GET /v1/models HTTP/1.1\r\n{head}\r\n".encode())
            answers.append(connection.makefile("rb").readline().split()[1])
    assert answers == [b"200", b"403"]
    assert upstream.recorder.count == 1


def test_the_log_names_the_address_of_a_refusal(walled: Walled) -> None:
    """So that an operator sees which network is missing in the list."""
    with walled.client("canonical", "198.51.100.99") as client:
        assert client.get("/v1/models").status_code == 403
    lines = [json.loads(line) for line in walled.relay.printed().splitlines() if line.startswith("{")]
    refused = [line for line in lines if line["event"] == "address_refused"]
    assert {"address": "198.51.100.99", "operation": "listModels"}.items() <= refused[-1].items()


def test_the_word_without_its_file_stops_the_start(upstream_server: ServerThread, tmp_path: Path) -> None:
    """What to do next stands in the message."""
    with (
        pytest.raises(AssertionError, match="RELAY_CHATGPT_NETWORKS_FILE; `relay networks refresh"),
        running_relay(tmp_path, upstream_server.url, {"RELAY_NETWORKS_ACTIONS": "chatgpt"}),
    ):
        pass


async def test_a_handshake_is_judged_like_a_request(
    upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """Before the upgrade and before the key: from elsewhere good and bad keys get the same plain refusal."""
    environment = {"RELAY_NETWORKS_REALTIME": "192.0.2.0/24", "RELAY_TRUSTED_PROXIES": HOST}
    operation = next(operation for operation in CONTRACT if is_socket(operation))
    with running_relay(tmp_path, upstream_server.url, environment) as relay:
        url = f"{relay.url.replace('http', 'ws', 1)}{operation.path}?model=gpt-realtime"
        for key in (relay.key, "rk_unknown"):
            headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": ELSEWHERE}
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, additional_headers=headers)
            assert caught.value.response.status_code == 403
            assert b"address_not_allowed" in (caught.value.response.body or b"")
        assert upstream.recorder.count == 0
        headers = {"Authorization": f"Bearer {relay.key}", "X-Forwarded-For": OFFICE}
        async with connect(url, additional_headers=headers) as session:
            assert session.response is not None
            assert session.response.status_code == 101
