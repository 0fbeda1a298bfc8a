"""Raw requests that could be read in two ways: nothing of them reaches the upstream, or exactly one plain request."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from handlers.simulated_upstream import SimulatedUpstream
from tests.support.raw_http import TIMEOUT_SECONDS
from tests.support.servers import RelayProcess
from tests.support.smuggling_cases import KEY, SMUGGLED_PATH, SMUGGLING_CASES, SmugglingCase
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

PIECES = {"whole": 2**20, "in pairs": 2, "in pieces": 37}  # how the bytes are cut; borders fall everywhere


def test_there_are_enough_cases() -> None:
    """At least 40, each with a name of its own."""
    assert len(SMUGGLING_CASES) >= 40
    assert len({case.name for case in SMUGGLING_CASES}) == len(SMUGGLING_CASES)


@pytest.mark.parametrize("cut", PIECES)
@pytest.mark.parametrize("case", SMUGGLING_CASES, ids=lambda case: case.name)
def test_nothing_ambiguous_reaches_the_upstream(
    case: SmugglingCase, cut: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Its reply, the end of the connection, and upstream at most the one request that it was for."""
    received = exchange(relay, case.data.replace(KEY, relay.key.encode()), PIECES[cut])
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("ascii").lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {case.status} "), received[:300]
    # Behind a reply that had gone out already, the refusal of what followed is a second one.
    refusals = received.count(b"HTTP/1.1 400 ")
    assert refusals <= 1
    assert received.count(b"HTTP/1.1 ") - refusals == (case.status != 400), received
    if case.status == 400:
        assert "connection: close" in lines
        assert json.loads(body)["error"]["code"] == "malformed_request"
    wait_until(lambda: all(record.finished_at is not None for record in upstream.recorder.requests))
    whole = [record for record in upstream.recorder.requests if record.disconnected_at is None]
    assert SMUGGLED_PATH not in {record.path for record in upstream.recorder.requests}
    assert [record.path for record in whole] == ([case.path] if case.path else [])
    for record in whole:
        assert record.body_start == case.body
        assert record.header("content-length") in {None, str(len(case.body))}
        assert record.header("transfer-encoding") is None
        assert record.header("upgrade") is None


@pytest.mark.parametrize("cut", PIECES)
def test_plain_requests_one_behind_the_other_are_all_answered(
    cut: str, relay: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Strictness takes nothing from a client that does not wait for its replies."""
    key = f"Host: relay.test\r\nX-Relay-Key: {relay.key}\r\n".encode()
    body = b'{"model": "m", "input": "x"}'
    post = b"POST /v1/responses HTTP/1.1\r\n" + key + b"Content-Type: application/json\r\n"
    requests = [
        b"GET /v1/models HTTP/1.1\r\n" + key + b"\r\n",
        post + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        post + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        b"GET /v1/files HTTP/1.1\r\n" + key + b"Connection: close\r\n\r\n",
    ]
    received = exchange(relay, b"".join(requests), PIECES[cut])
    assert received.count(b"HTTP/1.1 200 OK\r\n") == len(requests), received
    paths = [record.path for record in upstream.recorder.requests]
    assert paths == ["/v1/models", "/v1/responses", "/v1/responses", "/v1/files"]


def exchange(relay: RelayProcess, data: bytes, piece_bytes: int) -> bytes:
    """Send the bytes cut into pieces, and read to the end of the connection, which must come."""
    address = urlsplit(relay.url)
    with socket.create_connection((str(address.hostname), int(address.port or 80)), TIMEOUT_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for start in range(0, len(data), piece_bytes):
                client.sendall(data[start : start + piece_bytes])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before its end
        received = b""
        try:
            while piece := client.recv(65_536):
                received += piece
        except ConnectionResetError:
            pass  # bytes that nobody reads any more come back as a reset
        return received
