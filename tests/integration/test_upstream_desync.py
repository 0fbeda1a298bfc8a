"""Answers of the upstream that two readers could cut apart differently, and bytes that nobody asked for."""

from collections.abc import Iterator

import httpx
import pytest

from handlers.runtime import exceptions as exc
from tests.support.raw_http import RawConnection, RawReply
from tests.support.raw_upstream import OWN_ANSWER, RawUpstream
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import RelayProcess, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

BODY = b'{"model": "m", "input": "x"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SIZED = HEAD + b"Content-Length: 2\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
STRANGER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{"answer": "bad"}'


@pytest.fixture(scope="module")
def raw() -> Iterator[RawUpstream]:
    """The upstream."""
    with RawUpstream() as raw:
        yield raw


@pytest.fixture(scope="module")
def strict(raw: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay before it that repeats nothing and never leaves it alone."""
    environment = {
        "RELAY_UPSTREAM_RETRIES": "0",
        "RELAY_BREAKER_FAILURES": "0",
        "RELAY_IDLE_TIMEOUT_SECONDS": "2",
    }
    with running_relay(tmp_path_factory.mktemp("desync"), raw.url, environment) as process:
        yield process


HEADS = {
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "one length twice": SIZED + b"Content-Length: 2\r\n\r\n{}",
    "a list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length with a sign": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "a hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "an empty length": HEAD + b"Content-Length:\r\n\r\n{}",
    "a length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "a space behind the name of the length": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "a tab behind it": HEAD + b"Content-Length\t: 2\r\n\r\n{}",
    "length, then coding": SIZED + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "coding, then length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n" + CHUNKS,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunked twice in a list": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "chunked, not at last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "another coding below": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "another coding alone": HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "nearly chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked behind a control character": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + CHUNKS,
    "a space behind the name of the coding": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "a folded line": SIZED + b"X-Request-Id: a\r\n b\r\n\r\n{}",
    "a line folded with a tab": SIZED + b"X-Request-Id: a\r\n\tb\r\n\r\n{}",
    "a folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a length within a fold": SIZED + b"X-Request-Id: a\r\n Content-Length: 9\r\n\r\n{}",
    "a first line that is folded": b"HTTP/1.1 200 OK\r\n X-Request-Id: a\r\nContent-Length: 2\r\n\r\n{}",
    "a zero byte in a value": SIZED + b"X-Request-Id: a\x00b\r\n\r\n{}",
    "a zero byte in a name": SIZED + b"X-\x00: b\r\n\r\n{}",
    "a control character in a value": SIZED + b"X-Request-Id: a\x1bb\r\n\r\n{}",
    "a lonely carriage return": SIZED + b"X-Request-Id: a\rX-RateLimit-X: b\r\n\r\n{}",
    "a lonely line feed": SIZED + b"X-Request-Id: a\nX-RateLimit-X: b\r\n\r\n{}",
    "line feeds alone": SIZED.replace(b"\r\n", b"\n") + b"\n{}",
    "a head that ends in line feeds": SIZED + b"\n\n{}",
    "a line without a name": SIZED + b": x\r\n\r\n{}",
    "a line without a colon": SIZED + b"nonsense\r\n\r\n{}",
    "status 0": SIZED.replace(b"200", b"0") + b"\r\n{}",
    "status 099": SIZED.replace(b"200", b"099") + b"\r\n{}",
    "status 999": SIZED.replace(b"200", b"999") + b"\r\n{}",
    "status of four digits": SIZED.replace(b"200", b"2000") + b"\r\n{}",
    "HTTP/2.0": SIZED.replace(b"/1.1", b"/2.0") + b"\r\n{}",
    "HTTP/1.10": SIZED.replace(b"/1.1", b"/1.10") + b"\r\n{}",
    "small letters": SIZED.replace(b"HTTP", b"http") + b"\r\n{}",
    "an empty line first": b"\r\n" + SIZED + b"\r\n{}",
    "garbage first": b"\x16\x03\x01" + SIZED + b"\r\n{}",
    "a switch of protocols": b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + STRANGER,
    "a flood of interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000 + SIZED + b"\r\n{}",
    "too many headers": SIZED + b"".join(b"X-%d: a\r\n" % n for n in range(5_000)) + b"\r\n{}",
    "too long a head": SIZED + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 60_000) for n in range(5)) + b"\r\n{}",
}


@pytest.mark.parametrize("answer", HEADS.values(), ids=HEADS.keys())
def test_a_head_with_two_readings_is_refused(answer: bytes, strict: RelayProcess, raw: RawUpstream) -> None:
    """It becomes a 502, its connection ends, and the next request gets its own answer."""
    raw.play(answer)
    assert_relay_error(post(strict), exc.UpstreamProtocolError)
    assert_own_answer(strict)
    assert raw.connections == 2


BODIES = {
    "a negative chunk": (CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",),
    "a chunk with 0x": (CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",),
    "a chunk beyond 64 bits": (CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",),
    "a chunk without a size": (CHUNKED + b"\r\n{}\r\n0\r\n\r\n",),
    "a chunk that goes on": (CHUNKED + b"2\r\n{}XX\r\n0\r\n\r\n",),
    "chunks with line feeds alone": (CHUNKED + b"2\n{}\n0\n\n",),
    "a chunk extension with a line feed": (CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n",),
    "a chunk that is broken later": (CHUNKED, b"2\r\n{}\r\n", b"zz\r\n"),
    "a length among the trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",),
    "a length that is too long, in silence": (HEAD + b"Content-Length: 9\r\n\r\n{}",),
    "a body behind 204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",),
    "garbage behind the body": (SIZED + b"\r\n{}garbage",),
}


@pytest.mark.parametrize("pieces", BODIES.values(), ids=BODIES.keys())
def test_a_body_with_two_readings_never_looks_whole(
    pieces: tuple[bytes, ...], strict: RelayProcess, raw: RawUpstream
) -> None:
    """The client sees an error or a broken transfer; the connection ends, and the next request gets its own answer."""
    raw.play(*pieces)
    reply = post(strict)
    if reply.status == 200:
        assert not reply.complete
    else:
        assert reply.status in {502, 504}
    assert_own_answer(strict)
    assert raw.connections == 2


def test_a_body_that_ends_too_early_never_looks_whole(strict: RelayProcess, raw: RawUpstream) -> None:
    """A length is a promise: when the connection ends before it, so does the client's."""
    for pieces in ((HEAD + b"Content-Length: 9\r\n\r\n{}",), (HEAD + b"Content-Length: 9\r\n\r\n", b"{}"), (CHUNKED,)):
        raw.play(*pieces, then_close=True)
        reply = post(strict)
        assert not (reply.status == 200 and reply.complete)
        assert_own_answer(strict)


UNASKED = {
    "a second answer with the first": (SIZED + b"\r\n{}" + STRANGER,),
    "a second answer with the body": (SIZED + b"\r\n", b"{}" + STRANGER),
    "a second answer with the last chunk": (CHUNKED, CHUNKS + STRANGER),
    "a second answer in mid-chunk": (CHUNKED + b"2\r\n{", b"}\r\n0\r\n\r\n" + STRANGER),
    "a second answer later": (SIZED + b"\r\n{}", STRANGER),
    "a second answer after chunks, later": (CHUNKED + CHUNKS, STRANGER),
    "half a second answer with the first": (SIZED + b"\r\n{}" + STRANGER[:40],),
    "half a second answer with the body": (SIZED + b"\r\n", b"{}" + STRANGER[:40]),
    "half a second answer later": (SIZED + b"\r\n{}", STRANGER[:40]),
    "an interim answer with the body": (SIZED + b"\r\n", b"{}HTTP/1.1 100 Continue\r\n\r\n"),
    "an interim answer later": (SIZED + b"\r\n{}", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "garbage later": (SIZED + b"\r\n{}", b"garbage"),
    "one byte later": (SIZED + b"\r\n{}", b"\n"),
    "an answer behind 204": (b"HTTP/1.1 204 No Content\r\n\r\n", STRANGER),
    "an answer behind 304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", STRANGER),
    "an answer behind an error": (SIZED.replace(b"200", b"500") + b"\r\n", b"{}" + STRANGER),
}


@pytest.mark.parametrize("pieces", UNASKED.values(), ids=UNASKED.keys())
def test_what_nobody_asked_for_is_nobodys_answer(
    pieces: tuple[bytes, ...], strict: RelayProcess, raw: RawUpstream
) -> None:
    """The first request gets its answer, the connection ends with the bytes behind it, and the next gets its own."""
    raw.play(*pieces)
    reply = post(strict)
    assert (reply.status, reply.complete) == (int(pieces[0][9:12]), True)
    assert b"bad" not in reply.body
    wait_until(lambda: raw.left == 1)
    assert_own_answer(strict)
    assert raw.connections == 2


KEPT = {
    "a length": (SIZED + b"\r\n{}",),
    "chunks": (CHUNKED + CHUNKS,),
    "a reason that is missing": (SIZED.replace(b" OK", b"") + b"\r\n{}",),
    "an empty reason": (SIZED.replace(b"OK", b"") + b"\r\n{}",),
    "a colon and spaces in a value": (SIZED + b"X-Request-Id:  a : b :c\t \r\n\r\n{}",),
    "bytes beyond ASCII in a value": (SIZED + b"X-Other: \xc3\xbc\xff\r\n\r\n{}",),
    "a value that is empty": (SIZED + b"X-Other:\r\n\r\n{}",),
    "a head byte by byte": (*(bytes([byte]) for byte in SIZED[:30]), SIZED[30:] + b"\r\n{}"),
    "interim answers": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + SIZED + b"\r\n{}",),
    "interim answers one by one": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 On\r\n\r\n", SIZED + b"\r\n{}"),
}


@pytest.mark.parametrize("pieces", KEPT.values(), ids=KEPT.keys())
def test_proper_answers_keep_their_connection(
    pieces: tuple[bytes, ...], strict: RelayProcess, raw: RawUpstream
) -> None:
    """Strictness costs no honest upstream anything: one connection carries both requests."""
    raw.play(*pieces)
    reply = post(strict)
    assert (reply.status, reply.body, reply.complete) == (200, b"{}", True)
    assert_own_answer(strict)
    assert (raw.connections, raw.requests) == (1, 2)


def post(relay: RelayProcess) -> RawReply:
    """Send a request, and look at the framing of its reply."""
    headers = {**relay.headers, "Content-Type": "application/json"}
    with RawConnection(relay.url) as connection:
        return connection.exchange("POST", "/v1/responses", headers.items(), BODY)


def assert_own_answer(relay: RelayProcess) -> None:
    """The request after a bad answer gets what was meant for it."""
    headers = {**relay.headers, "Content-Type": "application/json"}
    reply = httpx.post(f"{relay.url}/v1/responses", headers=headers, content=BODY, timeout=10)
    assert (reply.status_code, reply.content) == (200, OWN_ANSWER)
