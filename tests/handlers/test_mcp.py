import dataclasses
import json
from typing import Any

import pytest

from handlers import mcp
from handlers.runtime.app import create_services
from handlers.runtime.exceptions import OAuthNotConfigured, OriginNotAllowed
from handlers.runtime.messages import Reply, Request
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings
from tests.handlers.conftest import MakeRequest

LISTED = "https://app.example.com"
PUBLIC_URL = "https://relay.example.com"
ANSWER = Reply.json({"jsonrpc": "2.0", "id": 1, "result": {}})


class Tools:
    """Stands for the tools: counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def exchange(self, _request: Request) -> Reply:
        """Answer a message."""
        self.asked += 1
        return ANSWER


@pytest.fixture
def tools() -> Tools:
    """Tools that nobody has asked yet."""
    return Tools()


@pytest.fixture
def services(tools: Tools) -> Services:
    """Services of a relay whose operator lists the pages of one site."""
    made = create_services(settings(RELAY_MCP_ORIGINS=LISTED, RELAY_PUBLIC_URL=PUBLIC_URL))
    return dataclasses.replace(made, tools=tools)  # type: ignore[arg-type]  # what a test stands in for it


def settings(**more: str) -> Settings:
    """Settings of a relay with a key."""
    return Settings.model_validate({"RELAY_KEY": "rk_made-up-0123456789abcdef", **more})


def message(request_of: MakeRequest, services: Services, *origins: str) -> Request:
    """A message, from a page where it names one."""
    headers = [(b"host", b"relay.example.com"), *((b"origin", origin.encode()) for origin in origins)]
    return request_of("sendMcpMessage", services=services, headers=headers, body={"jsonrpc": "2.0", "method": "ping"})


@pytest.mark.parametrize("origins", [(), (LISTED,), (PUBLIC_URL,), (LISTED, PUBLIC_URL)], ids=str)
async def test_programs_and_listed_pages_may_ask(
    origins: tuple[str, ...], request_of: MakeRequest, services: Services, tools: Tools
) -> None:
    """A program names no origin; a page may be the relay's own or a listed one."""
    assert await mcp.send_mcp_message(message(request_of, services, *origins)) is ANSWER
    assert tools.asked == 1


@pytest.mark.parametrize(
    "origins",
    [
        ("https://elsewhere.example",),
        ("null",),
        ("",),
        ("http://app.example.com",),
        ("https://app.example.com:8443",),
        ("https://app.example.com/",),
        ("https://app.example.com.elsewhere.example",),
        ("https://APP.example.com",),
        (LISTED, "https://elsewhere.example"),
        ("https://elsewhere.example", LISTED),
    ],
    ids=str,
)
async def test_other_pages_may_not_ask(
    origins: tuple[str, ...], request_of: MakeRequest, services: Services, tools: Tools
) -> None:
    """Whatever a foreign page asks, the tools never hear of it (DNS rebinding)."""
    with pytest.raises(OriginNotAllowed):
        await mcp.send_mcp_message(message(request_of, services, *origins))
    assert tools.asked == 0


async def test_without_a_list_no_page_may_ask(request_of: MakeRequest, own_services: Services, tools: Tools) -> None:
    """A new setting that nobody has set opens nothing, whatever `Host` says."""
    services = dataclasses.replace(own_services, tools=tools)  # type: ignore[arg-type]  # as above
    with pytest.raises(OriginNotAllowed):
        await mcp.send_mcp_message(message(request_of, services, "https://relay.example.com"))
    assert await mcp.send_mcp_message(message(request_of, services)) is ANSWER


@pytest.mark.parametrize("function", [mcp.retrieve_protected_resource, mcp.retrieve_mcp_protected_resource])
async def test_a_relay_without_an_issuer_says_so(function: Any, request_of: MakeRequest) -> None:
    """Who looks for one is told that a relay key is what opens the tools."""
    with pytest.raises(OAuthNotConfigured):
        await function(request_of("retrieveProtectedResource"))


@pytest.mark.parametrize("function", [mcp.retrieve_protected_resource, mcp.retrieve_mcp_protected_resource])
async def test_a_relay_with_an_issuer_names_it(function: Any, request_of: MakeRequest) -> None:
    """Both addresses say the same: which resource this is, and who issues tokens for it."""
    issuer = "https://login.example.com/"
    services = create_services(
        settings(
            RELAY_PUBLIC_URL=PUBLIC_URL,
            RELAY_OAUTH_ISSUER=issuer,
            RELAY_OAUTH_JWKS_URL="https://login.example.com/keys",
        )
    )
    reply = await function(request_of("retrieveProtectedResource", services=services))
    value = json.loads(reply.body)
    assert (reply.status, value["resource"]) == (200, f"{PUBLIC_URL}/mcp")
    assert value["authorization_servers"] == [issuer]
