import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import Callable

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from handlers.runtime.connection import ClientGone
from handlers.runtime.exceptions import (
    PayloadTooLarge,
    RelayError,
    UpstreamErrorWithheld,
    UpstreamNameUnresolved,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsFailed,
    UpstreamUnreachable,
)
from handlers.runtime.upstream import MAX_ERROR_BYTES
from tests.handlers.runtime.transports import KEY, Pieces, Transport, upstream

SOMEWHERE = ConnectionKey(
    host="api.example", port=443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)


def caused(outer: Exception, inner: Exception) -> Exception:
    """An error of the transport as it wraps one of aiohttp."""
    outer.__cause__ = inner
    return outer


FAILURES = [
    (aiohttp.ClientConnectorError(SOMEWHERE, OSError(111, "refused")), UpstreamUnreachable),
    (aiohttp.ClientConnectorDNSError(SOMEWHERE, OSError(-2, "unknown")), UpstreamNameUnresolved),
    (aiohttp.ClientConnectorSSLError(SOMEWHERE, ssl.SSLError("wrong version")), UpstreamTlsFailed),
    (aiohttp.ClientConnectorCertificateError(SOMEWHERE, ssl.CertificateError("expired")), UpstreamTlsFailed),
    (aiohttp.ConnectionTimeoutError(), UpstreamTimeout),
    (aiohttp.SocketTimeoutError(), UpstreamTimeout),
    (TimeoutError(), UpstreamTimeout),
    (aiohttp.ServerDisconnectedError(), UpstreamProtocolError),
    (aiohttp.ClientPayloadError("cut"), UpstreamProtocolError),
    (aiohttp.ClientOSError(104, "reset"), UpstreamProtocolError),
    (ConnectionResetError("reset"), UpstreamProtocolError),
    (httpx.RemoteProtocolError("not HTTP"), UpstreamProtocolError),
    (httpx.LocalProtocolError("not HTTP"), UpstreamProtocolError),
]


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize(
    "error, expected", FAILURES, ids=lambda value: type(value).__name__ if isinstance(value, Exception) else ""
)
async def test_a_failed_connection_becomes_the_relays_own_error(
    transport: Transport, error: Exception, expected: type[RelayError], wrapped: bool
) -> None:
    """Unreachable, silent and broken upstreams are told apart, before the headers and in mid-body."""
    raised = caused(httpx.ReadError("wrapped"), error) if wrapped else error

    def fail() -> httpx.Response:
        raise raised

    transport.answer = fail
    with pytest.raises(expected):
        await upstream(RELAY_UPSTREAM_RETRIES=0).send("GET", "/v1/models", headers=[])
    transport.answer = lambda: httpx.Response(200, stream=Pieces(b"half", error=raised))
    reply = await upstream().send("GET", "/v1/models", headers=[])
    assert not isinstance(reply.body, bytes)
    assert await anext(reply.body) == b"half"
    with pytest.raises(expected):
        await anext(reply.body)


ECHO = f'{{"error": {{"message": "Incorrect API key provided: {KEY}."}}}}'.encode()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "coding, pieces",
    [
        (None, [ECHO]),
        (None, [ECHO[:60], ECHO[60:]]),
        ("identity", [ECHO]),
        ("gzip", [gzip.compress(ECHO)]),
        ("GZIP", [gzip.compress(ECHO)[:30], gzip.compress(ECHO)[30:]]),
        ("gzip", [gzip.compress(b"{}") + gzip.compress(ECHO)]),
        ("deflate", [zlib.compress(ECHO)]),
    ],
    ids=["plain", "in two pieces", "identity", "gzip", "gzip in two pieces", "gzip of two members", "deflate"],
)
async def test_an_error_that_repeats_our_key_is_held_back(
    transport: Transport, status: int, coding: str | None, pieces: list[bytes]
) -> None:
    """Upstream's words about our own key never reach a client, however the reply is cut or encoded."""
    stream = Pieces(*pieces)
    headers = {"content-encoding": coding} if coding else {}
    transport.answer = lambda: httpx.Response(status, headers=headers, stream=stream)
    with pytest.raises(UpstreamErrorWithheld) as caught:
        await upstream().send("GET", "/v1/models", headers=[(b"accept-encoding", b"gzip")])
    assert KEY not in caught.value.message
    assert stream.closed == 1


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x-unknown", "gzip"])
async def test_an_error_that_cannot_be_read_is_held_back(transport: Transport, coding: str) -> None:
    """What the relay cannot decode might say anything, so it does not go on."""
    transport.answer = lambda: httpx.Response(401, headers={"content-encoding": coding}, stream=Pieces(b"\x00\x01"))
    with pytest.raises(UpstreamErrorWithheld):
        await upstream().send("GET", "/v1/models", headers=[])


@pytest.mark.parametrize("status", [400, 403, 429, 500])
@pytest.mark.parametrize("coding, encode", [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_other_errors_pass_through(
    transport: Transport, status: int, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    """An error that says nothing about our key is upstream's answer, byte for byte, with its status and headers."""
    raw = encode(b'{"error": {"message": "You must be a member."}}')
    pieces = Pieces(raw[:10], raw[10:])
    headers = {"content-encoding": coding, "content-length": str(len(raw)), "retry-after": "3", "set-cookie": "a=b"}
    transport.answer = lambda: httpx.Response(status, headers=headers, stream=pieces)
    reply = await upstream().send("GET", "/v1/models", headers=[])
    assert (reply.status, reply.body) == (status, raw)
    # The length is added again when the reply is sent, as with every reply in one piece.
    assert dict(reply.headers) == {b"content-encoding": coding.encode(), b"retry-after": b"3"}
    assert pieces.closed == 1


async def test_without_a_key_of_our_own_every_error_passes(transport: Transport) -> None:
    """An upstream that needs no key cannot repeat one."""
    transport.answer = lambda: httpx.Response(401, stream=Pieces(b"no key"))
    reply = await upstream(OPENAI_API_KEY="").send("GET", "/v1/models", headers=[])
    assert reply.body == b"no key"


async def test_an_error_without_an_end_is_held_back(transport: Transport) -> None:
    """An error longer than any real one is not read further, nor passed on unseen."""
    pieces = Pieces(*[b"x" * 65_536] * (MAX_ERROR_BYTES // 65_536 + 100))
    transport.answer = lambda: httpx.Response(401, stream=pieces)
    with pytest.raises(UpstreamErrorWithheld):
        await upstream().send("GET", "/v1/models", headers=[])
    assert pieces.closed == 1


async def test_an_error_that_breaks_off_leaves_no_connection_open(transport: Transport) -> None:
    """When the error itself fails half-way, the connection is given back."""
    pieces = Pieces(b"half", error=aiohttp.ClientPayloadError("cut"))
    transport.answer = lambda: httpx.Response(401, stream=pieces)
    with pytest.raises(UpstreamProtocolError):
        await upstream().send("GET", "/v1/models", headers=[])
    assert pieces.closed == 1


async def test_an_error_in_two_codings_is_held_back(transport: Transport) -> None:
    """A coding in a second line is seen as well: behind it the key could pass."""
    headers = [("content-encoding", "identity"), ("content-encoding", "gzip")]
    hidden = gzip.compress(f"Incorrect API key provided: {KEY}".encode())
    transport.answer = lambda: httpx.Response(400, headers=headers, stream=Pieces(hidden))
    with pytest.raises(UpstreamErrorWithheld):
        await upstream().send("GET", "/v1/models", headers=[])


async def test_an_error_that_swells_when_decoded_is_held_back(transport: Transport) -> None:
    """Decoding takes no more memory than an error may have: a small reply cannot unfold into a huge one."""
    bomb = gzip.compress(b"x" * (64 * MAX_ERROR_BYTES))
    assert len(bomb) < MAX_ERROR_BYTES
    transport.answer = lambda: httpx.Response(401, headers={"content-encoding": "gzip"}, stream=Pieces(bomb))
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamErrorWithheld):
            await upstream().send("GET", "/v1/models", headers=[])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * MAX_ERROR_BYTES


@pytest.mark.parametrize("error", [PayloadTooLarge("Too much."), ClientGone()], ids=["too large", "client gone"])
async def test_what_stopped_the_clients_body_is_told_as_it_was(transport: Transport, error: Exception) -> None:
    """A body that is refused or breaks off while it is sent upstream is the client's matter, not the upstream's."""

    def fail() -> httpx.Response:
        raise caused(httpx.WriteError("wrapped"), caused(aiohttp.ClientConnectionError("wrapped"), error))

    transport.answer = fail
    with pytest.raises(type(error)):
        await upstream().send("POST", "/v1/files", headers=[], content=b"x")
