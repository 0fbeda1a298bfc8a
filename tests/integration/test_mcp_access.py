"""Who gets at the tools: relay keys and access tokens of an issuer, where each is taken, and what each opens."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from codegen.contract import ACTIONS, FULL, Scope, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.issuer_keys import PAUSE_SECONDS
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.contract_requests import contract_requests
from tests.support.file_server import FileServer, make_certificate, whole
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import HOST, RelayProcess, ServerThread, running_relay
from tests.support.token_issuer import (
    ISSUER,
    PUBLIC_URL,
    RESOURCE,
    SUBJECT,
    SigningKey,
    TokenIssuer,
    make_signing_key,
    parts_of,
    serving,
)

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
TOOLS = {operation.id for operation in load_contract(GENERATED, ACTIONS)}
LISTED_ORIGIN = "https://app.example.com"
METADATA = {
    "resource": RESOURCE,
    "authorization_servers": [ISSUER],
    "bearer_methods_supported": ["header"],
    "scopes_supported": ["actions", "proxy"],
    "resource_name": "chatgpt-team-relay",
}
METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
CHALLENGE = f'Bearer resource_metadata="{PUBLIC_URL}{METADATA_PATH}", scope="actions proxy"'
QUESTION = {"model": "m", "input": "x"}
PAST, FUTURE = 10**9, 10**11  # years 2001 and 5138
DEADLINE_SECONDS = 30.0  # several pauses between two look-ups


@dataclass
class Desk:
    """
    A relay that takes tokens, its issuer, and a memory of all tokens that came, none of which may ever show.

    Args:
        keys: One for each scope, by its name, and `expired`.
    """

    relay: RelayProcess
    issuer: TokenIssuer
    keys: Mapping[str, MadeKey]
    client: httpx.Client
    shown: set[str] = field(default_factory=set)

    def token(self, key: SigningKey | None = None, **claims: Any) -> dict[str, str]:
        """The header with a token; good but for what is given."""
        token = self.issuer.token(key, **claims)
        self.shown.update(parts_of(token))
        return {"Authorization": f"Bearer {token}"}

    def ask(self, headers: Mapping[str, str], method: str = "tools/list", **params: Any) -> httpx.Response:
        """Send one message; no reply repeats anything of a token."""
        reply = self.client.post(
            "/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params},
            headers={"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25", **headers},
        )
        self.assert_silent(f"{reply.headers.raw!r} {reply.text}")
        return reply

    def call(self, headers: Mapping[str, str], name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool."""
        result: dict[str, Any] = message(self.ask(headers, "tools/call", name=name, arguments=arguments))["result"]
        return result

    def refused(self, headers: Mapping[str, str], error: type[exc.RelayError]) -> str:
        """
        Ask for the tools and be refused.

        Returns:
            The one challenge of the reply.
        """
        reply = self.ask(headers)
        assert_relay_error(reply, error)
        challenges = reply.headers.get_list("www-authenticate")
        assert len(challenges) == 1, challenges
        return challenges[0]

    def assert_silent(self, text: str) -> None:
        """Fail when a part of a token stands in a text."""
        assert [part for part in self.shown if part in text] == []


def message(reply: httpx.Response) -> dict[str, Any]:
    """The answer in a reply, whichever form it has."""
    assert reply.status_code == 200, reply.text
    text = reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        text = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
    value: dict[str, Any] = json.loads(text)
    return value


def tools(reply: httpx.Response) -> set[str]:
    """Names of the tools that a reply lists."""
    return {tool["name"] for tool in message(reply)["result"]["tools"]}


def error_of(result: Mapping[str, Any]) -> str:
    """The code with which a tool refused."""
    assert result["isError"] is True
    return str(json.loads(result["content"][0]["text"])["error"]["code"])


@contextmanager
def open_desk(folder: Path, upstream_url: str, issuer: TokenIssuer) -> Iterator[Desk]:
    """Run an issuer and a relay that takes its tokens; what the relay prints holds none."""
    ended = datetime.now(UTC) - timedelta(seconds=1)
    keys = [*(make_key(scope.value, scope) for scope in Scope), make_key("expired", *Scope, expires=ended)]
    write_keys(folder / "keys.yaml", keys)
    more = {"RELAY_KEY_FILE": str(folder / "keys.yaml"), "RELAY_MCP_ORIGINS": LISTED_ORIGIN}
    with (
        serving(issuer) as environment,
        running_relay(folder, upstream_url, {**environment, **more}) as relay,
        httpx.Client(base_url=relay.url, timeout=30) as client,
    ):
        desk = Desk(relay, issuer, {key.id: key for key in keys}, client)
        yield desk
    desk.assert_silent(relay.printed())


@pytest.fixture(scope="module")
def shared_desk(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One relay and one issuer for most of the tests."""
    with open_desk(tmp_path_factory.mktemp("tokens"), upstream_server.url, TokenIssuer()) as desk:
        yield desk
        assert desk.shown, "no token has been sent"


@pytest.fixture
def desk(shared_desk: Desk, upstream: SimulatedUpstream) -> Desk:
    """The same, with nothing recorded upstream."""
    del upstream
    return shared_desk


def test_a_token_opens_the_tools(desk: Desk, upstream: SimulatedUpstream) -> None:
    """It lists them and calls one, which reaches the upstream once and stands in the log under the caller's id."""
    assert tools(desk.ask(desk.token())) == TOOLS
    assert upstream.recorder.count == 0
    result = desk.call(desk.token(desk.issuer.keys[1]), "createResponse", **QUESTION)
    assert (result["isError"], result["structuredContent"]["object"]) == (False, "response")
    assert upstream.recorder.count == 1
    lines = [json.loads(line) for line in desk.relay.printed().splitlines() if line.startswith("{")]
    callers = {line["key"] for line in lines if line.get("operation") == "createResponse"}
    assert all(caller.startswith("token:") and SUBJECT not in caller for caller in callers)


@pytest.mark.parametrize(
    "claims", [{"scope": None, "scp": ["actions"]}, {"aud": [RESOURCE, "x"]}, {"sub": "Zoë Müller"}], ids=str
)
def test_tokens_of_other_forms_open_the_tools_as_well(claims: dict[str, Any], desk: Desk) -> None:
    """As other issuers write them."""
    assert tools(desk.ask(desk.token(**claims))) == TOOLS


def test_the_scopes_of_a_token_hold_for_each_tool(desk: Desk, upstream: SimulatedUpstream) -> None:
    """Each call is decided as its own operation; what the token does not open reaches nobody."""
    actions, proxy = desk.token(scope="actions"), desk.token(scope="proxy openid")
    dry_run = {"method": "GET", "path": "/v1/batches", "dry_run": True}
    assert error_of(desk.call(actions, "forwardRequest", **dry_run)) == "insufficient_scope"
    assert error_of(desk.call(proxy, "createResponse", **QUESTION)) == "insufficient_scope"
    assert upstream.recorder.count == 0
    assert desk.call(proxy, "forwardRequest", **dry_run)["structuredContent"]["allowed"] is True
    assert desk.call(actions, "createResponse", **QUESTION)["isError"] is False


def test_the_metadata_lies_at_both_addresses(desk: Desk) -> None:
    """At the one that belongs to the tools and at that of the whole relay; nobody needs a key for it."""
    for path in (METADATA_PATH, METADATA_PATH.removesuffix("/mcp")):
        reply = desk.client.get(path)
        assert (reply.status_code, reply.json()) == (200, METADATA)
        assert reply.headers["content-type"] == "application/json"


def test_a_relay_without_an_issuer_takes_no_tokens(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """There is no metadata, no challenge names any, and a token is a wrong key like any other text."""
    token = TokenIssuer([make_signing_key("ES256")]).token()
    with httpx.Client(base_url=relay.url, timeout=30) as client:
        for path in (METADATA_PATH, METADATA_PATH.removesuffix("/mcp")):
            assert_relay_error(client.get(path), exc.OAuthNotConfigured)
        for headers, error in (({}, exc.MissingKey), ({"Authorization": f"Bearer {token}"}, exc.InvalidKey)):
            reply = client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers)
            assert_relay_error(reply, error)
            assert reply.headers.get_list("www-authenticate") == ["Bearer"]
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.test/mcp"},
        {"aud": PUBLIC_URL},
        {"aud": None},
        {"iss": ISSUER.rstrip("/")},
        {"iss": "https://evil.test/"},
        {"exp": PAST},
        {"exp": None},
        {"nbf": FUTURE},
        {"sub": None},
        {"header": {"alg": "none"}},
        {"header": {"typ": "logout+jwt"}},
        {"header": {"kid": "unknown"}},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_relay_is_refused(
    claims: dict[str, Any], desk: Desk, upstream: SimulatedUpstream
) -> None:
    """The reply says where to get another; the upstream is not asked."""
    assert desk.refused(desk.token(**claims), exc.InvalidToken) == f'{CHALLENGE}, error="invalid_token"'
    assert upstream.recorder.count == 0


def test_a_token_of_somebody_else_is_refused(desk: Desk, upstream: SimulatedUpstream) -> None:
    """Signed with another key under the issuer's id, changed, cut, or not a token at all."""
    known = desk.issuer.keys[0]
    forged = desk.token(SigningKey(known.algorithm, known.kid, private=make_signing_key("RS256").private))
    good = desk.token()["Authorization"]
    for headers in (
        forged,
        {"Authorization": good[:-4]},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": f"Bearer {'x' * 10_000}.y.z"},
    ):
        assert desk.refused(headers, exc.InvalidToken) == f'{CHALLENGE}, error="invalid_token"'
    for value in (good.rpartition(".")[0], f"{good}.{good}"):  # in two parts and in five
        reply = desk.ask({"Authorization": value})
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, f'{CHALLENGE}, error="invalid_token"')
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("scope", [None, "", "openid profile", "canonical realtime operator"])
def test_a_token_without_a_scope_for_tools_opens_nothing(
    scope: str | None, desk: Desk, upstream: SimulatedUpstream
) -> None:
    """It is good, so signing in again would not help: the reply names the scopes to ask for."""
    challenge = desk.refused(desk.token(scope=scope), exc.InsufficientScope)
    assert challenge == f'{CHALLENGE}, error="insufficient_scope"'
    assert upstream.recorder.count == 0


def test_a_token_opens_nothing_but_the_tools(desk: Desk, upstream: SimulatedUpstream) -> None:
    """On every other operation that needs a key it is a wrong one, and nothing there speaks of tokens."""
    token = desk.token(scope="actions proxy canonical realtime operator")
    others = [operation for operation in CONTRACT if operation.scopes and not operation.token_scopes]
    assert len(others) + 1 == sum(bool(operation.scopes) for operation in CONTRACT)
    for operation in others:
        request = next(contract_requests(CONTRACT, operation))
        reply = desk.client.request(request.method, request.path, headers=token)
        assert_relay_error(reply, exc.InvalidKey)
        assert reply.headers.get_list("www-authenticate") == ["Bearer"]
        desk.assert_silent(reply.text)
    assert upstream.recorder.count == 0


def test_a_token_comes_in_its_own_header_only(desk: Desk, upstream: SimulatedUpstream) -> None:
    """Not where relay keys may come as well, not in the address, not with another scheme, not beside a key."""
    token = desk.token()["Authorization"].removeprefix("Bearer ")
    for headers in (
        {"X-Relay-Key": token},
        {"Authorization": f"DPoP {token}"},
        {"Authorization": f"Bearer {token}", "X-Relay-Key": "rk_0123456789abcdef"},
        {"Authorization": f"Bearer {token}", "X-Relay-Key": desk.relay.key},
        {"Authorization": f"Bearer {desk.relay.key}", "X-Relay-Key": token},
    ):
        assert desk.refused(headers, exc.InvalidKey) == f'{CHALLENGE}, error="invalid_token"'
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    reply = desk.client.post("/mcp", params={"access_token": token}, json=body)
    assert reply.status_code in {400, 401}
    assert upstream.recorder.count == 0


def test_relay_keys_open_the_tools_by_their_scopes(desk: Desk, upstream: SimulatedUpstream) -> None:
    """Those that open at least one tool; no key, a wrong one and one that has expired do not."""
    assert desk.refused({}, exc.MissingKey) == CHALLENGE
    for headers in ({"Authorization": "Bearer rk_0123456789abcdef"}, desk.keys["expired"].headers):
        assert desk.refused(headers, exc.InvalidKey) == f'{CHALLENGE}, error="invalid_token"'
    for scope in Scope:
        if scope in {Scope.REALTIME, Scope.OPERATOR}:
            challenge = desk.refused(desk.keys[scope].headers, exc.InsufficientScope)
            assert challenge == f'{CHALLENGE}, error="insufficient_scope"'
        else:
            assert tools(desk.ask(desk.keys[scope].headers)) == TOOLS
            assert tools(desk.ask({"X-Relay-Key": desk.keys[scope].text})) == TOOLS
    assert upstream.recorder.count == 0


def test_the_scopes_of_a_key_hold_for_each_tool(desk: Desk, upstream: SimulatedUpstream) -> None:
    """A key for SDK clients calls the mirrored operations, and no wrapper."""
    canonical = desk.keys[Scope.CANONICAL].headers
    assert error_of(desk.call(canonical, "startResponse", **QUESTION)) == "insufficient_scope"
    assert error_of(desk.call(canonical, "forwardRequest", method="GET", path="/v1/batches")) == "insufficient_scope"
    assert upstream.recorder.count == 0
    assert desk.call(canonical, "createResponse", **QUESTION)["isError"] is False
    assert upstream.recorder.count == 1


@pytest.mark.parametrize(
    "origin",
    ["https://evil.test", "null", "http://app.example.com", f"{LISTED_ORIGIN}.evil.test", f"{LISTED_ORIGIN}:444"],
)
def test_pages_of_other_sites_may_not_ask(origin: str, desk: Desk, upstream: SimulatedUpstream) -> None:
    """Even with a good key or token: a browser may have been tricked into sending it."""
    for headers in (desk.token(), desk.keys[Scope.ACTIONS].headers):
        assert_relay_error(desk.ask({**headers, "Origin": origin}), exc.OriginNotAllowed)
    assert upstream.recorder.count == 0


def test_pages_that_are_listed_may_ask(desk: Desk) -> None:
    """They, and those of the relay itself."""
    for origin in (LISTED_ORIGIN, PUBLIC_URL):
        assert tools(desk.ask({**desk.token(), "Origin": origin})) == TOOLS


def test_new_keys_of_the_issuer_are_found(
    upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """Without a restart; tokens under keys that it has withdrawn end then."""
    with open_desk(tmp_path, upstream_server.url, TokenIssuer()) as desk:
        before = desk.token()
        assert tools(desk.ask(before)) == TOOLS
        desk.issuer.rotate()
        after = desk.token()
        status, began = 401, time.monotonic()
        while status == 401:
            status = desk.ask(after).status_code
            assert time.monotonic() < began + DEADLINE_SECONDS, "the new key was not found"
        assert status == 200
        desk.refused(before, exc.InvalidToken)
        assert desk.issuer.fetches == 2
    assert upstream.recorder.count == 0


def test_an_issuer_that_is_down_is_waited_for(
    upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """Tokens are put off, keys work as ever, and the issuer is neither pressed nor followed elsewhere."""
    with open_desk(tmp_path, upstream_server.url, TokenIssuer()) as desk:
        desk.issuer.down = True
        began = time.monotonic()
        for _ in range(20):
            reply = desk.ask(desk.token())
            assert_relay_error(reply, exc.TokenIssuerUnavailable)
            assert reply.headers["retry-after"] == str(round(PAUSE_SECONDS))
        assert desk.issuer.fetches <= 1 + (time.monotonic() - began) / PAUSE_SECONDS
        assert tools(desk.ask(desk.keys[Scope.ACTIONS].headers)) == TOOLS
        desk.issuer.redirect = "/elsewhere"
        desk.issuer.down = False
        asked, began = desk.issuer.fetches, time.monotonic()
        while desk.issuer.fetches == asked:
            assert_relay_error(desk.ask(desk.token()), exc.TokenIssuerUnavailable)
            assert time.monotonic() < began + DEADLINE_SECONDS, "the issuer was not asked again"
        desk.issuer.redirect = ""
        status = 503
        while status == 503:
            status = desk.ask(desk.token()).status_code
            assert time.monotonic() < began + 2 * DEADLINE_SECONDS, "the relay did not recover"
        assert status == 200
        assert "token_issuer_unavailable" in desk.relay.printed()
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "unknown"])
def test_the_issuer_must_have_a_certificate_that_is_trusted(
    trusted: bool, upstream_server: ServerThread, tmp_path: Path
) -> None:
    """One of the usual ones, or one of those in `RELAY_OAUTH_CA_FILE`; nobody else is asked for keys."""
    issuer = TokenIssuer()
    certificate = make_certificate(tmp_path)
    with FileServer(certificate) as server:
        document = json.dumps(issuer.document()).encode()
        server.answers["/keys"] = whole([document], length=len(document), media_type="application/json")
        environment = {
            "RELAY_PUBLIC_URL": PUBLIC_URL,
            "RELAY_OAUTH_ISSUER": ISSUER,
            "RELAY_OAUTH_JWKS_URL": server.link("/keys", HOST),
            **({"RELAY_OAUTH_CA_FILE": str(certificate.chain)} if trusted else {}),
        }
        with (
            running_relay(tmp_path, upstream_server.url, environment) as relay,
            httpx.Client(base_url=relay.url, timeout=30) as client,
        ):
            desk = Desk(relay, issuer, {}, client)
            reply = desk.ask(desk.token())
            if trusted:
                assert tools(reply) == TOOLS
            else:
                assert_relay_error(reply, exc.TokenIssuerUnavailable)
        assert len(server.requests) == int(trusted)
        if trusted:
            assert server.requests[0].header("user-agent") == "chatgpt-team-relay"
            assert server.requests[0].header("authorization") is None
