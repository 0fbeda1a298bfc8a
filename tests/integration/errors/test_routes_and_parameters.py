"""Paths, methods and parameters that the contract does not have are refused before anything reaches the upstream."""

import httpx
import pytest

from codegen.contract import FULL, METHODS, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.contract_requests import plain_path
from tests.support.raw_http import RawConnection
from tests.support.relay_errors import MARK, MARKED_HEADERS, assert_relay_error
from tests.support.servers import RelayProcess

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)


@pytest.mark.parametrize(
    "target",
    [
        f"/{MARK}",
        f"/v1/{MARK}",
        "/",
        "/v1",
        "/v1/",
        "/v1/models/",
        "/V1/models",
        "//v1/models",
        "/v1//models",
        "/v1/models;x",
        "/v1/%6dodels",
        "/v1%2Fmodels",
        "/v1/./models",
        "/v1/files/../models",
        "/v1/batches/../organization/users",
        f"/v1/responses:{MARK}",
        "*",
    ],
)
def test_a_path_that_only_resembles_one_of_the_contract_is_unknown(
    target: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """No normalisation, no decoding, no guessing."""
    with RawConnection(relay.url) as connection:
        reply = connection.exchange("GET", target, [*relay.headers.items(), *MARKED_HEADERS.items()])
    assert_relay_error(reply, exc.UnknownOperation)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "%2e",
        "%2e%2e",
        "%2E.",
        "a%2fb",
        "..%2Fmodels",
        "%2F",
        "a%5cb",
        "a\\b",
        "a%3fb",
        "a%23b",
        "%00",
        "a%0ab",
        "a%0d%0aX-Injected:%20x",
        "%1f",
        "%7f",
        "%ff",
        "%c0%ae%c0%ae",
        "%ed%a0%80",
    ],
)
def test_a_path_value_that_could_stand_for_another_path_is_unknown(
    value: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Slashes, dot segments, control characters and broken UTF-8 are refused, however they are encoded."""
    with RawConnection(relay.url) as connection:
        for target in (f"/v1/files/{value}", f"/v1/vector_stores/vs_1/files/{value}", f"/v1/batches/{value}/cancel"):
            method = "POST" if target.endswith("cancel") else "GET"
            reply = connection.exchange(method, target, relay.headers.items())
            assert_relay_error(reply, exc.UnknownOperation)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "value", ["ft:gpt-6:team::id-1", "a;b", "a%3Bb", "%252e%252e", "gr%C3%BC%C3%9Fe", "a%20b", "~!$&'()*+,=:@"]
)
def test_a_harmless_path_value_means_the_same_upstream(
    value: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Values that stay inside their segment are forwarded and decode to what the client meant."""
    with RawConnection(relay.url) as connection:
        connection.exchange("GET", f"/v1/models/{value}", relay.headers.items())
    (received,) = upstream.recorder.requests
    assert httpx.URL(received.path).path == httpx.URL(f"/v1/models/{value}").path


@pytest.mark.parametrize(
    "line", ["GET /v1/models/a b HTTP/1.1", "GET /v1/models/\x01 HTTP/1.1", "GET /v1/models/é HTTP/1.1"]
)
def test_a_request_line_that_is_not_http_is_refused(
    line: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Raw spaces, control characters and non-ASCII bytes get a 400 with an id, and the connection ends."""
    with RawConnection(relay.url) as connection:
        connection.send(f"{line}\r\nHost: relay.test\r\nX-Relay-Key: {relay.key}\r\n\r\n".encode("latin-1"))
        assert_relay_error(connection.reply(), exc.MalformedRequest)
        assert connection.read_until(b"\n") == b""
    assert upstream.recorder.count == 0


def test_every_path_refuses_the_methods_that_it_does_not_have(
    marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """405 with an `Allow` of exactly the contract's methods, plus OPTIONS, and HEAD where there is GET."""
    methods: dict[str, set[str]] = {}
    for operation in CONTRACT:
        methods.setdefault(operation.path, set()).add(operation.method)
    # A concrete path wins over a template, so `/v1/videos/edits` is never the video `edits`.
    paths = {plain_path(o): methods[o.path] for o in CONTRACT if "{asset}" not in o.path}
    for path, known in paths.items():
        expected = {*known, "OPTIONS", *({"HEAD"} if "GET" in known else ())}
        for method in {*(name.upper() for name in METHODS), "TRACE"} - known:
            reply = marked.request(method, path)
            assert_relay_error(reply, exc.MethodNotAllowed)
            assert set(reply.headers["allow"].split(", ")) == expected, path
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "target, param",
    [
        (f"/v1/files?limit={MARK}", "limit"),
        ("/v1/files?limit=1.5", "limit"),
        ("/v1/files?limit=", "limit"),
        ("/v1/files?limit=5&limit=x", "limit"),
        ("/v1/files?limit=" + "9" * 5000, "limit"),
        (f"/v1/files?order={MARK}", "order"),
        ("/v1/files?order=asc&order=sideways", "order"),
        (f"/v1/responses/resp_1?stream={MARK}", "stream"),
        ("/v1/responses/resp_1?starting_after=%31x", "starting_after"),
        ("/v1/files?x=%ff", None),
        ("/v1/files?" + "&".join(f"{MARK}{i}=1" for i in range(1_200)), None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_query_against_the_contract_is_refused(
    target: str, param: str | None, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """The parameter is named as the contract names it, its value is not repeated."""
    with RawConnection(relay.url) as connection:
        fields = assert_relay_error(connection.exchange("GET", target, relay.headers.items()), exc.InvalidParameter)
    assert fields["param"] == param
    assert upstream.recorder.count == 0


def test_a_path_parameter_against_the_contract_is_refused(relay: RelayProcess) -> None:
    """The documentation page has no other assets than the listed ones."""
    with RawConnection(relay.url) as connection:
        fields = assert_relay_error(connection.exchange("GET", f"/docs/{MARK}"), exc.InvalidParameter)
    assert fields["param"] == "asset"


def test_unknown_query_parameters_pass(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Upstream moves faster than the contract, so names that it does not know travel on unchanged."""
    client.get("/v1/files?brand_new=%7Bx%7D&after=file-1&empty=&flag")
    (received,) = upstream.recorder.requests
    assert received.query == "brand_new=%7Bx%7D&after=file-1&empty=&flag"


def test_a_refused_key_is_told_which_scheme_to_use(relay: RelayProcess) -> None:
    """Every 401 carries `WWW-Authenticate`, as RFC 9110 section 11.6.1 demands."""
    for headers in ({}, {"Authorization": "Bearer rk_wrong"}, {"Authorization": "Basic cms6cms="}):
        reply = httpx.get(f"{relay.url}/v1/models", headers=headers)
        assert reply.status_code == 401
        assert reply.headers.get("www-authenticate", "").startswith("Bearer")
