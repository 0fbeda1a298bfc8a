from collections.abc import Iterable

import pytest

from codegen.contract import Contract
from handlers.runtime.cors import ALLOWED_HEADERS, EXPOSED_HEADERS, MAX_ASKED_CHARACTERS, Cors, load_cors
from handlers.runtime.headers import REQUEST_HEADERS, RESPONSE_HEADERS
from handlers.runtime.matching import Match
from handlers.runtime.routes import Route
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings, read_settings
from tests.handlers.runtime.test_settings import refusal

PAGE, TOOLS_PAGE, STRANGER = "https://app.example.com", "http://localhost:6274", "https://evil.example"
SETTINGS = Settings.model_validate({"RELAY_CORS_ORIGINS": PAGE, "RELAY_MCP_ORIGINS": TOOLS_PAGE})


@pytest.fixture
def cors(contract: Contract) -> Cors:
    """One page for all, another one for the tools."""
    made = load_cors(SETTINGS, contract)
    assert made is not None
    return made


def match_of(services: Services, path: str) -> Match[Route]:
    """What the router finds."""
    match = services.index.match(path)
    assert match is not None
    return match


def sent(*headers: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers of a request."""
    return [(name.encode(), value.encode()) for name, value in headers]


def values(headers: Iterable[tuple[bytes, bytes]], name: str) -> list[str]:
    """All values of a header of a reply."""
    return [value.decode() for key, value in headers if key == name.encode()]


@pytest.mark.parametrize(
    "path, allowed",
    [
        ("/v1/models", PAGE),
        ("/health", PAGE),
        ("/mcp", TOOLS_PAGE),
        ("/.well-known/oauth-protected-resource", TOOLS_PAGE),
    ],
)
def test_a_reply_names_the_page_only_if_it_is_listed(cors: Cors, services: Services, path: str, allowed: str) -> None:
    """Each list for its operations; never `*`, never credentials, and caches keep the replies apart."""
    match = match_of(services, path)
    for origin in (
        PAGE,
        TOOLS_PAGE,
        STRANGER,
        "null",
        "",
        PAGE.upper(),
        f"{PAGE}:443",
        f"{PAGE}/",
        f"{PAGE}.evil.example",
    ):
        headers = cors.reply_headers(sent(("origin", origin)), match)
        assert values(headers, "access-control-allow-origin") == ([origin] if origin == allowed else [])
        assert values(headers, "vary") == ["origin"]
        assert not values(headers, "access-control-allow-credentials")
    assert cors.reply_headers([], match) == [(b"vary", b"origin")]


def test_two_origins_are_none(cors: Cors, services: Services) -> None:
    """Whoever sends the header twice is no browser."""
    headers = cors.reply_headers(sent(("origin", PAGE), ("origin", PAGE)), match_of(services, "/v1/models"))
    assert not values(headers, "access-control-allow-origin")


def test_an_unknown_path_can_be_read_too(cors: Cors) -> None:
    """A page of the list learns that it has asked for the wrong thing."""
    assert values(cors.reply_headers(sent(("origin", PAGE)), None), "access-control-allow-origin") == [PAGE]
    assert not values(cors.reply_headers(sent(("origin", TOOLS_PAGE)), None), "access-control-allow-origin")


def test_a_preflight_names_methods_and_the_headers_that_the_relay_takes(cors: Cors, services: Services) -> None:
    """Those of the matched path, and of the asked names only the known ones, in their order."""
    asked = "X-Stainless-Lang, content-type,AUTHORIZATION, cookie, x-evil, x-stainless-\x01, openai-beta"
    received = sent(
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", asked),
    )
    headers = cors.preflight_headers(received, match_of(services, "/v1/models"), ["GET", "HEAD", "OPTIONS"])
    assert values(headers, "access-control-allow-methods") == ["GET, HEAD, OPTIONS"]
    assert values(headers, "access-control-allow-headers") == [
        "authorization, content-type, openai-beta, x-stainless-lang"
    ]
    assert values(headers, "access-control-max-age") == ["600"]
    assert values(headers, "vary") == ["access-control-request-method, access-control-request-headers"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [("origin", PAGE)],
        [("access-control-request-method", "POST")],
        [("origin", STRANGER), ("access-control-request-method", "POST")],
        [("origin", TOOLS_PAGE), ("access-control-request-method", "POST")],
    ],
)
def test_what_is_no_preflight_of_a_listed_page_learns_nothing(
    cors: Cors, services: Services, lines: list[tuple[str, str]]
) -> None:
    """No method, no header, no age."""
    headers = cors.preflight_headers(sent(*lines), match_of(services, "/v1/models"), ["GET"])
    assert {name for name, _ in headers} == {b"vary"}


def test_a_long_list_of_headers_costs_little(cors: Cors, services: Services) -> None:
    """What stands behind the limit is not read."""
    asked = "x," * MAX_ASKED_CHARACTERS + "authorization"
    received = sent(
        ("origin", PAGE), ("access-control-request-method", "GET"), ("access-control-request-headers", asked)
    )
    headers = cors.preflight_headers(received, match_of(services, "/v1/models"), ["GET"])
    assert not values(headers, "access-control-allow-headers")


def test_one_list_alone_leaves_the_rest_as_it_was(contract: Contract, services: Services) -> None:
    """Pages that may ask for tools get nothing else, and replies to others say nothing of origins."""
    cors = load_cors(Settings.model_validate({"RELAY_MCP_ORIGINS": TOOLS_PAGE}), contract)
    assert cors is not None
    received = sent(("origin", TOOLS_PAGE), ("access-control-request-method", "GET"))
    for match in (match_of(services, "/v1/models"), None):
        assert cors.reply_headers(received, match) == []
    assert cors.preflight_headers(received, match_of(services, "/v1/models"), ["GET"]) == []


def test_without_a_list_there_is_no_cors(contract: Contract) -> None:
    """Nothing is even asked for each request; the relay's own address is no page of another origin."""
    assert load_cors(Settings.model_validate({"RELAY_PUBLIC_URL": "https://relay.example.com"}), contract) is None


def test_the_lists_of_headers_follow_the_header_contract() -> None:
    """What may cross may be sent and read; cookies and credentials of the relay never stand there."""
    assert REQUEST_HEADERS < ALLOWED_HEADERS
    assert RESPONSE_HEADERS < EXPOSED_HEADERS
    assert {b"authorization", b"x-relay-key", b"mcp-session-id"} < ALLOWED_HEADERS
    assert not {b"cookie", b"host", b"origin", b"x-forwarded-for", b"forwarded", b"*"} & ALLOWED_HEADERS
    assert not {b"set-cookie", b"authorization", b"openai-organization", b"openai-project", b"*"} & EXPOSED_HEADERS
    assert {b"x-request-id", b"retry-after"} < EXPOSED_HEADERS


@pytest.mark.parametrize("wrong", ["*", "null", "https://*.example.com", "app.example.com", f"{PAGE}/", "https://A.b"])
def test_origins_are_exact(wrong: str) -> None:
    """As with RELAY_MCP_ORIGINS: no stars, no `null`, nothing that a browser would write in another way."""
    assert "RELAY_CORS_ORIGINS" in refusal(RELAY_CORS_ORIGINS=f"{PAGE},{wrong}")
    read = read_settings({"RELAY_CORS_ORIGINS": f"{PAGE} , {TOOLS_PAGE}"})
    assert read.RELAY_CORS_ORIGINS.split(",") == [PAGE, TOOLS_PAGE]
