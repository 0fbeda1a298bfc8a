import pytest

from handlers.runtime.headers import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    has_events,
    request_headers,
    response_headers,
)

CREDENTIALS = [
    b"authorization",
    b"x-relay-key",
    b"api-key",
    b"x-api-key",
    b"proxy-authorization",
    b"cookie",
    b"set-cookie",
]
ACCOUNT = [b"openai-organization", b"openai-project"]
HOP_BY_HOP = [b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authenticate"]
ABOUT_THE_CLIENT = [
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-real-ip",
    b"referer",
    b"origin",
    b"host",
    b"via",
]
UNHEARD_OF = [b"x-anything", b"x-http-method-override", b"", b"stainless", b"x-stainless", b"x-request-id-2"]


@pytest.mark.parametrize(
    "name", sorted((REQUEST_HEADERS - {b"accept-encoding"}) | {b"x-stainless-lang", b"x-stainless-retry-count"})
)
def test_listed_request_headers_travel_upstream_unchanged(name: bytes) -> None:
    """What the table names goes on with its value as it came."""
    assert request_headers([(name, b" Some, Value; a=1")]) == [(name, b" Some, Value; a=1")]


@pytest.mark.parametrize(
    "name", [*CREDENTIALS, *ACCOUNT, *HOP_BY_HOP, *ABOUT_THE_CLIENT, *UNHEARD_OF, b"content-length", b"expect"]
)
def test_other_request_headers_stay_behind(name: bytes) -> None:
    """Credentials, account names, hop-by-hop headers and whatever nobody listed never reach the upstream."""
    assert request_headers([(name, b"value")]) == []


@pytest.mark.parametrize("name", sorted(RESPONSE_HEADERS | {b"x-ratelimit-remaining-tokens", b"x-ratelimit-anything"}))
def test_listed_reply_headers_travel_to_the_client_unchanged(name: bytes) -> None:
    """What the table names goes on with its value as it came."""
    assert response_headers([(name, b"value, other")]) == [(name, b"value, other")]


@pytest.mark.parametrize(
    "name",
    [
        *CREDENTIALS,
        *ACCOUNT,
        *HOP_BY_HOP,
        *UNHEARD_OF,
        b"server",
        b"date",
        b"cf-ray",
        b"alt-svc",
        b"strict-transport-security",
        b"www-authenticate",
        b"access-control-allow-origin",
        b"x-ratelimit",
        b"content-security-policy",
    ],
)
def test_other_reply_headers_stay_behind(name: bytes) -> None:
    """Cookies, credentials, account names and whatever nobody listed never reach the client."""
    assert response_headers([(name, b"value")]) == []


@pytest.mark.parametrize(
    "asked, travels",
    [
        (b"gzip", b"gzip"),
        (b"gzip, deflate, br, zstd", b"gzip, deflate"),
        (b"GZIP;q=0.5,identity;q=0.1", b"GZIP;q=0.5, identity;q=0.1"),
        (b"br", b"identity"),
        (b"*", b"identity"),
        (b"", b"identity"),
    ],
)
def test_only_codings_that_the_relay_reads_are_asked_for(asked: bytes, travels: bytes) -> None:
    """The upstream is never asked for a coding in which the relay could not look for its own key."""
    assert request_headers([(b"accept-encoding", asked)]) == [(b"accept-encoding", travels)]


def test_reply_header_names_may_come_in_any_case() -> None:
    """HTTP/1.1 servers write names as they like; the relay compares and sends them in lower case."""
    received = [
        (b"Content-Type", b"text/Plain"),
        (b"SET-COOKIE", b"a=b"),
        (b"X-RateLimit-Limit", b"5"),
        (b"Retry-After", b"1"),
    ]
    assert response_headers(received) == [
        (b"content-type", b"text/Plain"),
        (b"x-ratelimit-limit", b"5"),
        (b"retry-after", b"1"),
    ]


def test_repeated_headers_keep_their_order() -> None:
    """Headers that stand several times all travel, in order."""
    received = [(b"accept", b"a"), (b"x-other", b"b"), (b"accept", b"c")]
    assert request_headers(received) == [(b"accept", b"a"), (b"accept", b"c")]
    assert response_headers([(b"vary", b"a"), (b"vary", b"b")]) == [(b"vary", b"a"), (b"vary", b"b")]


@pytest.mark.parametrize(
    "location, travels",
    [
        (b"/v1/realtime/calls/call_1", True),
        (b"https://api.openai.com/v1/realtime/calls/call_1", False),
        (b"//evil.example/v1/", False),
        (b"/actions/system/info", False),
        (b"v1/files", False),
        (b"/v1", False),
        (b"", False),
    ],
)
def test_a_location_travels_only_as_a_path_of_the_mirrored_surface(location: bytes, travels: bool) -> None:
    """An address elsewhere would lead the client around the relay, so only paths under /v1/ go on."""
    assert response_headers([(b"Location", location)]) == ([(b"location", location)] if travels else [])


def test_no_credential_stands_in_either_table() -> None:
    """The tables themselves name no credential, no cookie and no account."""
    assert not (REQUEST_HEADERS | RESPONSE_HEADERS) & {*CREDENTIALS, *ACCOUNT}


@pytest.mark.parametrize(
    "content_type, events",
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/event-stream ; charset=utf-8", True),
        (b"text/event-streams", False),
        (b"application/json", False),
    ],
)
def test_event_streams_are_told_by_their_media_type(content_type: bytes, events: bool) -> None:
    """The whole of it, in any case, whatever its parameters."""
    assert has_events([(b"x-request-id", b"text/event-stream"), (b"content-type", content_type)]) is events


def test_without_a_media_type_there_are_no_events() -> None:
    """Nothing is guessed."""
    assert not has_events([])
