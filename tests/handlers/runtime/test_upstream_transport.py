import asyncio
from typing import Any, cast

import aiohttp
import httpx
import pytest

from handlers.runtime import upstream_transport
from handlers.runtime.upstream_transport import QUICK_BODY_BYTES, Transport, UpstreamStream, new_request

URL = "https://api.example/v1/files"


class Content:
    """aiohttp's reader of a body, as far as it is used."""

    def __init__(self, *pieces: bytes, ended: bool = True, error: Exception | None = None) -> None:
        self.pieces = list(pieces)
        self.ended = ended
        self.error = error

    def is_eof(self) -> bool:
        """Whether the end has come."""
        return self.ended

    def exception(self) -> Exception | None:
        """What went wrong."""
        return self.error

    def read_nowait(self) -> bytes:
        """All that is there."""
        there = b"".join(self.pieces)
        self.pieces.clear()
        return there

    async def readany(self) -> bytes:
        """The next piece."""
        if not self.pieces and self.error is not None:
            raise self.error
        return self.pieces.pop(0) if self.pieces else b""


class Response:
    """aiohttp's response, as far as it is used."""

    status = 200
    raw_headers = ((b"Content-Type", b"application/json"),)

    def __init__(self, content: Content) -> None:
        self.content = content


class Session:
    """Keeps how it was asked, and answers or fails without a socket."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.error = error

    async def request(self, method: str, url: Any, **options: Any) -> Response:
        """Answer."""
        self.asked.append((method, str(url), options))
        if self.error is not None:
            raise self.error
        return Response(Content(b"{}"))


def stream_of(content: Content) -> UpstreamStream:
    """A body over a double of aiohttp's."""
    return UpstreamStream(cast("aiohttp.ClientResponse", Response(content)))


def transport_with(session: Session) -> Transport:
    """A transport whose connections are a test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.runtime.upstream_transport.new_session", lambda *_: session)
        return Transport(1.5, 2.5)


async def test_a_body_that_has_come_is_taken_whole() -> None:
    """All pieces that are there, once the end has come."""
    assert stream_of(Content(b"a", b"b")).take_whole() == b"ab"
    assert stream_of(Content()).take_whole() == b""


@pytest.mark.parametrize("content", [Content(b"half", ended=False), Content(b"half", error=ValueError())])
async def test_half_a_body_is_not_taken_for_a_whole_one(content: Content) -> None:
    """While something is to come, or after a failure, nothing is taken: the pieces are still there."""
    assert stream_of(content).take_whole() is None
    assert content.pieces == [b"half"]


async def test_a_body_comes_piece_by_piece() -> None:
    """Pieces keep their borders."""
    assert [piece async for piece in stream_of(Content(b"one", b"two"))] == [b"one", b"two"]


async def test_a_failure_of_aiohttp_comes_as_httpx_has_it() -> None:
    """With aiohttp's own exception as the cause, which says more."""
    failure = aiohttp.ClientPayloadError("made up")
    stream = stream_of(Content(b"half", error=failure))
    with pytest.raises(httpx.ReadError) as raised:
        _ = [piece async for piece in stream]
    assert raised.value.__cause__ is failure


async def test_a_request_that_fails_comes_as_httpx_has_it() -> None:
    """Whatever aiohttp says about it."""
    failure = aiohttp.ServerDisconnectedError()
    with pytest.raises(httpx.TransportError) as raised:
        await transport_with(Session(failure)).handle_async_request(new_request("GET", URL, [], None))
    assert raised.value.__cause__ is failure


async def test_a_request_goes_to_aiohttp_as_it_is() -> None:
    """Method, address, headers and bytes; lines of one name become one, and no redirect is followed."""
    session = Session()
    headers = [(b"content-type", b"a/b"), (b"x-stainless-lang", b"python"), (b"x-stainless-lang", b"twice")]
    response = await transport_with(session).handle_async_request(new_request("POST", f"{URL}?a=b", headers, b"12"))
    ((method, url, options),) = session.asked
    assert (method, url, options["data"], options["allow_redirects"]) == ("POST", f"{URL}?a=b", b"12", False)
    assert list(options["headers"].items()) == [
        ("content-type", "a/b"),
        ("x-stainless-lang", "python, twice"),
        ("content-length", "2"),
    ]
    assert response.headers.raw == [(b"Content-Type", b"application/json")]


@pytest.mark.parametrize("value, sent", [("grün".encode(), "grün"), ("grün".encode("latin-1"), "grün")])
async def test_header_values_beyond_ascii_are_text(value: bytes, sent: str) -> None:
    """In UTF-8 or else in Latin-1, which every byte is."""
    session = Session()
    await transport_with(session).handle_async_request(new_request("GET", URL, [(b"user-agent", value)], None))
    assert session.asked[0][2]["headers"]["user-agent"] == sent


async def test_timeouts_are_those_that_were_given() -> None:
    """Connecting has its own; waiting for an answer only where a body takes its time: aiohttp knows when it ends."""

    async def pieces() -> Any:
        yield b"a"

    session = Session()
    transport = transport_with(session)
    for content in (None, b"a" * QUICK_BODY_BYTES, b"a" * (QUICK_BODY_BYTES + 1), pieces()):
        await transport.handle_async_request(new_request("POST", URL, [], content))
    timeouts = [options["timeout"] for _, _, options in session.asked]
    assert {(timeout.connect, timeout.sock_connect, timeout.total) for timeout in timeouts} == {(1.5, 1.5, None)}
    assert [timeout.sock_read for timeout in timeouts] == [None, None, 2.5, 2.5]
    assert "transfer-encoding" not in session.asked[-1][2]["headers"]


def test_long_addresses_are_not_kept() -> None:
    """The same address is parsed once; one that is long is parsed each time, so that memory stays bounded."""
    first, second = (new_request("GET", URL, [], None).extensions["address"] for _ in range(2))
    assert first is second
    kept = upstream_transport._kept_address.cache_info().currsize
    assert new_request("GET", f"{URL}/{'a' * 600}", [], None).url.path.endswith("a" * 600)
    assert upstream_transport._kept_address.cache_info().currsize == kept


async def test_the_session_is_made_with_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the loop that uses it, which does not run yet when the relay is built."""
    made: list[asyncio.AbstractEventLoop] = []

    def new_session(*_: object) -> Session:
        made.append(asyncio.get_running_loop())
        return Session()

    monkeypatch.setattr("handlers.runtime.upstream_transport.new_session", new_session)
    transport = Transport(1.5, 2.5)
    assert made == []
    for _ in range(2):
        await transport.handle_async_request(new_request("GET", URL, [], None))
    assert made == [asyncio.get_running_loop()]
