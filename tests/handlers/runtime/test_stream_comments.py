import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise

import pytest

from handlers.runtime.event_streams import EventParser
from handlers.runtime.messages import Header, Reply
from handlers.runtime.stream_comments import COMMENT, StreamComments, is_event_stream

SECONDS = 0.02
PATIENCE_SECONDS = 5.0
EVENTS = {
    "line feeds": b"event: a\ndata: {1}\n\ndata: 2\n\n",
    "returns and line feeds": b"event: a\r\ndata: {1}\r\n\r\ndata: 2\r\n\r\n",
    "returns": b"event: a\rdata: {1}\r\rdata: 2\r\r",
    "mixed": b"event: a\ndata: {1}\r\n\ndata: 2\n\r\n",
}


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def reply(*headers: Header, status: int = 200) -> Reply:
    """A streamed reply."""
    return Reply(status, list(headers), _nothing())


class Client:
    """Gathers what is sent, and tells when a comment came."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.commented = asyncio.Event()
        self.sending = 0

    async def send(self, piece: bytes) -> None:
        """Take a piece; two at once are an error."""
        self.sending += 1
        assert self.sending == 1
        await asyncio.sleep(0)
        self.pieces.append(piece)
        if piece == COMMENT:
            self.commented.set()
        self.sending -= 1


async def pausing(
    client: Client, pieces: list[bytes], silent_behind: int, *, until_comment: bool
) -> AsyncIterator[bytes]:
    """Pieces, with silence behind one of them: until a comment came, or for some times as long as one takes."""
    for number, piece in enumerate(pieces):
        yield piece
        if number == silent_behind:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS if until_comment else SECONDS * 4):
                    await client.commented.wait()


@pytest.mark.parametrize("events", EVENTS.values(), ids=list(EVENTS))
async def test_a_comment_comes_between_events_only(events: bytes) -> None:
    """Wherever the stream is cut and falls silent, all events stay the same, in the same order."""
    expected = list(EventParser(1000).feed(events))
    assert [event.data for event in expected] == [b"{1}", b"2"]
    between = events.index(b"data: 2")
    for cut in range(1, len(events)):
        client = Client()
        pieces = [events[:cut], events[cut:]]
        async with asyncio.timeout(PATIENCE_SECONDS):
            paused = pausing(client, pieces, 0, until_comment=cut == between)
            await StreamComments(client.send, SECONDS).pass_on(paused)
        assert b"".join(piece for piece in client.pieces if piece != COMMENT) == events
        parser = EventParser(1000)
        assert [event for piece in client.pieces for event in parser.feed(piece)] == expected
        assert (COMMENT in client.pieces) is (cut == between), cut


async def test_the_end_of_an_event_is_known_however_it_is_cut() -> None:
    """A stream that comes byte by byte is between two events at the same places."""
    events = EVENTS["returns and line feeds"]
    client = Client()
    pieces = [events[at : at + 1] for at in range(len(events))]
    paused = pausing(client, pieces, events.index(b"data: 2") - 1, until_comment=True)
    await StreamComments(client.send, SECONDS).pass_on(paused)
    assert COMMENT in client.pieces
    assert b"".join(client.pieces).startswith(b"event: a\r\ndata: {1}\r\n\r\n" + COMMENT)


async def test_a_stream_that_does_not_pause_gets_no_comment() -> None:
    """The time counts from the last piece."""
    client = Client()

    async def steady() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"data: 1\n\n"
            await asyncio.sleep(0.001)

    await StreamComments(client.send, 60.0).pass_on(steady())
    assert client.pieces == [b"data: 1\n\n"] * 50


async def test_comments_end_with_the_stream() -> None:
    """Also when it fails or is cancelled: nothing is sent and no task is left behind."""
    before = asyncio.all_tasks()
    client = Client()

    async def failing() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await client.commented.wait()
        raise EOFError

    with pytest.raises(EOFError):
        await StreamComments(client.send, SECONDS).pass_on(failing())
    sent = len(client.pieces)

    async def endless() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SECONDS / 2):
            await StreamComments(client.send, SECONDS).pass_on(endless())
    await asyncio.sleep(SECONDS * 3)
    assert len(client.pieces) == sent
    assert asyncio.all_tasks() == before


async def test_a_long_silence_gets_one_comment_after_the_other() -> None:
    """Each is whole, and none comes beside another."""
    client = Client()

    async def silent() -> AsyncIterator[bytes]:
        while client.pieces.count(COMMENT) < 3:
            await asyncio.sleep(SECONDS / 4)
        yield b"data: 1\n\n"

    async with asyncio.timeout(PATIENCE_SECONDS):
        await StreamComments(client.send, SECONDS).pass_on(silent())
    assert all(first == COMMENT for first, _ in pairwise(client.pieces))
    assert client.pieces[-1] == b"data: 1\n\n"


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (reply((b"content-type", b"text/event-stream")), True),
        (reply((b"content-type", b"text/event-stream; charset=utf-8")), True),
        (reply((b"content-type", b"text/event-stream"), status=500), False),
        (reply((b"content-type", b"application/json")), False),
        (reply(), False),
        (reply((b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")), False),
        (reply((b"content-type", b"text/event-stream"), (b"content-length", b"9")), False),
        (Reply(200, [(b"content-type", b"text/event-stream")], b"data: 1\n\n"), False),
    ],
)
def test_comments_are_for_plain_event_streams_only(candidate: Reply, *, expected: bool) -> None:
    """Errors, other media types, compressed streams and those of a fixed length stay as they are."""
    assert is_event_stream(candidate) is expected
