"""Which pages may read what the relay answers: none by default, the listed ones otherwise, on every operation."""

from collections.abc import Iterator

import pytest

from codegen.contract import FULL, Operation, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.contract_requests import contract_requests, plain_path
from tests.support.raw_http import RawConnection, RawReply
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
TOOL_TAGS = {operation.tag for operation in CONTRACT if operation.carries is not None}
PAGE, TOOLS_PAGE, STRANGER = "https://app.example.com", "http://localhost:6274", "https://evil.example"
ASKED = "authorization,content-type,x-stainless-lang,x-evil"


@pytest.fixture(scope="module")
def shared(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with one page for all and another one for the tools."""
    environment = {"RELAY_CORS_ORIGINS": PAGE, "RELAY_MCP_ORIGINS": TOOLS_PAGE}
    with running_relay(tmp_path_factory.mktemp("shared"), upstream_server.url, environment) as relay:
        yield relay


def allowed(reply: RawReply) -> list[str]:
    """Whom a reply lets read it."""
    return [value for name, value in reply.headers if name == "access-control-allow-origin"]


def ask(connection: RawConnection, operation: Operation, **headers: str) -> RawReply:
    """A request as a page sends it: with its origin, and a key or not."""
    request = next(contract_requests(CONTRACT, operation))
    return connection.exchange(request.method, request.path, {**request.headers, **headers}.items(), request.content)


def preflight(connection: RawConnection, operation: Operation, origin: str) -> RawReply:
    """What a browser asks before."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": operation.method,
        "Access-Control-Request-Headers": ASKED,
    }
    return connection.exchange("OPTIONS", plain_path(operation), headers.items())


def test_without_a_setting_no_reply_speaks_of_origins(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Every operation, answered or refused, and its preflight: no header that lets a page read it."""
    with RawConnection(relay.url) as connection:
        for operation in CONTRACT:
            for reply in (
                ask(connection, operation, Origin=PAGE),
                ask(connection, operation, Origin=PAGE, **relay.headers),
                preflight(connection, operation, PAGE),
            ):
                assert not [name for name, _ in reply.headers if name.startswith("access-control-")]
                assert "origin" not in (reply.header("vary") or "").lower()


def test_with_a_list_the_listed_pages_read_every_reply(shared: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Every operation, answered or refused: the page of its list is named, another one never."""
    with RawConnection(shared.url) as connection:
        for operation in CONTRACT:
            expected = TOOLS_PAGE if operation.tag in TOOL_TAGS else PAGE
            for key in ({}, shared.headers):
                for origin in (PAGE, TOOLS_PAGE, STRANGER):
                    reply = ask(connection, operation, Origin=origin, **key)
                    assert allowed(reply) == ([origin] if origin == expected else []), operation.id
                    assert ("vary", "origin") in reply.headers
                    assert reply.header("access-control-allow-credentials") is None


def test_a_preflight_is_answered_from_the_contract(shared: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Every path: its own methods, the headers that the relay takes, no key asked for and nobody upstream."""
    with RawConnection(shared.url) as connection:
        for operation in CONTRACT:
            listed = TOOLS_PAGE if operation.tag in TOOL_TAGS else PAGE
            methods = {other.method for other in CONTRACT if other.path == operation.path}
            reply = preflight(connection, operation, listed)
            assert (reply.status, reply.body) == (204, b"")
            assert allowed(reply) == [listed]
            told = (reply.header("access-control-allow-methods") or "").split(", ")
            assert set(told) - {"HEAD", "OPTIONS"} == methods
            assert reply.header("access-control-allow-headers") == "authorization, content-type, x-stainless-lang"
            stranger = preflight(connection, operation, STRANGER)
            assert not [name for name, _ in stranger.headers if name.startswith("access-control-")]
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("method, target, status", [("GET", "/v1/nothing", 404), ("PATCH", "/v1/models", 405)])
def test_refusals_before_an_operation_is_found_can_be_read(
    method: str, target: str, status: int, shared: RelayProcess
) -> None:
    """A page learns what it did wrong."""
    with RawConnection(shared.url) as connection:
        reply = connection.exchange(method, target, [("Origin", PAGE)])
    assert (reply.status, allowed(reply)) == (status, [PAGE])
    assert "x-request-id" in (reply.header("access-control-expose-headers") or "")
