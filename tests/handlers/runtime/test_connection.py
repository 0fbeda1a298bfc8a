import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest

from handlers.runtime.connection import ClientGone, Connection, Departure, Message
from handlers.runtime.exceptions import PayloadTooLarge
from handlers.runtime.messages import Reply

REQUEST_ID = "rly_0123456789"
LEAVES: Message = {"type": "http.disconnect"}
PATIENCE_SECONDS = 2.0


def piece(body: bytes, *, more: bool) -> Message:
    """A piece of a request body, as the server hands it over."""
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """The far end of a connection: what it sends comes in order, then nothing happens any more."""

    def __init__(self, *messages: Message) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.received: list[Message] = []
        for message in messages:
            self.incoming.put_nowait(message)

    async def send(self, message: Message) -> None:
        """Take a message of the reply."""
        self.received.append(message)

    def connection(self, method: str = "POST") -> Connection:
        """The connection, owned by the task that asks for it."""
        return Connection(self.incoming.get, self.send, method, REQUEST_ID)

    def leave(self) -> None:
        """Close the connection."""
        self.incoming.put_nowait(LEAVES)

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Headers of the reply."""
        return dict(self.received[0]["headers"])

    @property
    def body(self) -> bytes:
        """Body of the reply."""
        return b"".join(message["body"] for message in self.received[1:])


async def in_time(work: Awaitable[object]) -> object:
    """What the work results in; a hang is a failure."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await work


async def stream(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    """A reply body in pieces, broken off by an error when one is given."""
    for body in pieces:
        yield body
    if error is not None:
        raise error


@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"", b"abc"], [b"a", b"b", b"c"], [b"ab", b"", b"c", b""]])
async def test_a_body_is_read_whole_however_it_is_cut(pieces: list[bytes]) -> None:
    """The body is the pieces in order, wherever the network cut it."""
    client = Client(*(piece(body, more=number < len(pieces) - 1) for number, body in enumerate(pieces)))
    connection = client.connection()
    assert await in_time(connection.read_body(3)) == b"".join(pieces)
    connection.stop_watching()


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"abc", b"d"], [b"a", b"b", b"c", b"d"], [b"abc", b"d", b""]])
async def test_a_body_over_the_limit_is_refused(pieces: list[bytes]) -> None:
    """One byte too many is refused, in one piece or in several."""
    client = Client(*(piece(body, more=number < len(pieces) - 1) for number, body in enumerate(pieces)))
    with pytest.raises(PayloadTooLarge):
        await in_time(client.connection().read_body(3))


@pytest.mark.parametrize("before", [[], [b"ab"]])
async def test_a_body_over_the_limit_is_refused_before_its_end(before: list[bytes]) -> None:
    """As soon as the limit is passed the body is refused: the relay does not wait for what the client sends next."""
    client = Client(*(piece(body, more=True) for body in [*before, b"abcd"]))
    with pytest.raises(PayloadTooLarge):
        await in_time(client.connection().read_body(3))


async def test_a_streamed_body_comes_as_it_arrives() -> None:
    """Each piece is handed on before the next one is there, and empty ones not at all."""
    client = Client(piece(b"first", more=True))
    connection = client.connection()
    body = connection.stream_body(100)
    assert await in_time(anext(body)) == b"first"
    client.incoming.put_nowait(piece(b"", more=True))
    client.incoming.put_nowait(piece(b"last", more=False))
    assert await in_time(anext(body)) == b"last"
    with pytest.raises(StopAsyncIteration):
        await in_time(anext(body))
    connection.stop_watching()


async def test_a_streamed_body_over_the_limit_breaks_off() -> None:
    """What fits is handed on; the piece that does not is refused."""
    client = Client(piece(b"abc", more=True), piece(b"d", more=True))
    body = client.connection().stream_body(3)
    assert await in_time(anext(body)) == b"abc"
    with pytest.raises(PayloadTooLarge):
        await in_time(anext(body))


@pytest.mark.parametrize("arrived", [[], [b"half"]])
async def test_a_client_that_leaves_while_sending_ends_the_work(arrived: list[bytes]) -> None:
    """Leaving before the body is complete ends reading, and whatever else the task might do after it."""
    client = Client(*(piece(body, more=True) for body in arrived), LEAVES)
    caught: list[Connection] = []

    async def work() -> None:
        connection = client.connection()
        caught.append(connection)
        with pytest.raises(ClientGone):
            await connection.read_body(100)
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert caught[0].gone


@pytest.mark.parametrize("cut", [False, True])
async def test_a_client_that_leaves_while_it_waits_cancels_the_work(cut: bool) -> None:
    """From the end of the body on, leaving cancels the task that works for the client, at whatever it waits."""
    pieces = [piece(b"a", more=True), piece(b"b", more=False)] if cut else [piece(b"ab", more=False)]
    client = Client(*pieces)
    reading: asyncio.Event = asyncio.Event()
    connections: list[Connection] = []

    async def work() -> None:
        connection = client.connection()
        connections.append(connection)
        assert await connection.read_body(100) == b"ab"
        reading.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await in_time(reading.wait())
    assert not connections[0].gone
    client.leave()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert connections[0].gone


async def test_a_client_that_leaves_in_mid_reply_cancels_the_work() -> None:
    """Leaving while a stream is sent cancels it, so the upstream call does not go on for nobody."""
    client = Client()
    sent = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"
        sent.set()
        await asyncio.Event().wait()

    async def work() -> None:
        connection = client.connection("GET")
        connection.watch()
        await connection.send(Reply(200, [], endless()))

    task = asyncio.create_task(work())
    await in_time(sent.wait())
    client.leave()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert client.received[-1] == {"type": "http.response.body", "body": b"first", "more_body": True}


async def test_leaving_after_the_reply_has_no_consequence() -> None:
    """Servers report a disconnect after every complete reply; that is not a client that left."""
    client = Client(piece(b"", more=False))
    connection = client.connection()
    await connection.read_body(100)
    await connection.send(Reply.json({}))
    client.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connection.gone
    connection.stop_watching()


async def test_after_the_end_nobody_is_watched() -> None:
    """When the request is over, the connection's next message is left for the server."""
    client = Client()
    connection = client.connection()
    connection.watch()
    connection.watch()
    await asyncio.sleep(0)
    connection.stop_watching()
    await asyncio.sleep(0)
    client.leave()
    await asyncio.sleep(0)
    assert not connection.gone
    assert client.incoming.qsize() == 1


async def test_a_whole_reply_says_its_length_and_its_request() -> None:
    """Status, headers, length and both ids go out, then the body in one piece."""
    client = Client()
    connection = client.connection()
    await connection.send(Reply(418, [(b"content-type", b"text/plain")], b"short and stout"))
    start, body = client.received
    assert (start["type"], start["status"]) == ("http.response.start", 418)
    assert client.headers == {
        b"content-type": b"text/plain",
        b"content-length": b"15",
        b"cache-control": b"no-store",
        b"x-content-type-options": b"nosniff",
        b"x-relay-request-id": REQUEST_ID.encode(),
        b"x-request-id": REQUEST_ID.encode(),
    }
    assert body == {"type": "http.response.body", "body": b"short and stout"}
    assert (connection.status, connection.bytes_out, connection.reply_started) == (418, 15, True)


async def test_upstreams_request_id_is_kept() -> None:
    """A reply that carries the upstream's id keeps it once, beside the relay's own."""
    client = Client()
    await client.connection().send(Reply(200, [(b"x-request-id", b"req_upstream")]))
    names = [name for name, _ in client.received[0]["headers"]]
    assert names.count(b"x-request-id") == 1
    assert client.headers[b"x-request-id"] == b"req_upstream"
    assert client.headers[b"x-relay-request-id"] == REQUEST_ID.encode()


@pytest.mark.parametrize("status", [200, 404])
async def test_what_says_nothing_about_caching_is_not_kept(status: int) -> None:
    """No cache keeps for one key what another was answered, nobody guesses a type; a reply that says otherwise may."""
    usual = Client()
    await usual.connection().send(Reply(status, []))
    assert usual.headers[b"cache-control"] == b"no-store"
    assert usual.headers[b"x-content-type-options"] == b"nosniff"
    other = Client()
    await other.connection().send(Reply(status, [(b"cache-control", b"max-age=60"), (b"x-content-type-options", b"x")]))
    said = [
        value for name, value in other.received[0]["headers"] if name in {b"cache-control", b"x-content-type-options"}
    ]
    assert said == [b"max-age=60", b"x"]


async def test_headers_of_the_operation_go_with_every_reply() -> None:
    """What is set on the connection, such as `Sunset`, stands in the reply, whoever answers."""
    client = Client()
    connection = client.connection()
    connection.extra_headers = [(b"sunset", b"Mon, 30 Nov 2026 00:00:00 GMT")]
    reply = Reply.json({})
    await connection.send(reply)
    assert client.headers[b"sunset"] == b"Mon, 30 Nov 2026 00:00:00 GMT"
    assert reply.headers == [(b"content-type", b"application/json")]


@pytest.mark.parametrize("status", [204, 304])
async def test_a_reply_that_has_no_body_says_no_length(status: int) -> None:
    """A status that forbids a body carries no length either."""
    client = Client()
    await client.connection().send(Reply(status, []))
    assert b"content-length" not in client.headers
    assert client.body == b""


async def test_a_streamed_reply_goes_out_piece_by_piece() -> None:
    """Pieces keep their borders, the end is marked, and no length is invented."""
    client = Client()
    connection = client.connection()
    await connection.send(Reply(200, [], stream(b"one", b"two")))
    assert [(m["body"], m.get("more_body", False)) for m in client.received[1:]] == [
        (b"one", True),
        (b"two", True),
        (b"", False),
    ]
    assert b"content-length" not in client.headers
    assert connection.bytes_out == 6


async def test_a_stream_that_fails_is_not_ended_as_if_it_were_whole() -> None:
    """After a failure in mid-body no end is sent, so half an answer cannot pass for a whole one."""
    client = Client()
    with pytest.raises(ValueError, match="broke"):
        await client.connection().send(Reply(200, [], stream(b"half", error=ValueError("broke"))))
    assert client.received[-1] == {"type": "http.response.body", "body": b"half", "more_body": True}


@pytest.mark.parametrize("streamed", [False, True])
async def test_head_gets_the_headers_of_get_and_no_body(streamed: bool) -> None:
    """`HEAD` is answered with the same headers, a length among them when there is one, and nothing after them."""
    client = Client()
    reply = Reply(200, [(b"content-length", b"4")], stream(b"body")) if streamed else Reply(200, [], b"body")
    await client.connection("HEAD").send(reply)
    assert client.headers[b"content-length"] == b"4"
    assert client.body == b""
    assert client.received[-1] == {"type": "http.response.body", "body": b""}


class Watched:
    """Work for a client whose server tells when it leaves."""

    def __init__(self) -> None:
        self.read_on = 0
        self.departure = Departure(self.count)
        self.cancelled = 0

    def count(self) -> None:
        """Count how often the server was asked to read on."""
        self.read_on += 1

    async def wait(self, *, ready: asyncio.Event) -> None:
        """Watch and wait; clean up for a while when cancelled."""
        connection = Connection(asyncio.Queue[Message]().get, _ignore, "GET", REQUEST_ID, departure=self.departure)
        connection.watch()
        ready.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0.01)
            raise
        finally:
            connection.stop_watching()


async def _ignore(_message: Message) -> None:
    """Take a message of the reply."""


@pytest.mark.parametrize("first", [False, True], ids=["leaves while it waits", "has left before"])
async def test_a_server_that_knows_tells_at_once_and_once(first: bool) -> None:
    """The work is cancelled, whoever left first, and a second word about it does not disturb what cleans up."""
    work = Watched()
    ready = asyncio.Event()
    if first:
        work.departure.leave()
    task = asyncio.create_task(work.wait(ready=ready))
    await in_time(ready.wait())
    work.departure.leave()
    await asyncio.sleep(0)
    work.departure.leave()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert work.cancelled == 1
    assert work.read_on == (0 if first else 1)


async def test_a_departure_after_the_work_tells_nobody() -> None:
    """Connections outlast requests: what is over is not cancelled."""
    departure = Departure(lambda: None)
    connection = Connection(asyncio.Queue[Message]().get, _ignore, "GET", REQUEST_ID, departure=departure)
    connection.watch()
    assert departure.expected
    connection.stop_watching()
    assert not departure.expected
    departure.leave()
    await asyncio.sleep(0)
    assert not connection.gone
