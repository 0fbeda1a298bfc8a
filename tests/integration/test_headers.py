"""Which headers, queries and bytes cross the relay, in each direction, and which stay behind."""

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import orjson
import pytest

from codegen.contract import FULL, JSON, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.headers import REQUEST_HEADERS, RESPONSE_HEADERS
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.contract_requests import contract_requests
from tests.support.raw_http import RawConnection, chunked, raw_request
from tests.support.servers import RELAY_KEY, UPSTREAM_KEY, RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
BODY = b'{"model": "m", "input": "x"}'
# What one client may say to one server; the upstream gets the relay's own.
OF_THE_CONNECTION = {"host", "connection", "content-length", "transfer-encoding"}
CROSSING = {
    "accept": "application/json",
    "accept-encoding": "gzip",
    "accept-language": "de",
    "content-type": "application/json",
    "idempotency-key": "idem-1",
    "if-none-match": '"etag-1"',
    "openai-beta": "responses=v1",
    "range": "bytes=0-99",
    "user-agent": "test/1.0",
    "x-client-request-id": "client-1",
    "x-stainless-lang": "python",
    "x-stainless-read-timeout": "600",
    "x-stainless-retry-count": "2",
}
STAYING_BEHIND = {
    "api-key": "sk-client-1",
    "cf-connecting-ip": "203.0.113.7",
    "cookie": "session=secret",
    "forwarded": "for=203.0.113.7",
    "http2-settings": "AAMAAABk",
    "keep-alive": "timeout=5",
    "openai-organization": "org-client",
    "openai-project": "proj-client",
    "origin": "https://example.com",
    "proxy-authorization": "Basic cHJveHk6c2VjcmV0",
    "proxy-connection": "keep-alive",
    "referer": "https://example.com/secret",
    "te": "trailers",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "trailer": "x-checksum",
    "via": "1.1 proxy",
    "x-api-key": "sk-client-2",
    "x-forwarded-for": "203.0.113.7",
    "x-forwarded-host": "example.com",
    "x-forwarded-proto": "https",
    "x-http-method-override": "DELETE",
    "x-openai-organization": "org-client",
    "x-real-ip": "203.0.113.7",
    "x-relay-anything": "secret",
    "x-request-id": "client-2",
    "xopenai-beta": "lookalike",
}
USUAL_LIMITS = {f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")}


@pytest.fixture(scope="module")
def team_relay(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay whose settings name an upstream organisation and project."""
    environment = {"OPENAI_ORG_ID": "org-team", "OPENAI_PROJECT_ID": "proj_team"}
    with running_relay(tmp_path_factory.mktemp("team"), upstream_server.url, environment) as relay:
        yield relay


def test_the_upstream_sees_exactly_the_allowed_headers(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Everything that may cross arrives as it was sent, nothing else does, and the only key is the relay's own."""
    sent = [*relay.headers.items(), *CROSSING.items(), *STAYING_BEHIND.items(), ("Connection", "keep-alive, x-hop")]
    with RawConnection(relay.url) as connection:
        assert connection.exchange("POST", "/v1/responses", [*sent, ("X-Hop", "1")], BODY).status == 200
    (received,) = upstream.recorder.requests
    crossed = [(name, value) for name, value in received.headers if name not in OF_THE_CONNECTION]
    assert sorted(crossed) == sorted([*CROSSING.items(), ("authorization", f"Bearer {UPSTREAM_KEY}")])
    names = [name for name, _ in received.headers]
    assert len(names) == len(set(names))
    assert received.header("host") != "relay.test"
    assert received.header("content-length") == str(len(BODY))


def test_the_test_above_names_every_allowed_header() -> None:
    """A header that is added to the allowlist has to be added to the test as well."""
    assert {name.decode() for name in REQUEST_HEADERS} == {n for n in CROSSING if not n.startswith("x-stainless-")}


@pytest.mark.parametrize("operation_id", ["createResponseStream", "listModels", "createFile", "downloadFile"])
def test_no_kind_of_operation_forwards_more(
    operation_id: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """The wrapper that streams, a call without a body, an upload and a download: one header contract."""
    (request,) = contract_requests(CONTRACT, CONTRACT.operations[operation_id])
    sent = {**relay.headers, **CROSSING, **STAYING_BEHIND, **request.headers, "X-Relay-Key": RELAY_KEY}
    with RawConnection(relay.url) as connection:
        connection.exchange(request.method, request.path, sent.items(), request.content)
    (received,) = upstream.recorder.requests
    allowed = {*CROSSING, "authorization", *OF_THE_CONNECTION}
    assert {name for name, _ in received.headers} <= allowed
    assert received.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert RELAY_KEY not in str(received.headers)


def test_the_upstream_gets_no_headers_that_the_client_did_not_send(
    relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """No invented `User-Agent`, `Accept` or `Accept-Encoding`: upstream must not compress for who cannot read it."""
    with RawConnection(relay.url) as connection:
        assert connection.exchange("GET", "/v1/models", relay.headers.items()).status == 200
    (received,) = upstream.recorder.requests
    assert {name for name, _ in received.headers} - {"host", "connection"} == {"authorization"}


def test_organisation_and_project_come_from_the_settings(
    team_relay: RelayProcess, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """The client can neither choose nor remove them; without settings the upstream sees none."""
    for chosen in (relay, team_relay):
        headers = {**chosen.headers, "OpenAI-Organization": "org-client", "OpenAI-Project": "proj-client"}
        assert httpx.get(f"{chosen.url}/v1/models", headers=headers).status_code == 200
    without, settled = upstream.recorder.requests
    assert (without.header("openai-organization"), without.header("openai-project")) == (None, None)
    names = [name for name, _ in settled.headers if name in {"openai-organization", "openai-project"}]
    assert sorted(names) == ["openai-organization", "openai-project"]
    assert settled.header("openai-organization") == "org-team"
    assert settled.header("openai-project") == "proj_team"


def test_the_client_gets_exactly_the_allowed_headers(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Limits, ids and caching arrive; cookies, the team's account, the server's name and credentials do not."""
    crossing = {name.decode(): "1" for name in RESPONSE_HEADERS} | {"x-ratelimit-remaining-project-tokens": "9"}
    # These two describe the very body and cannot be made up.
    del crossing["content-length"], crossing["content-encoding"]
    crossing["content-type"] = "application/json; charset=utf-8"
    staying = {
        "access-control-allow-origin": "*",
        "alt-svc": 'h3=":443"',
        "authorization": f"Bearer {UPSTREAM_KEY}",
        "cf-ray": "1",
        "clear-site-data": '"*"',
        "location": "https://api.openai.com/v1/models",
        "openai-organization": "org-team",
        "openai-project": "proj_team",
        "proxy-authenticate": "Basic",
        "server": "cloudflare",
        "set-cookie": "__cf_bm=1",
        "strict-transport-security": "max-age=1",
        "via": "1.1 upstream",
        "www-authenticate": "Bearer",
        "x-anything": "1",
        "x-api-key": UPSTREAM_KEY,
        "x-relay-request-id": "forged",
    }
    upstream.faults.add(Fault(headers={**crossing, **staying}))
    reply = client.get("/v1/models")
    own = {"date", "content-length", "x-content-type-options", "x-relay-request-id"}
    assert set(reply.headers) == {*crossing, *USUAL_LIMITS, *own}
    assert {name: reply.headers[name] for name in crossing} == crossing
    assert reply.headers.get_list("x-relay-request-id") == [reply.headers["x-relay-request-id"]]
    assert reply.headers["x-relay-request-id"].startswith("rly_")
    assert UPSTREAM_KEY not in str(reply.headers)


def test_rate_limits_arrive_as_upstream_states_them(client: httpx.Client) -> None:
    """SDKs and people plan with them, so none may be renamed or dropped."""
    assert {name for name in client.get("/v1/models").headers if name.startswith("x-ratelimit-")} == USUAL_LIMITS


def test_location_crosses_only_as_a_path_of_the_mirrored_surface(
    client: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """The SDP answer names its call with it; an address elsewhere would lead the client around the relay."""
    locations = {
        "/v1/realtime/calls/rtc_1": "/v1/realtime/calls/rtc_1",
        "https://api.openai.com/v1/realtime/calls/rtc_1": None,
        "//evil.test/v1/": None,
        "/other": None,
    }
    for location, expected in locations.items():
        upstream.faults.add(Fault(times=1, headers={"location": location}))
        assert client.get("/v1/models").headers.get("location") == expected


@pytest.mark.parametrize(
    "method, target, status",
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/files/none", 404),
        ("GET", "/v1/files/file-size-10/content", 200),
        ("POST", "/v1/responses", 400),
        ("POST", "/v1/responses:stream", 400),
        ("GET", "/v1/nothing", 404),
        ("PATCH", "/v1/models", 405),
        ("OPTIONS", "/v1/models", 204),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/organization/users", 403),
        ("GET", "/health", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/docs.css", 200),
        ("GET", "/policy", 200),
    ],
)
def test_every_reply_carries_both_ids(method: str, target: str, status: int, client: httpx.Client) -> None:
    """`x-relay-request-id` is the relay's, fresh each time; `x-request-id` is upstream's where upstream answered."""
    first, second = client.request(method, target), client.request(method, target)
    assert first.status_code == second.status_code == status
    for reply in (first, second):
        assert reply.headers["x-relay-request-id"].startswith("rly_")
        assert reply.headers["x-request-id"].startswith(("req_", "rly_"))
    assert first.headers["x-relay-request-id"] != second.headers["x-relay-request-id"]


def test_operations_that_end_say_so(client: httpx.Client) -> None:
    """`Sunset` (RFC 8594) and `Deprecation` (RFC 9745) stand on exactly the operations that the contract dates."""
    dated = [operation for operation in CONTRACT if operation.sunset]
    assert dated
    for operation in CONTRACT:
        if operation.sunset:
            request = next(contract_requests(CONTRACT, operation))
            reply = client.request(request.method, request.path, headers=dict(request.headers), content=request.content)
            day = datetime.fromisoformat(operation.sunset).replace(tzinfo=UTC)
            assert parsedate_to_datetime(reply.headers["sunset"]) == day
            assert reply.headers["deprecation"] == f"@{int(day.timestamp())}"
    for path in ("/v1/models", "/v1/nothing"):
        assert not {"sunset", "deprecation"} & set(client.get(path).headers)


def test_refusals_of_operations_that_end_say_so_too(client: httpx.Client) -> None:
    """Who calls them wrongly should still learn that they end."""
    reply = client.post("/v1/evals", json={"data_source_config": 1})
    assert reply.status_code == 400
    assert {"sunset", "deprecation"} <= set(reply.headers)


def test_compressed_replies_pass_undecoded(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """`content-encoding`, its length and its bytes are upstream's; decoding them gives the object."""
    upstream.faults.add(Fault(gzip=True))
    headers = {**relay.headers, "Accept-Encoding": "gzip"}
    with RawConnection(relay.url) as connection:
        reply = connection.exchange("GET", "/v1/models", headers.items())
        assert reply.header("content-encoding") == "gzip"
        assert reply.header("content-length") == str(len(reply.body))
        assert orjson.loads(gzip.decompress(reply.body))["object"] == "list"
        plain = connection.exchange("GET", "/v1/models", relay.headers.items())
        assert plain.header("content-encoding") is None
        assert plain.json()["object"] == "list"


@pytest.mark.parametrize(
    "query",
    [
        "include[]=a&include[]=b",
        "include%5B%5D=a&include%5B%5D=b",
        "include=b&include=a&include=b",
        "include[]=a,b&after=x%2By+z&limit=5",
        "order=asc&&limit=5&",
        "metadata[key]=%C3%BC&metadata%5Bother%5D=%2526",
    ],
)
def test_a_query_arrives_as_it_was_sent(query: str, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Names may repeat; nothing is decoded, reordered or collapsed. Raw brackets, which no URL has, may be encoded."""
    with RawConnection(relay.url) as connection:
        connection.exchange("GET", f"/v1/chat/completions?{query}", relay.headers.items())
    (received,) = upstream.recorder.requests
    assert received.query == query.replace("[", "%5B").replace("]", "%5D")


@pytest.mark.parametrize(
    "body",
    [
        b' \r\n\t{ "input" :"x" ,\n"model":"m"}\n ',
        b'{"model":"m","input":"gr\\u00fc\\u00DFe \\/ \\ud83c\\udf88"}',
        '{"model":"m","input":"grüße 🎈\u2028"}'.encode(),
        b'{"model":"m","input":"x","temperature":1.0,"top_p":1E-1,"big":12345678901234567890123,"z":-0.0}',
        b'{"model":"m","input":"x","":{"":""},"__proto__":{},"unknown":[1,[2,{"a":null}]]}',
    ],
)
def test_json_arrives_byte_for_byte(body: bytes, relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Whitespace, escapes, numbers, order and unknown fields are the client's own, in one piece or in chunks."""
    headers = [*relay.headers.items(), ("Content-Type", JSON)]
    with RawConnection(relay.url) as connection:
        assert connection.exchange("POST", "/v1/responses", headers, body).status == 200
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        connection.send(
            raw_request("POST", "/v1/responses", [*headers, ("Transfer-Encoding", "chunked")]) + chunked(pieces)
        )
        assert connection.reply("POST").status == 200
    assert [request.body_start for request in upstream.recorder.requests] == [body, body]
