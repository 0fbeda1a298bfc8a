"""Clients that are too slow, too large or too many: each is answered or cut within its limit, and nothing is left."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from codegen.contract import Scope
from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.raw_http import RawConnection, raw_request
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import RelayProcess, ServerThread, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

HEADER_SECONDS = 1.5
BODY_SECONDS = 1.5
SEND_SECONDS = 1.5
ENOUGH_SECONDS = 8.0  # a cut that has not come by then is missing
LINE_BYTES = 1_000
HEADER_BYTES = 4_000
HEADERS = 20
REQUESTS = 4
REQUESTS_PER_KEY = 2
CONNECTIONS = 12
RESPONSE = {"model": "m", "input": "x"}
BODY = json.dumps(RESPONSE).encode()


@dataclass(frozen=True)
class Narrow:
    """A relay with small limits, and two keys for it."""

    process: RelayProcess
    keys: tuple[MadeKey, MadeKey]

    @property
    def url(self) -> str:
        """Without `/v1`."""
        return self.process.url


@pytest.fixture(scope="module")
def narrow_relay(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Narrow]:
    """The limits above."""
    folder: Path = tmp_path_factory.mktemp("narrow")
    keys = (make_key("one", Scope.CANONICAL), make_key("other", Scope.CANONICAL))
    write_keys(folder / "keys.yaml", [*keys])
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_HEADER_TIMEOUT_SECONDS": str(HEADER_SECONDS),
        "RELAY_BODY_IDLE_TIMEOUT_SECONDS": str(BODY_SECONDS),
        "RELAY_SEND_IDLE_TIMEOUT_SECONDS": str(SEND_SECONDS),
        "RELAY_MAX_REQUEST_LINE_BYTES": str(LINE_BYTES),
        "RELAY_MAX_HEADER_BYTES": str(HEADER_BYTES),
        "RELAY_MAX_HEADERS": str(HEADERS),
        "RELAY_MAX_CONCURRENT_REQUESTS": str(REQUESTS),
        "RELAY_MAX_CONCURRENT_REQUESTS_PER_KEY": str(REQUESTS_PER_KEY),
        "RELAY_MAX_CONNECTIONS": str(CONNECTIONS),
    }
    with running_relay(folder, upstream_server.url, environment) as process:
        yield Narrow(process, keys)


@pytest.fixture
def narrow(narrow_relay: Narrow, upstream: SimulatedUpstream) -> Iterator[Narrow]:
    """The same, with a fresh recorder behind it and no connection open."""
    del upstream
    wait_until(lambda: clients_of(narrow_relay) == 0)
    yield narrow_relay
    wait_until(lambda: clients_of(narrow_relay) == 0)


def clients_of(narrow: Narrow) -> int:
    """How many connections of clients the relay holds."""
    port = urlsplit(narrow.url).port
    connections = psutil.Process(narrow.process.pid).net_connections(kind="tcp")
    return sum(c.laddr.port == port and bool(c.raddr) for c in connections)


def seconds_until_end(connection: RawConnection) -> float:
    """How long it takes until the relay ends the connection, whatever it says before."""
    began = time.monotonic()
    while connection.read_until(b"\n"):
        pass
    return time.monotonic() - began


class TestHeads:
    """Request lines and headers that are too large or do not come."""

    @pytest.mark.parametrize("target", ["/v1/models?" + "x" * LINE_BYTES, "/" + "x" * 10 * LINE_BYTES])
    def test_a_long_request_line_is_refused(self, target: str, narrow: Narrow, upstream: SimulatedUpstream) -> None:
        """414 and the end of the connection, before any of it is matched."""
        with RawConnection(narrow.url) as connection:
            reply = connection.exchange("GET", target, narrow.keys[0].headers.items())
            assert_relay_error(reply, exc.UriTooLong)
            assert reply.header("connection") == "close"
            seconds_until_end(connection)
        assert upstream.recorder.count == 0

    def test_the_longest_request_line_passes(self, narrow: Narrow) -> None:
        """The limit itself is allowed; one byte more is not."""
        path = "/v1/models?x="
        longest = path + "x" * (LINE_BYTES - len(f"GET {path} HTTP/1.1\r\n"))
        for target, status in ((longest, 200), (longest + "x", 414)):
            with RawConnection(narrow.url) as connection:
                assert connection.exchange("GET", target, narrow.keys[0].headers.items()).status == status

    @pytest.mark.parametrize(
        "headers",
        [
            [("X-Long", "x" * HEADER_BYTES)],
            [(f"X-{number}", "x" * (HEADER_BYTES // 10)) for number in range(10)],
            [(f"X-{number}", "") for number in range(HEADERS)],
            [("X-Endless", "x" * 40 * HEADER_BYTES)],
        ],
        ids=["one", "together", "many", "endless"],
    )
    def test_large_headers_are_refused(
        self, headers: list[tuple[str, str]], narrow: Narrow, upstream: SimulatedUpstream
    ) -> None:
        """431 and the end of the connection: one long header, many that are long together, and too many."""
        with RawConnection(narrow.url) as connection:
            reply = connection.exchange("GET", "/v1/models", [*narrow.keys[0].headers.items(), *headers])
            assert_relay_error(reply, exc.HeadersTooLarge)
            assert reply.header("connection") == "close"
        assert upstream.recorder.count == 0

    def test_large_trailers_are_refused(self, narrow: Narrow, upstream: SimulatedUpstream) -> None:
        """Headers behind a body count on their own."""
        lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1_000) for number in range(5))
        headers = {**narrow.keys[0].headers, "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        with RawConnection(narrow.url) as connection:
            connection.send(raw_request("POST", "/v1/responses", headers.items()))
            connection.send(b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY) + lines + b"\r\n")
            assert_relay_error(connection.reply("POST"), exc.HeadersTooLarge)
        assert upstream.recorder.count == 0

    @pytest.mark.parametrize("begun", [b"G", b"\r\n", b"GET /v1/models HTTP/1.1\r\nHost: relay.test\r\nX: "])
    def test_headers_that_do_not_come_are_not_waited_for(self, begun: bytes, narrow: Narrow) -> None:
        """408 and the end of the connection, however slowly single bytes go on to come."""
        began = time.monotonic()
        with RawConnection(narrow.url) as connection, ThreadPoolExecutor() as beside:
            connection.send(begun)
            reply = beside.submit(connection.reply)
            while not reply.done():
                connection.send(b"\r" if begun == b"\r\n" else b"x")
                time.sleep(0.1)
                if begun == b"\r\n":
                    connection.send(b"\n")
            if begun != b"G":  # which is no method with an x behind it
                assert_relay_error(reply.result(), exc.RequestTimeout)
            assert reply.result().header("connection") == "close"
            assert time.monotonic() - began < ENOUGH_SECONDS

    def test_a_connection_without_a_request_is_closed(self, narrow: Narrow) -> None:
        """Who never asks for anything is told nothing."""
        with RawConnection(narrow.url) as connection:
            assert connection.read_until(b"\n") == b""

    def test_an_idle_connection_stays(self, narrow: Narrow) -> None:
        """Between two requests the time for headers does not run."""
        with RawConnection(narrow.url) as connection:
            assert connection.exchange("GET", "/livez").status == 200
            time.sleep(HEADER_SECONDS * 2)
            assert connection.exchange("GET", "/livez").status == 200


class TestBodies:
    """Bodies that do not come."""

    @pytest.mark.parametrize("drops", [0, 1], ids=["silent", "dripping"])
    @pytest.mark.parametrize("path", ["/v1/responses", "/v1/files"])
    def test_a_body_that_does_not_come_is_not_waited_for(
        self, path: str, drops: int, narrow: Narrow, upstream: SimulatedUpstream
    ) -> None:
        """408 and the end of the connection; an upload that has begun upstream is ended there."""
        media_type = "application/json" if path == "/v1/responses" else "multipart/form-data; boundary=b"
        headers = {**narrow.keys[0].headers, "Content-Type": media_type, "Content-Length": "50000"}
        with RawConnection(narrow.url) as connection, ThreadPoolExecutor() as beside:
            connection.send(raw_request("POST", path, headers.items()) + b"--b\r\n")
            reply = beside.submit(connection.reply, "POST")
            deadline = time.monotonic() + ENOUGH_SECONDS
            while not reply.done():
                assert time.monotonic() < deadline
                connection.send(b"x" * drops)
                time.sleep(0.1)
            assert_relay_error(reply.result(), exc.RequestTimeout)
            assert reply.result().header("connection") == "close"
        assert upstream.recorder.count == (path == "/v1/files")
        wait_until(lambda: all(record.disconnected_at for record in upstream.recorder.requests))

    def test_a_slow_body_that_goes_on_is_taken(self, narrow: Narrow) -> None:
        """What counts is how much comes within the time, not when all of it has come."""
        body = BODY[:-1] + b" " * 20_000 + b"}"
        headers = {**narrow.keys[0].headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        with RawConnection(narrow.url) as connection:
            connection.send_head("POST", "/v1/responses", headers.items())
            pieces = 10
            for number in range(pieces):
                time.sleep(BODY_SECONDS * 3 / pieces)
                connection.send(body[number * len(body) // pieces : (number + 1) * len(body) // pieces])
            assert connection.reply("POST").status == 200

    def test_a_body_behind_a_refusal_is_not_waited_for(self, narrow: Narrow) -> None:
        """The reply has gone out; the connection is closed when nothing more comes."""
        headers = {"Content-Type": "application/json", "Content-Length": "50000"}
        with RawConnection(narrow.url) as connection:
            connection.send_head("POST", "/v1/responses", headers.items())
            assert connection.reply("POST").status == 401
            assert seconds_until_end(connection) < ENOUGH_SECONDS


class TestReplies:
    """Replies that nobody takes."""

    @pytest.mark.parametrize("path", [f"/v1/files/file-size-{2**28}/content", "/openapi.json"])
    def test_a_reply_that_is_not_taken_is_given_up(
        self, path: str, narrow: Narrow, upstream: SimulatedUpstream
    ) -> None:
        """The connection is broken, and the upstream's part of the work ends with it."""
        address = urlsplit(narrow.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(ENOUGH_SECONDS)
            client.connect((address.hostname, address.port))
            client.sendall(raw_request("GET", path, narrow.keys[0].headers.items()) * (1 if "files" in path else 60))
            wait_until(lambda: clients_of(narrow) == 1)
            deadline = time.monotonic() + ENOUGH_SECONDS
            while clients_of(narrow):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        wait_until(lambda: all(record.disconnected_at for record in upstream.recorder.requests))
        assert narrow.process.printed().count('"reply_not_taken"') >= 1

    def test_a_slow_reader_gets_everything(self, narrow: Narrow) -> None:
        """Whoever takes a little all the time gets the whole, though it takes longer than the limit."""
        size = 3 * 2**23
        url = f"{narrow.url}/v1/files/file-size-{size}/content"
        received = 0
        with httpx.stream("GET", url, headers=narrow.keys[0].headers, timeout=ENOUGH_SECONDS) as reply:
            for number, piece in enumerate(reply.iter_raw(2**20)):
                received += len(piece)
                if number % 8 == 0:
                    time.sleep(SEND_SECONDS * 0.6)
        assert received == size


class TestNumbers:
    """Too many requests at once."""

    def test_requests_beyond_the_limit_are_refused_at_once(self, narrow: Narrow, upstream: SimulatedUpstream) -> None:
        """503 with `Retry-After`, not even authenticated; probes are answered; room comes back with the first end."""
        upstream.faults.add(Fault("createResponse", silent=True))
        with ExitStack() as running, httpx.Client(base_url=narrow.url, timeout=ENOUGH_SECONDS) as anybody:
            for key in (*narrow.keys, *narrow.keys):
                running.enter_context(hold(narrow, key))
            wait_until(lambda: upstream.recorder.count == REQUESTS)
            for reply in (anybody.get("/v1/models"), anybody.get("/v1/models", headers=narrow.keys[0].headers)):
                assert_relay_error(reply, exc.Overloaded)
                assert int(reply.headers["retry-after"]) > 0
            assert anybody.get("/livez").status_code == 200
            assert anybody.get("/readyz").status_code == 200
            assert anybody.get("/v1/nothing").status_code == 404
            assert upstream.recorder.count == REQUESTS
            running.close()
            wait_until(lambda: anybody.get("/v1/models", headers=narrow.keys[0].headers).status_code == 200)

    def test_one_key_does_not_take_all(self, narrow: Narrow, upstream: SimulatedUpstream) -> None:
        """429 for the key that has as many as it may, while another is served; refusals do not count."""
        upstream.faults.add(Fault("createResponse", silent=True))
        one, other = narrow.keys
        with ExitStack() as running, httpx.Client(base_url=narrow.url, timeout=ENOUGH_SECONDS) as client:
            for _ in range(REQUESTS_PER_KEY):
                running.enter_context(hold(narrow, one))
            wait_until(lambda: upstream.recorder.count == REQUESTS_PER_KEY)
            for _ in range(3):
                reply = client.get("/v1/models", headers=one.headers)
                assert_relay_error(reply, exc.KeyConcurrencyExceeded)
                assert int(reply.headers["retry-after"]) > 0
                assert client.get("/v1/models", headers=other.headers).status_code == 200
            running.close()
            wait_until(lambda: client.get("/v1/models", headers=one.headers).status_code == 200)

    def test_whatever_ends_a_request_makes_room(self, narrow: Narrow, upstream: SimulatedUpstream) -> None:
        """Replies, refusals, defects of the upstream and clients that leave are all counted out again."""
        key = narrow.keys[0]
        with httpx.Client(base_url=narrow.url, timeout=ENOUGH_SECONDS, headers=key.headers) as client:
            for _ in range(REQUESTS * 3):
                assert client.get("/v1/models").status_code == 200
                assert client.post("/v1/responses", json={"model": 5}).status_code == 400
                assert client.get("/v1/files?limit=x").status_code == 400
                upstream.faults.add(Fault("listModels", cut_after_bytes=0))
                with pytest.raises(httpx.RemoteProtocolError):
                    client.get("/v1/models")
                upstream.faults.clear()
                upstream.faults.add(Fault("createResponse", silent=True))
                upstream.recorder.clear()
                with hold(narrow, key):
                    wait_until(lambda: upstream.recorder.count == 1)
                wait_until(lambda: upstream.recorder.requests[0].disconnected_at)
                upstream.faults.clear()
            assert client.get("/v1/models").status_code == 200

    def test_a_tool_call_counts_once(
        self, upstream: SimulatedUpstream, upstream_server: ServerThread, tmp_path: Path
    ) -> None:
        """The call inside the relay belongs to the request that brought it: one place is enough for both."""
        one = {"RELAY_MAX_CONCURRENT_REQUESTS": "1", "RELAY_MAX_CONCURRENT_REQUESTS_PER_KEY": "1"}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "listModels", "arguments": {}}}
        with running_relay(tmp_path, upstream_server.url, one) as relay:
            headers = {**relay.headers, "Accept": "application/json, text/event-stream"}
            for number in range(1, 4):
                reply = httpx.post(f"{relay.url}/mcp", headers=headers, json=call, timeout=ENOUGH_SECONDS)
                assert "gpt-6-luna" in reply.text or "model" in reply.text
                assert "key_concurrency_exceeded" not in reply.text
                assert upstream.recorder.count == number

    def test_connections_beyond_the_limit_are_told_so(self, narrow: Narrow) -> None:
        """503 and the end of the connection; probes are answered there too, and no connection of before suffers."""
        with ExitStack() as open_ones, httpx.Client(base_url=narrow.url, timeout=ENOUGH_SECONDS) as client:
            idle = [open_ones.enter_context(RawConnection(narrow.url)) for _ in range(CONNECTIONS)]
            for connection in idle:
                assert connection.exchange("GET", "/livez").status == 200
            reply = client.get("/v1/models", headers=narrow.keys[0].headers)
            assert_relay_error(reply, exc.Overloaded)
            assert reply.headers["connection"] == "close"
            probe = client.get("/livez")
            assert (probe.status_code, probe.headers["connection"]) == (HTTPStatus.OK, "close")
            for connection in idle:
                assert connection.exchange("GET", "/v1/models", narrow.keys[0].headers.items()).status == 200
            open_ones.close()
            wait_until(lambda: client.get("/v1/models", headers=narrow.keys[0].headers).status_code == 200)


def hold(narrow: Narrow, key: MadeKey) -> RawConnection:
    """Ask for something that the upstream does not answer, and stay."""
    connection = RawConnection(narrow.url)
    headers = {**key.headers, "Content-Type": "application/json"}
    connection.send(raw_request("POST", "/v1/responses", headers.items(), BODY))
    return connection


@pytest.fixture
def short_server() -> Iterator[ServerThread]:
    """A server that answers every request at once, unread, and keeps connections for a second."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        for name in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{name}.complete"})

    server = ServerThread(app)
    server._server.config.timeout_keep_alive = 1
    with server:
        yield server


def test_a_connection_that_waits_is_kept_and_one_that_waits_too_long_is_closed(short_server: ServerThread) -> None:
    """A kept connection takes the next request for a while; then it ends without a word, as HTTP has it."""
    with RawConnection(short_server.url) as connection:
        for _ in range(2):
            assert connection.exchange("GET", "/").status == HTTPStatus.NO_CONTENT
            time.sleep(0.3)
        assert connection.exchange("GET", "/").status == HTTPStatus.NO_CONTENT
        began = time.monotonic()
        assert connection.read_until(b"\n") == b""
        assert time.monotonic() - began < ENOUGH_SECONDS


def test_the_wait_begins_when_the_body_has_come(short_server: ServerThread) -> None:
    """An answer may come before the end of a long body; the connection is not idle until then."""
    with RawConnection(short_server.url) as connection:
        connection.send_head("POST", "/", [("Content-Length", "4")])
        assert connection.reply("POST").status == HTTPStatus.NO_CONTENT
        for piece in (b"b", b"o", b"d", b"y"):
            time.sleep(0.6)
            connection.send(piece)
        time.sleep(0.3)
        assert connection.exchange("GET", "/").status == HTTPStatus.NO_CONTENT
