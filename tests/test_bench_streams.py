"""Event streams and large files of `scripts/bench`: what is asked for, counted and refused. Opens no sockets."""

import asyncio
import io
import json
import os
import socket
from typing import Any, cast

import httptools
import pytest

from tests.bench import streams, transfers
from tests.bench.client_process import ClientFailed, ProcessTree, run_client
from tests.bench.event_reader import EventReader
from tests.bench.events import LAST_EVENT, StreamConnection, asked, event_bytes, message
from tests.bench.subjects import SSE, Started
from tests.bench.transfer_client import PIECE_BYTES, exchange
from tests.support.raw_http import chunked, raw_request

STARTED = Started("http://127.0.0.1:1", None, {"Authorization": "Bearer rk_made-up"}, {SSE: "/other"})
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 2**20


class Wire(asyncio.Transport):
    """What a server has written, without a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def abort(self) -> None:
        """Note that the server has closed."""
        self.aborted = True


class Connection:
    """
    A server that has answered.

    Args:
        taken_bytes: After which it takes no more.
    """

    def __init__(self, reply: bytes, taken_bytes: int | None = None) -> None:
        self.sent_bytes = 0
        self._reply = reply
        self._taken_bytes = taken_bytes

    def sendall(self, data: bytes) -> None:
        """Count it, or break off."""
        if self._taken_bytes is not None and self.sent_bytes + len(data) > self._taken_bytes:
            raise ConnectionResetError
        self.sent_bytes += len(data)

    def makefile(self, mode: str) -> io.BytesIO:
        """The reply, to read."""
        assert mode == "rb"
        return io.BytesIO(self._reply)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The plans that clients were given; none is run."""
    found: list[dict[str, Any]] = []

    def keep(module: str, plan: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        found.append({**plan, "module": module, "timeout_seconds": timeout_seconds})
        raise ClientFailed("not run")

    monkeypatch.setattr(streams, "run_client", keep)
    monkeypatch.setattr(transfers, "run_client", keep)
    return found


def planned(sent_bytes: int, received_bytes: int | None) -> dict[str, Any]:
    """The plan of one transfer."""
    around = {"head": "head", "tail": "tail"}
    return {"method": "GET", "sent_bytes": sent_bytes, "received_bytes": received_bytes, **around}


def stream(numbers: list[int], *, end: bytes = LAST_EVENT) -> bytes:
    """A whole reply with these events."""
    return HEAD + chunked([*(event_bytes(number, 1000 + number) for number in numbers), end])


def read(reply: bytes, size: int | None = None) -> tuple[EventReader, list[int]]:
    """Read a reply in pieces of that size, and note the stamps."""
    stamps: list[int] = []
    reader = EventReader(stamps.append)
    for start in range(0, len(reply), size or len(reply)):
        reader.feed(reply[start : start + (size or len(reply))])
    return reader, stamps


@pytest.mark.parametrize("size", [1, 7, 100, None])
def test_events_are_found_wherever_the_pieces_of_a_reply_begin(size: int | None) -> None:
    """Each event counts once, in a piece of its own, in many, or together with others."""
    reader, stamps = read(stream([4, 5, 6]), size)
    assert (reader.received, reader.disordered, reader.whole) == (3, 0, True)
    assert stamps == [1004, 1005, 1006]


def test_an_event_that_a_gateway_has_written_anew_is_found() -> None:
    """Other gateways write other white space and other fields around the content."""
    event = json.loads(event_bytes(3, 12).removeprefix(b"data: "))
    chunk = {"choices": [{"delta": event["choices"][0]["delta"] | {"role": "assistant"}}]}
    _, stamps = read(HEAD + chunked([b"data: " + json.dumps(chunk).encode() + b"\n\n"]))
    assert stamps == [12]


@pytest.mark.parametrize(
    "numbers, received, disordered",
    [([0, 1, 3], 3, 0), ([0, 2, 1, 3], 4, 1), ([0, 1, 1], 3, 1)],
    ids=["lost", "in another order", "twice"],
)
def test_what_is_lost_and_what_is_out_of_order_are_two_things(
    numbers: list[int], received: int, disordered: int
) -> None:
    """A gap lowers the sum only; an event that comes too late, or again, counts as out of order."""
    reader, _ = read(stream(numbers))
    assert (reader.received, reader.disordered) == (received, disordered)


def test_a_stream_without_its_last_event_is_over_but_not_whole() -> None:
    """A gateway that ends a stream early and properly is found out."""
    reader, _ = read(stream([0, 1], end=b": nothing more\n\n"))
    assert (reader.over, reader.whole) == (True, False)


def test_a_refusal_is_over_and_says_why() -> None:
    """What came instead of a stream stands in the message, on one line."""
    reader, _ = read(b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\n{"error":\n1}')
    assert (reader.over, reader.whole) == (True, False)
    assert reader.refusal == 'status 401, {"error": 1}'


def test_counts_begin_anew_with_each_reply_of_a_connection() -> None:
    """The second stream is judged by itself."""
    reader, stamps = read(stream([7, 8]) + stream([2]))
    assert (reader.received, reader.disordered, reader.whole, len(stamps)) == (1, 0, True, 3)


@pytest.mark.parametrize("space", ["", " "])
def test_a_message_asks_for_the_stream_it_names(space: str) -> None:
    """The upstream reads it from the request's bytes, whoever wrote the JSON."""
    body = json.dumps({"messages": [{"content": message(30, 20)}], "stream": True}, separators=(",", f":{space}"))
    assert asked(body.encode()) == (30, 20)


@pytest.mark.parametrize(
    "body", [b"", b'{"stream":true}', message(3, 20).encode(), b'"stream":true 0 events, 20 ms apart']
)
def test_a_request_for_no_stream_is_refused(body: bytes) -> None:
    """A gateway that drops what asks for a stream is found out."""
    connection, wire = StreamConnection({}), Wire()
    connection.connection_made(wire)
    connection.data_received(raw_request("POST", "/v1/chat/completions", [], body))
    assert wire.written.startswith(b"HTTP/1.1 400 ")


async def test_the_first_event_follows_the_head_at_once_and_the_last_is_followed_by_the_end() -> None:
    """The whole stream comes as asked, and a client of ours finds it whole."""
    connection, wire = StreamConnection({}), Wire()
    connection.connection_made(wire)
    body = json.dumps({"messages": [message(3, 1)], "stream": True}).encode()
    connection.data_received(raw_request("POST", "/v1/chat/completions", [], body))
    assert read(wire.written)[0].received == 1
    async with asyncio.timeout(10):
        while not connection.ended:
            await asyncio.sleep(0.001)
    reader, _ = read(wire.written)
    assert (reader.received, reader.disordered, reader.whole) == (3, 0, True)


async def test_a_client_that_leaves_gets_nothing_more() -> None:
    """Its turn goes on without it."""
    paces: dict[int, Any] = {}
    connections = []
    for _ in range(2):
        connection, wire = StreamConnection(paces), Wire()
        connection.connection_made(wire)
        body = json.dumps({"messages": [message(20, 1)], "stream": True}).encode()
        connection.data_received(raw_request("POST", "/v1/chat/completions", [], body))
        connections.append((connection, wire))
    (left, wire), (stays, _) = connections
    left.connection_lost(None)
    written = wire.written
    async with asyncio.timeout(10):
        while not stays.ended:
            await asyncio.sleep(0.001)
    assert wire.written == written


def test_bytes_that_are_no_http_end_the_connection() -> None:
    """The upstream does not go on with a client that it does not understand."""
    connection, wire = StreamConnection({}), Wire()
    connection.connection_made(wire)
    connection.data_received(b"\0\0\0\r\n\r\n")
    assert wire.aborted
    with pytest.raises(httptools.HttpParserError):
        read(b"no http\r\n\r\n")


def test_a_stream_is_asked_for_where_and_how_the_subject_wants_it(plans: list[dict[str, Any]]) -> None:
    """Its own path, its headers, and a message that the upstream understands."""
    with pytest.raises(ClientFailed):
        streams.measure_streams(STARTED, streams=3, events=40, interval_ms=10)
    (plan,) = plans
    head, _, body = plan["many"].partition("\r\n\r\n")
    assert head.startswith("POST /other HTTP/1.1\r\n")
    assert "\r\nAuthorization: Bearer rk_made-up\r\n" in head
    assert f"\r\nContent-Length: {len(body)}" in head
    assert asked(body.encode()) == (40, 10)
    assert (plan["streams"], plan["events"]) == (3, 40)
    assert plan["timeout_seconds"] > plan["limit_seconds"]


def test_an_upload_announces_what_it_sends(plans: list[dict[str, Any]]) -> None:
    """The length counts the file and the parts around it."""
    with pytest.raises(ClientFailed):
        transfers.measure_upload(STARTED, size_bytes=5000)
    plan = plans[0]["transfer"]
    head, _, start = plan["head"].partition("\r\n\r\n")
    assert f"\r\nContent-Length: {len(start) + 5000 + len(plan['tail'])}" in head
    assert start.endswith("\r\n\r\n")
    assert plan["tail"].strip().endswith("--")


@pytest.mark.parametrize(
    "reply, plan",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", planned(0, 5)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([b"hel", b"lo"]), planned(0, 5)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", planned(3 * PIECE_BYTES + 7, None)),
    ],
    ids=["down", "down in chunks", "up"],
)
def test_a_transfer_sends_and_receives_all_of_it(reply: bytes, plan: dict[str, Any]) -> None:
    """Every byte that the head announces is sent, and every one of the file is read."""
    connection = Connection(reply)
    exchange(cast("socket.socket", connection), plan)
    assert connection.sent_bytes == len("head") + plan["sent_bytes"] + len("tail")


@pytest.mark.parametrize(
    "reply, taken_bytes, reason",
    [
        (b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\ntoo\nmuch", 5, "status 413, too much"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 5, "before all of it was sent"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", None, "4 bytes came instead of 5"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!", None, "6 bytes came instead of 5"),
    ],
    ids=["refused", "answered early", "too short", "too long"],
)
def test_a_transfer_that_is_not_whole_is_none(reply: bytes, taken_bytes: int | None, reason: str) -> None:
    """It fails, with what the server said, and has no throughput."""
    with pytest.raises(ClientFailed, match=reason):
        exchange(cast("socket.socket", Connection(reply, taken_bytes)), planned(100, 5))


def test_a_client_that_fails_says_why() -> None:
    """The last line of what it printed is the reason, and it gets no figures."""
    with pytest.raises(ClientFailed, match=r"^tests\.bench\.transfer_client: KeyError"):
        run_client("tests.bench.transfer_client", {"url": "http://127.0.0.1:1"}, 60)


def test_a_client_that_hangs_is_ended() -> None:
    """A measurement ends, whatever the subject does."""
    with pytest.raises(ClientFailed, match="took more than 0 s"):
        run_client("tests.bench.transfer_client", {}, 0.01)


def test_a_process_tree_tells_what_it_uses() -> None:
    """This process, and nothing where there is none."""
    tree = ProcessTree(os.getpid())
    assert (tree.cpu_seconds() or 0) > 0
    assert (tree.rss_bytes() or 0) > MIB
    assert (ProcessTree(None).cpu_seconds(), ProcessTree(None).rss_bytes()) == (None, None)
