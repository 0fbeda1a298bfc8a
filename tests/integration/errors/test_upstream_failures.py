"""An upstream that fails becomes a 502 or 504, a failure in mid-body a broken transfer; never a whole 200."""

import time
from collections.abc import Iterator

import httpx
import pytest

from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.integration.errors.conftest import IDLE_TIMEOUT_SECONDS, TOTAL_TIMEOUT_SECONDS, StrictRelay
from tests.support.bad_days import Script, ScriptedUpstream
from tests.support.raw_http import RawConnection, RawReply
from tests.support.relay_errors import MARK, assert_relay_error
from tests.support.servers import UPSTREAM_KEY, RelayProcess

pytestmark = pytest.mark.integration

BODY = {"model": "m", "input": MARK}
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
GENEROUS_SECONDS = 8.0  # far beyond every timeout here, far below a hang


@pytest.fixture(autouse=True)
def in_bounded_time() -> Iterator[None]:
    """Whatever the upstream does, the client has its answer in bounded time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < GENEROUS_SECONDS


def test_a_refused_connection_is_a_502(unlucky: httpx.Client) -> None:
    """For every method, with and without a body, and for uploads."""
    assert_relay_error(unlucky.get("/v1/models"), exc.UpstreamUnreachable)
    assert_relay_error(unlucky.delete(f"/v1/files/{MARK}"), exc.UpstreamUnreachable)
    assert_relay_error(unlucky.post("/v1/responses", json=BODY), exc.UpstreamUnreachable)
    upload = unlucky.post("/v1/files", data={"purpose": "batch"}, files={"file": (MARK, MARK.encode() * 1_000)})
    assert_relay_error(upload, exc.UpstreamUnreachable)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Type: applica",), id="half a head"),
        pytest.param((b"SSH-2.0-OpenSSH_9.9\r\n",), id="another protocol"),
        pytest.param((b"HTTP/1.1 2x0 OK\r\n\r\n",), id="no status"),
        pytest.param((JSON_HEAD + b"Content-Length: x\r\n\r\n{}",), id="no length"),
        pytest.param((JSON_HEAD + b"Bad header\r\n\r\n{}",), id="no header"),
        pytest.param((JSON_HEAD + b"X-Big: " + b"a" * 1_000_000,), id="endless header"),
        pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n",), id="only 100"),
    ],
)
def test_an_upstream_that_does_not_answer_in_http_is_a_502(
    pieces: tuple[bytes, ...], impatient: httpx.Client, scripted: ScriptedUpstream
) -> None:
    """Closing, breaking off and talking nonsense before the headers are complete."""
    scripted.play(Script(pieces))
    assert_relay_error(impatient.post("/v1/responses", json=BODY), exc.UpstreamProtocolError)
    assert len(scripted.heads) == 1


def test_a_call_that_may_cost_money_is_never_repeated(impatient: httpx.Client, scripted: ScriptedUpstream) -> None:
    """A POST on a connection that the upstream closes after having taken the request is sent exactly once."""
    answer = JSON_HEAD + b"Content-Length: 2\r\n\r\n{}"
    scripted.play(Script((answer,), then_go_on=True), Script())
    assert impatient.post("/v1/responses", json=BODY).status_code == 200
    assert_relay_error(impatient.post("/v1/responses", json=BODY), exc.UpstreamProtocolError)
    assert len(scripted.heads) == 2


def test_a_silent_upstream_is_a_504(impatient: httpx.Client, scripted: ScriptedUpstream) -> None:
    """Connected, request taken, never a byte."""
    scripted.play(Script(then_wait=True))
    began = time.monotonic()
    assert_relay_error(impatient.post("/v1/responses", json=BODY), exc.UpstreamTimeout)
    assert time.monotonic() - began > IDLE_TIMEOUT_SECONDS / 2, "a slow answer must get its time"


def test_an_upstream_that_stops_in_mid_head_is_a_504(impatient: httpx.Client, scripted: ScriptedUpstream) -> None:
    """A status line is not an answer yet."""
    scripted.play(Script((b"HTTP/1.1 200 OK\r\n",), then_wait=True))
    assert_relay_error(impatient.post("/v1/responses", json=BODY), exc.UpstreamTimeout)


def test_a_slow_but_steady_stream_is_not_idle(impatient: httpx.Client, scripted: ScriptedUpstream) -> None:
    """The idle timeout begins anew with every byte."""
    interval = IDLE_TIMEOUT_SECONDS / 3
    pieces = (STREAM_HEAD, *(b"8\r\ndata: 1\n\r\n" for _ in range(6)), b"0\r\n\r\n")
    scripted.play(Script(pieces, interval_seconds=interval))
    reply = impatient.post("/v1/responses", json={**BODY, "stream": True})
    assert reply.status_code == 200
    assert reply.content == b"data: 1\n" * 6


def test_a_request_that_takes_too_long_altogether_is_a_504(strict: httpx.Client, upstream: SimulatedUpstream) -> None:
    """The total timeout ends a request whose idle timeout is far away, and the upstream call with it."""
    upstream.faults.add(Fault(silent=True))
    assert_relay_error(strict.post("/v1/responses", json=BODY), exc.UpstreamTimeout)
    assert upstream.recorder.count == 1


def test_a_stream_that_takes_too_long_altogether_is_broken_off(
    strict_relay: StrictRelay, upstream: SimulatedUpstream
) -> None:
    """After the headers the total timeout can only break the connection."""
    upstream.faults.add(Fault(silent_after_bytes=10))
    began = time.monotonic()
    reply = post_raw(strict_relay.process, {**BODY, "stream": True})
    assert reply.status == 200
    assert not reply.complete
    assert time.monotonic() - began > TOTAL_TIMEOUT_SECONDS / 2


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(Script((JSON_HEAD + b'Content-Length: 100\r\n\r\n{"id":',)), id="JSON of a known length"),
        pytest.param(Script((JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\n6\r\n{"id":\r\n',)), id="JSON in chunks"),
        pytest.param(Script((STREAM_HEAD, b"8\r\ndata: 1\n\r\n")), id="a stream"),
        pytest.param(Script((STREAM_HEAD, b"8\r\ndata:")), id="a stream within an event"),
        pytest.param(Script((STREAM_HEAD, b"zz\r\n")), id="a stream with a broken chunk"),
        pytest.param(
            Script((STREAM_HEAD, b"zz\r\n"), interval_seconds=0.2), id="a stream with a broken chunk behind its head"
        ),
        pytest.param(Script((STREAM_HEAD, b"8\r\ndata: 1\n\r\n"), then_wait=True), id="a stream that falls silent"),
        pytest.param(Script((JSON_HEAD + b"Content-Length: 9\r\n\r\n{",), then_wait=True), id="JSON that falls silent"),
    ],
)
def test_an_answer_that_breaks_off_never_looks_complete(
    script: Script, impatient_relay: RelayProcess, scripted: ScriptedUpstream
) -> None:
    """The client sees either an error or a broken transfer, never a whole 200."""
    scripted.play(script)
    reply = post_raw(impatient_relay, {**BODY, "stream": True})
    assert_not_a_whole_answer(reply)


@pytest.mark.parametrize("cut_after_bytes", [0, 1, 200])
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_a_cut_anywhere_in_the_body_reaches_the_client(
    cut_after_bytes: int, stream: bool, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Right behind the headers, after one byte, in the middle."""
    upstream.faults.add(Fault(cut_after_bytes=cut_after_bytes))
    assert_not_a_whole_answer(post_raw(relay, {**BODY, "stream": stream}))


def test_a_cut_download_reaches_the_client(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """A file that ends early is not a file."""
    upstream.faults.add(Fault(operation_id="downloadFile", cut_after_bytes=70_000))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/v1/files/file-size-1000000/content")


@pytest.mark.parametrize("status", [401, 403, 400, 500])
def test_an_upstream_error_that_repeats_the_key_is_held_back(
    status: int, marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Whatever its status, the reply that would carry the relay's own key becomes a 502 without it."""
    upstream.faults.add(Fault(status=status, echo_credentials=True))
    reply = marked.post("/v1/responses", json=BODY)
    assert UPSTREAM_KEY not in reply.text
    assert_relay_error(reply, exc.UpstreamErrorWithheld)


def test_a_compressed_upstream_error_that_repeats_the_key_is_held_back(
    marked: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Compression must not hide the key from the relay and show it to the client."""
    upstream.faults.add(Fault(echo_credentials=True, gzip=True))
    reply = marked.post("/v1/responses", json=BODY, headers={"Accept-Encoding": "gzip"})
    assert UPSTREAM_KEY not in reply.text
    assert_relay_error(reply, exc.UpstreamErrorWithheld)


def test_an_upstream_error_passes_through_byte_for_byte(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Status, body and the headers that retries need are upstream's own."""
    body = {"error": {"message": "Slow down.", "type": "rate_limit", "param": None, "code": "rate_limit_exceeded"}}
    headers = {"retry-after": "7", "retry-after-ms": "7000", "x-should-retry": "true"}
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 503):
        upstream.faults.add(Fault(times=1, status=status, body=body, headers=headers))
        reply = client.post("/v1/responses", json=BODY)
        assert (reply.status_code, reply.json()) == (status, body)
        assert {name: reply.headers[name] for name in headers} == headers


def test_an_upstream_redirect_is_not_followed(impatient: httpx.Client, scripted: ScriptedUpstream) -> None:
    """The relay's key goes to one address only, and the client is not led around the relay."""
    elsewhere = (
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/v1/models\r\nContent-Length: 0\r\n\r\n"
    )
    scripted.play(Script((elsewhere,)))
    reply = impatient.get("/v1/models")
    assert reply.status_code == 307
    assert "location" not in reply.headers
    assert len(scripted.heads) == 1


def post_raw(relay: RelayProcess, body: dict[str, object]) -> RawReply:
    """Post to the responses, and look at the framing of the reply."""
    content = httpx.Request("POST", relay.url, json=body).content
    with RawConnection(relay.url) as connection:
        headers = {**relay.headers, "Content-Type": "application/json"}
        return connection.exchange("POST", "/v1/responses", headers.items(), content)


def assert_not_a_whole_answer(reply: RawReply) -> None:
    """The transfer is broken, or the failure came early enough for an error of the relay."""
    if reply.status == 200:
        assert not reply.complete
    else:
        assert_relay_error(reply, exc.UpstreamProtocolError)
