import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, quote

import aiohttp
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.runtime.exceptions import UpstreamProtocolError, UpstreamTimeout
from handlers.runtime.settings import Settings
from handlers.runtime.upstream import Upstream
from handlers.runtime.upstream_transport import UpstreamStream
from tests.handlers.runtime.transports import KEY, Pieces, Transport, upstream


async def test_a_request_goes_out_as_it_was_given(transport: Transport) -> None:
    """Method, path, query, headers and bytes reach the upstream unchanged, under its own address."""
    await upstream().send(
        "POST", "/v1/responses", query=b"include[]=a&include[]=b", headers=[(b"content-type", b"a/b")], content=b" { } "
    )
    (request,) = transport.requests
    assert (request.method, str(request.url.copy_with(query=None))) == ("POST", "https://api.example/v1/responses")
    assert parse_qsl(request.url.query.decode()) == [("include[]", "a"), ("include[]", "b")]
    assert request.headers["content-type"] == "a/b"
    assert transport.bodies == [b" { } "]


@pytest.mark.parametrize(
    "base, url",
    [
        ("https://api.example/v1", "https://api.example/v1/files"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/files"),
        ("https://gateway.example/openai/v1", "https://gateway.example/openai/v1/files"),
    ],
)
async def test_paths_are_set_under_the_base_address(transport: Transport, base: str, url: str) -> None:
    """`OPENAI_BASE_URL` stands for `/v1`, wherever the service keeps it."""
    await upstream(OPENAI_BASE_URL=base).send("GET", "/v1/files", headers=[])
    assert str(transport.requests[0].url) == url


async def test_the_upstream_sees_the_relays_credentials_and_nothing_else_of_ours(transport: Transport) -> None:
    """Key, organisation and project come from the settings; httpx adds nothing of its own but a body's length."""
    client = upstream(OPENAI_ORG_ID="org-made-up", OPENAI_PROJECT_ID="proj_made-up")
    await client.send("GET", "/v1/models", headers=[(b"accept", b"a/b")])
    await client.send("POST", "/v1/files", headers=[(b"accept", b"a/b")], content=b"12345")
    own = {"authorization": f"Bearer {KEY}", "openai-organization": "org-made-up", "openai-project": "proj_made-up"}
    assert dict(transport.requests[0].headers) == {"accept": "a/b", **own}
    assert dict(transport.requests[1].headers) == {"accept": "a/b", "content-length": "5", **own}


async def test_without_credentials_none_are_sent(transport: Transport) -> None:
    """Services that need no key get no `Authorization`, and unset names are no empty headers."""
    await Upstream(Settings.model_validate({"OPENAI_BASE_URL": "http://localhost/v1"})).send(
        "GET", "/v1/models", headers=[]
    )
    assert dict(transport.requests[0].headers) == {}


async def test_a_streamed_body_keeps_its_announced_length(transport: Transport) -> None:
    """A length that the client told goes on; without one the body is chunked; a body of no bytes is still one."""

    async def content() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    client = upstream()
    await client.send("POST", "/v1/files", headers=[(b"content-length", b"3")], content=content())
    await client.send("POST", "/v1/files", headers=[], content=content())
    told, untold = (request.headers for request in transport.requests)
    assert (told.get("content-length"), told.get("transfer-encoding")) == ("3", None)
    assert (untold.get("content-length"), untold.get("transfer-encoding")) == (None, "chunked")
    assert transport.bodies == [b"abc", b"abc"]


QUERY_BYTES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=40)


@given(query=QUERY_BYTES.filter(lambda text: not re.search(r"%(?![0-9A-Fa-f]{2})", text)))
@settings(max_examples=200, deadline=None)
def test_a_query_means_the_same_upstream(query: str) -> None:
    """Whatever a client may write into a query, the upstream reads the same names and values in the same order."""
    transport = Transport()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.runtime.upstream.Transport", lambda *_: transport)
        asyncio.run(upstream().send("GET", "/v1/files", query=query.encode(), headers=[]))
    sent = transport.requests[0].url.query.decode()
    assert parse_qsl(sent, keep_blank_values=True) == parse_qsl(query, keep_blank_values=True)


@given(value=st.text(min_size=1, max_size=20).filter(lambda text: text not in {".", ".."} and "/" not in text))
@settings(max_examples=200, deadline=None)
def test_an_encoded_path_stays_as_it_is(value: str) -> None:
    """The path that was matched is the path that is sent: the client library neither decodes nor normalises it."""
    encoded = quote(value.encode("utf-8", "surrogatepass"), safe="!$&'()*+,;=:@-._~")
    transport = Transport()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.runtime.upstream.Transport", lambda *_: transport)
        asyncio.run(upstream().send("GET", f"/v1/models/{encoded}", headers=[]))
    assert transport.requests[0].url.raw_path.decode() == f"/v1/models/{encoded}"


async def test_status_headers_and_body_come_back_unchanged(transport: Transport) -> None:
    """The reply is upstream's: its status, allowed headers in lower case, the encoded bytes, piece by piece."""
    pieces = Pieces(b"\x1f\x8b", b"raw", b"bytes")
    headers = [("Content-Type", "a/b"), ("Content-Encoding", "gzip"), ("Set-Cookie", "a=b"), ("X-Request-Id", "req_1")]
    transport.answer = lambda: httpx.Response(299, headers=headers, stream=pieces)
    reply = await upstream().send("GET", "/v1/models", headers=[])
    assert reply.status == 299
    assert reply.headers == [(b"content-type", b"a/b"), (b"content-encoding", b"gzip"), (b"x-request-id", b"req_1")]
    assert not isinstance(reply.body, bytes)
    assert [piece async for piece in reply.body] == [b"\x1f\x8b", b"raw", b"bytes"]
    assert reply.close is not None
    await reply.close()
    assert pieces.closed == 1


async def test_every_call_is_counted(transport: Transport) -> None:
    """The counter that proves refusals counts each request that goes out, also those that fail."""

    def fail() -> httpx.Response:
        raise aiohttp.ServerDisconnectedError

    client = upstream()
    await client.send("GET", "/v1/models", headers=[])
    transport.answer = fail
    with pytest.raises(UpstreamProtocolError):
        await client.send("GET", "/v1/models", headers=[])
    assert client.calls == 2


async def test_an_upstream_that_stays_silent_is_given_up(transport: Transport) -> None:
    """Without an answer to a whole request within the time that is set, the caller hears of it."""

    class Silent(Transport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.runtime.upstream.Transport", lambda *_: Silent())
        client = upstream(RELAY_IDLE_TIMEOUT_SECONDS=0.05)
    with pytest.raises(UpstreamTimeout):
        await client.send("POST", "/v1/responses", headers=[], content=b"{}")


async def test_a_stream_that_falls_silent_is_given_up(transport: Transport) -> None:
    """The same holds for every piece of an answer."""

    class Stuck(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

    transport.answer = lambda: httpx.Response(200, stream=Stuck())
    reply = await upstream(RELAY_IDLE_TIMEOUT_SECONDS=0.05).send("GET", "/v1/models", headers=[])
    assert not isinstance(reply.body, bytes)
    pieces = aiter(reply.body)
    assert await anext(pieces) == b"first"
    with pytest.raises(UpstreamTimeout):
        await anext(pieces)


async def test_a_long_body_has_its_own_time_to_go_out(transport: Transport) -> None:
    """A slow way to the upstream is no silence of the upstream; what waits behind it is the transport's to time."""

    class Slow(Transport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0.1)
            return httpx.Response(200, content=b"{}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.runtime.upstream.Transport", lambda *_: Slow())
        client = upstream(RELAY_IDLE_TIMEOUT_SECONDS=0.05)
    assert (await client.send("POST", "/v1/responses", headers=[], content=b"a" * 100_000)).status == 200
    with pytest.raises(UpstreamTimeout):
        await client.send("POST", "/v1/responses", headers=[], content=b"a")


class CameWhole(UpstreamStream):
    """A body of which all had come with the headers."""

    def __init__(self) -> None:
        self.left = [b"all of it"]

    def take_whole(self) -> bytes:
        """Take it."""
        return self.left.pop()

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()

    async def aclose(self) -> None:
        """There is nothing to close."""


async def test_an_answer_that_came_whole_is_handed_on_whole(transport: Transport) -> None:
    """One reply of known length, and its slot is free at once."""
    headers = {"content-type": "application/json", "content-length": "999"}
    transport.answer = lambda: httpx.Response(200, headers=headers, stream=CameWhole())
    client = upstream()
    reply = await client.send("POST", "/v1/responses", headers=[], content=b"{}")
    assert (reply.body, reply.headers) == (b"all of it", [(b"content-type", b"application/json")])
    assert client.slots.held == 0


async def test_an_event_stream_stays_one_however_soon_it_ended(transport: Transport) -> None:
    """Its reader was promised a stream; so was whoever sent a body that may still be on its way."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    client = upstream()
    for media_type, content in (("text/event-stream", b"{}"), ("application/json", pieces())):
        transport.answer = lambda media_type=media_type: httpx.Response(  # type: ignore[misc]
            200, headers={"content-type": media_type}, stream=CameWhole()
        )
        reply = await client.send("POST", "/v1/responses", headers=[], content=content)
        assert not isinstance(reply.body, bytes)
        assert client.slots.held == 1
        assert [piece async for piece in reply.body] == [b"all of it"]
        assert client.slots.held == 0
