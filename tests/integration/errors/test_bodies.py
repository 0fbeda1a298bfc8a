"""Bodies that the contract cannot mean are refused before anything reaches the upstream."""

import gzip

import httpx
import pytest

from handlers.runtime import exceptions as exc
from handlers.runtime.exceptions import RelayError
from handlers.simulated_upstream import SimulatedUpstream
from tests.integration.errors.conftest import MAX_JSON_BYTES, MAX_UPLOAD_BYTES, StrictRelay
from tests.support.raw_http import RawConnection, RawReply, chunked, raw_request
from tests.support.relay_errors import MARK, MARKED_HEADERS, assert_relay_error
from tests.support.servers import RelayProcess

pytestmark = pytest.mark.integration

JSON_HEADERS = {"Content-Type": "application/json"}
MULTIPART_HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}
VALID = f'{{"model": "m", "input": "{MARK}"}}'.encode()
# Further fields go into the place of %s.
BODY = '{"model": "m", "input": "x", "metadata": {"a": "1"}, %s}'
HUGE = "9" * 6_000
DEEP = '{"a":' * 20_000 + "1" + "}" * 20_000


@pytest.mark.parametrize(
    "body, error",
    [
        pytest.param(f"{MARK}".encode(), exc.MalformedJson, id="text"),
        pytest.param(VALID[:-1], exc.MalformedJson, id="unfinished"),
        pytest.param(VALID + b" " + VALID, exc.MalformedJson, id="two values"),
        pytest.param(VALID + b"\x00", exc.MalformedJson, id="a zero byte behind"),
        pytest.param(VALID.replace(b"}", b",}"), exc.MalformedJson, id="trailing comma"),
        pytest.param(VALID.replace(b'"', b"'"), exc.MalformedJson, id="single quotes"),
        pytest.param(b"/* c */" + VALID, exc.MalformedJson, id="comment"),
        pytest.param((BODY % f'"{MARK}": NaN').encode(), exc.MalformedJson, id="NaN"),
        pytest.param((BODY % f'"{MARK}": -Infinity').encode(), exc.MalformedJson, id="Infinity"),
        pytest.param((BODY % f'"{MARK}": "\t"').encode(), exc.MalformedJson, id="raw control character"),
        pytest.param((BODY % f'"{MARK}": 01').encode(), exc.MalformedJson, id="leading zero"),
        pytest.param(f'{{"model": "m", "input": "{MARK}ü"}}'.encode("latin-1"), exc.MalformedJson, id="Latin-1"),
        pytest.param((BODY % '"x": "?"').encode().replace(b"?", b"\xed\xa0\x80"), exc.MalformedJson, id="surrogate"),
        pytest.param((BODY % '"x": "?"').encode().replace(b"?", b"\xc0\xaf"), exc.MalformedJson, id="overlong UTF-8"),
        pytest.param(b"\xef\xbb\xbf" + VALID, exc.MalformedJson, id="byte order mark"),
        pytest.param(VALID.decode().encode("utf-16"), exc.MalformedJson, id="UTF-16"),
        pytest.param(VALID.decode().encode("utf-32-be"), exc.MalformedJson, id="UTF-32"),
        pytest.param(b"[" * 100_000, exc.MalformedJson, id="deep and unfinished"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, exc.MalformedJson, id="deep arrays"),
        pytest.param((BODY % f'"x": {DEEP}').encode(), exc.MalformedJson, id="deep objects"),
        pytest.param((BODY % f'"max_output_tokens": {HUGE}').encode(), exc.MalformedJson, id="huge integer"),
        pytest.param((BODY % f'"temperature": 1e{HUGE}').encode(), exc.InvalidBody, id="huge exponent"),
        pytest.param((BODY % '"temperature": 1e999').encode(), exc.InvalidBody, id="beyond a double"),
        pytest.param((BODY % f'"max_output_tokens": -{HUGE[:300]}').encode(), exc.InvalidBody, id="huge negative"),
        pytest.param((BODY % f'"{MARK}": 1, "{MARK}": 1').encode(), exc.DuplicateKey, id="key twice"),
        pytest.param((BODY % '"model": "other"').encode(), exc.DuplicateKey, id="known key twice"),
        pytest.param((BODY % r'"mode\u006c": "other"').encode(), exc.DuplicateKey, id="key twice, once escaped"),
        pytest.param((BODY % '"x": {"y": [{"k": 1, "k": 2}]}').encode(), exc.DuplicateKey, id="nested key twice"),
        pytest.param(b"", exc.MissingBody, id="empty"),
        pytest.param(b" \n", exc.MalformedJson, id="only spaces"),
        pytest.param(b"null", exc.InvalidBody, id="null"),
        pytest.param(f'["{MARK}"]'.encode(), exc.InvalidBody, id="array"),
        pytest.param(f'"{MARK}"'.encode(), exc.InvalidBody, id="string"),
        pytest.param((BODY % f'"store": "{MARK}"').encode(), exc.InvalidBody, id="wrong type"),
        pytest.param((BODY % f'"service_tier": {{"{MARK}": "{MARK}"}}').encode(), exc.InvalidBody, id="wrong enum"),
    ],
)
def test_a_json_body_that_cannot_be_meant_is_refused(
    body: bytes, error: type[RelayError], marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """With its own code, without a word of the body, and without a call."""
    assert_relay_error(marked.post("/v1/responses", content=body, headers=JSON_HEADERS), error)
    assert upstream.recorder.count == 0


def test_an_invalid_field_is_named_by_its_place(marked: httpx.Client) -> None:
    """`param` leads to the field, with names of the contract only."""
    wrong = [
        ({"model": "m", "input": "x", "max_output_tokens": MARK}, "max_output_tokens"),
        ({"model": "m", "input": "x", "reasoning": {"effort": {MARK: 1}}}, "reasoning.effort"),
        ({"model": "m", "input": "x", "metadata": {MARK: {MARK: 1}}}, "metadata"),
    ]
    for body, param in wrong:
        assert assert_relay_error(marked.post("/v1/responses", json=body), exc.InvalidBody)["param"] == param


def test_deep_and_large_values_within_the_limits_pass(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """150 levels and a number of 300 digits are JSON; on mirrored operations unknown fields travel on."""
    for extra in ('"x": ' + "[" * 150 + "]" * 150, '"x": ' + "9" * 300):
        body = (BODY % extra).encode()
        assert client.post("/v1/responses", content=body, headers=JSON_HEADERS).status_code == 200
        assert upstream.recorder.requests[-1].body_start == body


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no Content-Type"),
        pytest.param({"Content-Type": ""}, id="empty"),
        pytest.param({"Content-Type": "application"}, id="half"),
        pytest.param({"Content-Type": f"application/{MARK}"}, id="unknown"),
        pytest.param({"Content-Type": "text/plain"}, id="text"),
        pytest.param({"Content-Type": "application/x-www-form-urlencoded"}, id="form"),
        pytest.param(MULTIPART_HEADERS, id="multipart"),
        pytest.param({"Content-Type": "application/json, text/plain"}, id="two types"),
        pytest.param({"Content-Type": "application/jsonx"}, id="longer name"),
        pytest.param({"Content-Type": "application/json; charset=utf-16"}, id="charset UTF-16"),
        pytest.param({"Content-Type": "application/json; charset=utf-7"}, id="charset UTF-7"),
        pytest.param({**JSON_HEADERS, "Content-Encoding": "gzip"}, id="gzip"),
        pytest.param({**JSON_HEADERS, "Content-Encoding": f"{MARK}, identity"}, id="unknown encoding"),
    ],
)
def test_a_media_type_that_the_operation_does_not_take_is_refused(
    headers: dict[str, str], marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """What the relay would read differently from the upstream is not read at all: 415."""
    body = gzip.compress(VALID) if headers.get("Content-Encoding") == "gzip" else VALID
    assert_relay_error(marked.post("/v1/responses", content=body, headers=headers), exc.UnsupportedMediaType)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json;charset=UTF-8", 'application/json; charset="utf-8"'],
)
def test_json_may_be_named_in_every_way_that_means_utf_8(
    content_type: str, client: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Case and a charset of UTF-8 do not matter, and the header travels as it came."""
    assert client.post("/v1/responses", content=VALID, headers={"Content-Type": content_type}).status_code == 200
    assert upstream.recorder.requests[0].header("content-type") == content_type


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "multipart/mixed; boundary=b"])
def test_an_upload_needs_a_multipart_body_with_a_boundary(
    content_type: str, marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """A multipart body that nobody can take apart is not passed on: 415."""
    reply = marked.post("/v1/files", content=VALID, headers={"Content-Type": content_type})
    assert_relay_error(reply, exc.UnsupportedMediaType)
    assert upstream.recorder.count == 0


def test_two_content_types_are_not_guessed_between(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Which of two `Content-Type` lines counts is for nobody to guess: 400 or 415, and no call."""
    with RawConnection(relay.url) as connection:
        headers = [*relay.headers.items(), ("Content-Type", "text/plain"), ("Content-Type", "application/json")]
        assert connection.exchange("POST", "/v1/responses", headers, VALID).status in {400, 415}
    assert upstream.recorder.count == 0


def test_no_body_at_all_is_a_missing_body(marked: httpx.Client, upstream: SimulatedUpstream) -> None:
    """With and without a `Content-Type`, for JSON and for multipart, announced as empty or sent in zero chunks."""
    for path in ("/v1/responses", "/v1/files"):
        assert_relay_error(marked.post(path), exc.MissingBody)
        assert_relay_error(marked.post(path, headers=JSON_HEADERS), exc.MissingBody)
    assert_relay_error(marked.post("/v1/responses", content=iter(()), headers=JSON_HEADERS), exc.MissingBody)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize(
    "path, headers, limit",
    [
        pytest.param("/v1/responses", JSON_HEADERS, MAX_JSON_BYTES, id="JSON"),
        pytest.param("/v1/files", MULTIPART_HEADERS, MAX_UPLOAD_BYTES, id="upload"),
    ],
)
class TestLimits:
    """A body of the limit passes, one byte more is a 413, however its length is told."""

    def test_announced_length(
        self, path: str, headers: dict[str, str], limit: int, strict_relay: StrictRelay, upstream: SimulatedUpstream
    ) -> None:
        """By `Content-Length`: refused without waiting for the body, and without a call."""
        relay = strict_relay.process
        announced = [*relay.headers.items(), *MARKED_HEADERS.items(), *headers.items()]
        with RawConnection(relay.url) as connection:
            reply = connection.exchange("POST", path, [*announced, ("Content-Length", str(limit + 1))])
            assert_relay_error(reply, exc.PayloadTooLarge)
        assert upstream.recorder.count == 0

    def test_absurd_length(
        self, path: str, headers: dict[str, str], limit: int, strict_relay: StrictRelay, upstream: SimulatedUpstream
    ) -> None:
        """Numbers of any size are compared, not converted to a crash."""
        relay = strict_relay.process
        with RawConnection(relay.url) as connection:
            announced = [*relay.headers.items(), *headers.items(), ("Content-Length", "9" * 18)]
            assert_relay_error(connection.exchange("POST", path, announced), exc.PayloadTooLarge)
        assert upstream.recorder.count == 0

    def test_chunks(
        self, path: str, headers: dict[str, str], limit: int, strict_relay: StrictRelay, upstream: SimulatedUpstream
    ) -> None:
        """In chunks: refused when the limit is passed; the upstream never gets a whole request."""
        reply = self._send_chunks(strict_relay, path, headers, [b" " * 1_000] * (limit // 1_000) + [b"x"])
        assert_relay_error(reply, exc.PayloadTooLarge)
        assert all(request.body_size <= limit for request in upstream.recorder.requests)
        assert all(request.status is None for request in upstream.recorder.requests)

    def test_up_to_the_limit(
        self, path: str, headers: dict[str, str], limit: int, strict_relay: StrictRelay, upstream: SimulatedUpstream
    ) -> None:
        """Exactly the limit is not too much, announced or in chunks."""
        relay = strict_relay.process
        if path == "/v1/responses":
            body = VALID + b" " * (limit - len(VALID))
        else:
            fields = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            head = fields + b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            body = head + b"x" * (limit - len(head) - len(b"\r\n--b--\r\n")) + b"\r\n--b--\r\n"
        assert len(body) == limit
        reply = httpx.post(f"{relay.url}{path}", content=body, headers={**relay.headers, **headers})
        assert reply.status_code == 200
        assert self._send_chunks(strict_relay, path, headers, [body[:100], body[100:]]).status == 200
        assert [request.body_size for request in upstream.recorder.requests] == [limit, limit]

    @staticmethod
    def _send_chunks(strict_relay: StrictRelay, path: str, headers: dict[str, str], pieces: list[bytes]) -> RawReply:
        relay = strict_relay.process
        with RawConnection(relay.url) as connection:
            sent = [*relay.headers.items(), *headers.items(), ("Transfer-Encoding", "chunked")]
            connection.send(raw_request("POST", path, sent) + chunked(pieces))
            return connection.reply("POST")


def test_expecting_100_continue_works(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """The relay asks for the body when it is about to read it, then answers as usual."""
    with RawConnection(relay.url) as connection:
        headers = {**relay.headers, **JSON_HEADERS, "Content-Length": str(len(VALID)), "Expect": "100-continue"}
        connection.send_head("POST", "/v1/responses", headers.items())
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        assert upstream.recorder.count == 0
        connection.send(VALID)
        assert connection.reply("POST").status == 200
    assert upstream.recorder.count == 1


def test_a_refusal_comes_instead_of_100_continue(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Who waits before sending a large body learns at once that it is not wanted."""
    with RawConnection(relay.url) as connection:
        headers = {**JSON_HEADERS, "Content-Length": "1000000", "Expect": "100-continue"}
        connection.send_head("POST", "/v1/responses", headers.items())
        assert_relay_error(connection.reply("POST"), exc.MissingKey)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("expectation", [MARK, "200-ok", "100-continue, x"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/files", "/v1/batches/batch_1/cancel"])
def test_another_expectation_is_refused(
    expectation: str, path: str, marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """417 on every kind of operation, with a body or without."""
    reply = marked.post(path, content=VALID, headers={**JSON_HEADERS, "Expect": expectation})
    assert_relay_error(reply, exc.UnsupportedExpectation)
    assert upstream.recorder.count == 0
