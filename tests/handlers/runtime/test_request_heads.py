import pytest

from handlers.runtime.exceptions import MalformedRequest
from handlers.runtime.messages import Header
from handlers.runtime.request_heads import check_head

HOST: Header = (b"host", b"relay.test")
CHUNKED: Header = (b"transfer-encoding", b"chunked")


def check(
    raw: bytes = b"GET /a HTTP/1.1\r\n",
    *headers: Header,
    target: bytes = b"/a",
    version: str = "1.1",
    pipelined: bool = False,
    upgrade: bool = False,
) -> None:
    """Check a head as the parser would hand it over."""
    check_head(b"GET", target, version, headers or [HOST], raw=raw, pipelined=pipelined, upgrade=upgrade)


@pytest.mark.parametrize("raw", [b"GET /a HTTP/1.1\r\nHost: x", b"\r\nGET /a HTTP/1.1\r\n", b"GET /a HTTP/1.1\r\n"])
def test_a_plain_line_passes(raw: bytes) -> None:
    """With one empty line before it (RFC 9112, section 2.2), or none."""
    check(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET  /a HTTP/1.1\r\n",
        b"GET /a  HTTP/1.1\r\n",
        b"\nGET /a HTTP/1.1\r\n",
        b"\r\n\r\nGET /a HTTP/1.1\r\n",
        b"GET /a RTSP/1.1\r\n",
        b"GET /a HTTP/1.1\n",
        b"",
    ],
)
@pytest.mark.parametrize("pipelined", [False, True])
def test_any_other_line_is_refused(raw: bytes, *, pipelined: bool) -> None:
    """Whatever the parser has made of it; behind another request the plain line must at least be there."""
    if pipelined and b"GET /a HTTP/1.1\r\n" in raw:
        return
    with pytest.raises(MalformedRequest):
        check(raw, pipelined=pipelined)


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0"])
def test_other_versions_are_refused(version: str) -> None:
    """Only 1.1 and 1.0 are spoken here."""
    with pytest.raises(MalformedRequest):
        check(f"GET /a HTTP/{version}\r\n".encode(), version=version)


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        (b"/a?b", True),
        (b"*", True),
        (b"http://relay.test/a", True),
        (b"HTTPS://relay.test/a", True),
        (b"/a#b", False),
        (b"ftp://relay.test/a", False),
        (b"http://relay.test", False),
        (b"http://user@relay.test/a", False),
        (b"relay.test:443", False),
        (b"a", False),
        (b"", False),
    ],
)
def test_a_target_is_a_path_or_a_plain_url(target: bytes, *, passes: bool) -> None:
    """Nothing that leads elsewhere, or may be cut in two ways."""
    raw = b"GET " + target + b" HTTP/1.1\r\n"
    if passes:
        check(raw, target=target)
    else:
        with pytest.raises(MalformedRequest):
            check(raw, target=target)


def test_there_is_one_host() -> None:
    """RFC 9112, section 3.2; HTTP/1.0 did not have it."""
    check(b"GET /a HTTP/1.0\r\n", (b"accept", b"*/*"), version="1.0")
    for headers in ([(b"accept", b"*/*")], [HOST, HOST], [HOST, (b"host", b"other.test")]):
        with pytest.raises(MalformedRequest):
            check(b"GET /a HTTP/1.1\r\n", *headers)


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" chunked\t"])
def test_chunked_is_a_coding(value: bytes) -> None:
    """In any case of its letters."""
    check(b"GET /a HTTP/1.1\r\n", HOST, (b"transfer-encoding", value))


@pytest.mark.parametrize("value", [b"gzip, chunked", b",chunked", b"identity", b"", b"chunked, chunked", b"xchunked"])
def test_every_other_coding_is_refused(value: bytes) -> None:
    """So is one that stands twice, and any in HTTP/1.0."""
    with pytest.raises(MalformedRequest):
        check(b"GET /a HTTP/1.1\r\n", HOST, (b"transfer-encoding", value))
    with pytest.raises(MalformedRequest):
        check(b"GET /a HTTP/1.1\r\n", HOST, CHUNKED, CHUNKED)
    with pytest.raises(MalformedRequest):
        check(b"GET /a HTTP/1.0\r\n", HOST, CHUNKED, version="1.0")


def test_a_request_for_another_protocol_has_no_body() -> None:
    """The parser would leave it unread, and forward none."""
    check(b"GET /a HTTP/1.1\r\n", HOST, (b"content-length", b"0"), upgrade=True)
    for body in ((b"content-length", b"5"), CHUNKED):
        check(b"GET /a HTTP/1.1\r\n", HOST, body)
        with pytest.raises(MalformedRequest):
            check(b"GET /a HTTP/1.1\r\n", HOST, body, upgrade=True)
