from collections.abc import AsyncIterator

import pytest

from handlers.runtime.event_streams import Event, EventParser, read_events
from handlers.runtime.exceptions import UpstreamProtocolError

STREAM = (
    "\ufeffevent: a\ndata: eins\ndata: zwei ☕\n\n: a comment\ndata:{}\n\n"
    "data\n\nevent: b\nid: 7\nretry: 1\n\ndata:  x\n\n"
)
EVENTS = [Event("a", "eins\nzwei ☕".encode()), Event("message", b"{}"), Event("message", b""), Event("message", b" x")]


def events_of(*pieces: bytes, max_event_bytes: int = 1_000) -> list[Event]:
    """The events that a parser finds in pieces."""
    parser = EventParser(max_event_bytes)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1_000])
def test_events_are_the_same_however_lines_end_and_pieces_are_cut(line_end: str, size: int) -> None:
    """Byte order mark, comments, other fields, several lines of data, a missing value: all as the source says."""
    data = STREAM.replace("\n", line_end).encode()
    assert events_of(*(data[start : start + size] for start in range(0, len(data), size))) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM.encode()) + 1))
def test_a_stream_may_be_cut_anywhere(cut: int) -> None:
    """Two pieces and an empty one between them give the same events as the whole."""
    data = STREAM.replace("\n", "\r\n").encode()
    assert events_of(data[:cut], b"", data[cut:]) == EVENTS


def test_line_ends_may_be_mixed() -> None:
    """Each line ends by itself, and CR before LF is one end, not two."""
    assert events_of(b"data: a\rdata: b\ndata: c\r\n\r", b"\ndata: d\n\r") == [
        Event("message", b"a\nb\nc"),
        Event("message", b"d"),
    ]


def test_only_the_first_mark_is_one() -> None:
    """A byte order mark later in the stream belongs to its line, which then is no field that counts."""
    assert events_of(b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\ndata: c\n\n") == [
        Event("message", b"a"),
        Event("message", b"c"),
    ]


def test_an_event_without_its_empty_line_is_none() -> None:
    """What a broken stream leaves unfinished is not handed out."""
    assert events_of(b"data: a\n\ndata: b\n") == [Event("message", b"a")]


@pytest.mark.parametrize(
    "garbage", [b"<html>\n\n", b"\x00\xff\xfe\n\n", b"{}\n\n", b"\n\r\n\r", b":\n\n", b"event: x\n\n"]
)
def test_garbage_is_no_event(garbage: bytes) -> None:
    """Lines that are no fields disappear, and the next event is whole."""
    assert events_of(garbage, b"data: a\n\n") == [Event("message", b"a")]


def test_names_that_are_no_text_do_no_harm() -> None:
    """A name in another encoding is replaced, its data comes as it is."""
    assert events_of(b"event: \xff\ndata: \xff\n\n") == [Event("\ufffd", b"\xff")]


@pytest.mark.parametrize(
    "pieces",
    [[b"data: " + b"x" * 100], [b"x" * 60, b"x" * 60], [b"data: " + b"x" * 40 + b"\n"] * 3, [b"data\n" * 101]],
    ids=["line", "line in pieces", "lines", "empty lines of data"],
)
def test_what_is_too_long_ends_the_stream(pieces: list[bytes]) -> None:
    """An event that does not end cannot fill the memory."""
    with pytest.raises(UpstreamProtocolError, match="too long"):
        events_of(*pieces, max_event_bytes=100)


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_an_event_may_be_as_long_as_the_limit(size: int) -> None:
    """However it comes in pieces, nothing is counted twice."""
    data = b"data: " + b"x" * 90 + b"\n\n"
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert events_of(*pieces, max_event_bytes=96) == [Event("message", b"x" * 90)]


def test_many_events_may_be_longer_than_one() -> None:
    """The limit holds for each event, not for the stream."""
    assert len(events_of(*[b"data: " + b"x" * 60 + b"\n\n"] * 10, max_event_bytes=100)) == 10


async def test_a_stream_is_read_to_its_end() -> None:
    """Events come while pieces do."""
    taken: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            taken.append(number)
            yield b"data: %d\n\n" % number

    seen = [(event.data, len(taken)) async for event in read_events(pieces(), max_event_bytes=100)]
    assert seen == [(b"0", 1), (b"1", 2), (b"2", 3)]
