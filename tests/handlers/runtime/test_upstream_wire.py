import asyncio
import errno

import pytest

from handlers.runtime.upstream_wire import MAX_HEAD_BYTES, Unanswered, Wire

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Line(asyncio.Transport):
    """A connection to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def close(self) -> None:
        """Note it."""
        self.ended = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.ended

    def get_extra_info(self, name: str, default: object = None) -> object:
        """It has no socket."""
        del name
        return default


@pytest.fixture
def line() -> Line:
    """What the wire stands on."""
    return Line()


@pytest.fixture
async def wire(line: Line) -> Wire:
    """A connection that has just been made."""
    made = Wire(asyncio.get_running_loop())
    made.connection_made(line)
    return made


def ask(wire: Wire) -> None:
    """Expect an answer, as aiohttp does before it sends a request."""
    wire.set_response_params(read_until_eof=True, max_line_size=65_536, max_field_size=65_536)


async def test_an_answer_comes_through(wire: Wire, line: Line) -> None:
    """One for each request, on one connection."""
    for _ in range(2):
        ask(wire)
        wire.data_received(ANSWER)
        message, payload = await wire.read()
        assert (message.code, await payload.read()) == (200, b"{}")
        assert not wire.should_close
        wire.rest()
        assert not line.ended


async def test_before_a_request_nothing_is_an_answer(wire: Wire, line: Line) -> None:
    """A banner, or a 408 on a new connection, ends it."""
    wire.data_received(ANSWER)
    assert line.ended
    assert not wire.is_connected()


@pytest.mark.parametrize("more", [ANSWER, ANSWER[:20], b"x", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_bytes_at_rest_end_the_connection(wire: Wire, line: Line, more: bytes) -> None:
    """None of them can be the answer to a request that has not been sent."""
    ask(wire)
    wire.data_received(ANSWER)
    await wire.read()
    wire.rest()
    wire.data_received(more)
    assert line.ended
    assert not wire.is_connected()


@pytest.mark.parametrize("more", [ANSWER, ANSWER[:20], b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("within", [False, True], ids=["afterwards", "from within the parser"])
async def test_bytes_behind_an_answer_end_the_connection(wire: Wire, line: Line, more: bytes, within: bool) -> None:
    """Whether it is given back when all has been read, or while aiohttp still reads the same piece."""
    ask(wire)
    if within:
        wire.data_received(ANSWER[:-2])
        _, payload = await wire.read()
        payload.on_eof(wire.rest)
        wire.data_received(ANSWER[-2:] + more)
    else:
        wire.data_received(ANSWER + more)
        await wire.read()
        wire.rest()
    assert line.ended


async def test_a_head_is_bounded(wire: Wire, line: Line) -> None:
    """However it arrives, the relay keeps no more of it."""
    ask(wire)
    wire.data_received(b"HTTP/1.1 200 OK\r\n")
    for number in range(MAX_HEAD_BYTES // 1_000):
        wire.data_received(b"X-%d: %b\r\n" % (number, b"a" * 1_000))
        if line.ended:
            break
    assert line.ended
    assert wire.exception() is not None


@pytest.mark.parametrize("how", [None, ConnectionResetError(104, "reset")], ids=["closed", "reset"])
async def test_a_connection_that_ends_without_an_answer_is_told_apart(wire: Wire, how: Exception | None) -> None:
    """Before its first byte, not after, and not while nobody waits."""
    ask(wire)
    wire.connection_lost(how)
    assert isinstance(wire.exception(), Unanswered)


async def test_an_upstream_that_stopped_reading_is_not_told_as_gone(wire: Wire) -> None:
    """The kernel's timeout keeps its own name, which becomes 504."""
    ask(wire)
    wire.connection_lost(TimeoutError(errno.ETIMEDOUT, "timed out"))
    assert getattr(wire.exception(), "errno", None) == errno.ETIMEDOUT


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", ANSWER[:-2]])
async def test_a_connection_that_ends_within_an_answer_is_told_apart(wire: Wire, begun: bytes) -> None:
    """An answer that has begun is one."""
    ask(wire)
    wire.data_received(begun)
    wire.connection_lost(None)
    assert not isinstance(wire.exception(), Unanswered)


async def test_a_connection_may_end_at_rest(wire: Wire) -> None:
    """Nobody waits, so nothing is wrong."""
    wire.connection_lost(None)
    assert not isinstance(wire.exception(), Unanswered)
