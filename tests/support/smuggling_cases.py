"""
Requests that two servers in a row may read in two ways, as raw bytes, and what must become of each.

`SMUGGLED` is what an attacker would like to get through; it must never reach the upstream.
"""

from collections.abc import Iterator
from dataclasses import dataclass

KEY = b"$KEY"  # the caller puts a key in its place
SMUGGLED_PATH = "/v1/batches"
MODELS = "/v1/models"
RESPONSES = "/v1/responses"
FILES = "/v1/files"
REFUSED = 400

_HOST = b"Host: relay.test\r\n"
_KEY = b"X-Relay-Key: " + KEY + b"\r\n"
_JSON = b"Content-Type: application/json\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
_BODY = b'{"model": "m", "input": "x"}'
_LENGTH = b"Content-Length: %d\r\n" % len(_BODY)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNK = b"%x\r\n%b\r\n" % (len(_BODY), _BODY)
_END = b"0\r\n\r\n"
_PART = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b--\r\n'
_PART_CHUNK = b"%x\r\n%b\r\n" % (len(_PART), _PART)
SMUGGLED = b"GET " + SMUGGLED_PATH.encode() + b" HTTP/1.1\r\n" + _HOST + _KEY + b"\r\n"


@dataclass(frozen=True)
class SmugglingCase:
    """
    One connection's worth of bytes.

    Args:
        data: All of it, with `KEY` where the key goes.
        status: Of the only reply, after which the connection ends.
        path: Of the only request that reaches the upstream whole; empty: none does.
        body: Its body.
    """

    name: str
    data: bytes
    status: int = REFUSED
    path: str = ""
    body: bytes = b""


def _get(line: bytes = b"GET /v1/models HTTP/1.1\r\n", headers: bytes = _HOST + _KEY, after: bytes = SMUGGLED) -> bytes:
    return line + headers + b"\r\n" + after


def _post(headers: bytes, body: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST /v1/responses %b\r\n" % version + _HOST + _KEY + _JSON + headers + b"\r\n" + body + SMUGGLED


def _upload(body: bytes) -> bytes:
    return b"POST /v1/files HTTP/1.1\r\n" + _HOST + _KEY + _FORM + _CHUNKED + b"\r\n" + body + SMUGGLED


def _lengths() -> Iterator[SmugglingCase]:
    """Two lengths, or one that is no plain number."""
    yield SmugglingCase("CL.TE", _post(_LENGTH + _CHUNKED, _CHUNK + _END))
    yield SmugglingCase("TE.CL", _post(_CHUNKED + _LENGTH, _CHUNK + _END))
    yield SmugglingCase("CL 0 and TE", _post(b"Content-Length: 0\r\n" + _CHUNKED, _CHUNK + _END))
    yield SmugglingCase("two different lengths", _post(b"Content-Length: 3\r\n" + _LENGTH, _BODY))
    yield SmugglingCase("the same length twice", _post(_LENGTH + _LENGTH, _BODY))
    values = {
        "plus": b"+%d",
        "minus": b"-%d",
        "hexadecimal": b"0x%x",
        "list": b"%d, 3",
        "space inside": b"%d 3",
        "leading vertical tab": b"\x0b%d",
        "exponent": b"%de0",
        "underscore": b"%d_0",
        "fraction": b"%d.0",
        "quoted": b'"%d"',
        "beyond 64 bits": b"1844674407370955%d",
    }
    for name, value in values.items():
        number = 99999999 if name == "beyond 64 bits" else len(_BODY)
        yield SmugglingCase(f"length: {name}", _post(b"Content-Length: " + value % number + b"\r\n", _BODY))
    yield SmugglingCase("length: empty", _post(b"Content-Length:\r\n", _BODY))
    yield SmugglingCase("length: non-ASCII digits", _post(b"Content-Length: \xb2\xb8\r\n", _BODY))


def _codings() -> Iterator[SmugglingCase]:
    """A transfer coding that one server takes for chunked and another does not."""
    values = {
        "with another before it": b"gzip, chunked",
        "with another behind it": b"chunked, identity",
        "twice": b"chunked, chunked",
        "unknown": b"xchunked",
        "identity": b"identity",
        "quoted": b'"chunked"',
        "with a parameter": b"chunked;q=1",
        "behind a comma": b",chunked",
        "before a comma": b"chunked,",
        "behind a vertical tab": b"\x0bchunked",
        "before a NUL": b"chunked\x00",
        "empty": b"",
        "folded": b"\r\n chunked",
    }
    for name, value in values.items():
        yield SmugglingCase(f"coding: {name}", _post(b"Transfer-Encoding: " + value + b"\r\n", _CHUNK + _END))
    names = {
        "space before the colon": b"Transfer-Encoding : chunked\r\n",
        "tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
        "leading space": b" Transfer-Encoding: chunked\r\n",
        "behind a bare line feed": b"X: a\nTransfer-Encoding: chunked\r\n",
        "behind a bare return": b"X: a\rTransfer-Encoding: chunked\r\n",
        "in two headers": _CHUNKED + _CHUNKED,
        "in two headers, one unknown": _CHUNKED + b"Transfer-Encoding: x\r\n",
        "control character in the name": b"Transfer\x01-Encoding: chunked\r\n",
    }
    for name, headers in names.items():
        yield SmugglingCase(f"coding: {name}", _post(headers, _CHUNK + _END))
    yield SmugglingCase("coding: in HTTP/1.0", _post(_CHUNKED, _CHUNK + _END, b"HTTP/1.0"))


def _chunks() -> Iterator[SmugglingCase]:
    """Bodies in chunks whose borders are in doubt; on the upload they have begun to go upstream."""
    size = b"%x" % len(_BODY)
    bodies = {
        "0x before the size": b"0x" + size + b"\r\n" + _BODY + b"\r\n" + _END,
        "negative size": b"-" + size + b"\r\n" + _BODY + b"\r\n" + _END,
        "no size": b"\r\n" + _BODY + b"\r\n" + _END,
        "space before the size": b" " + size + b"\r\n" + _BODY + b"\r\n" + _END,
        "space behind the size": size + b" \r\n" + _BODY + b"\r\n" + _END,
        "size beyond 64 bits": b"f" * 17 + b"\r\n" + _BODY + b"\r\n" + _END,
        "line feed behind the size": size + b"\n" + _BODY + b"\r\n" + _END,
        "line feed in an extension": size + b";a\n" + _BODY + b"\r\n" + _END,
        "return in an extension": size + b";a\r" + _BODY + b"\r\n" + _END,
        "line end in a quoted extension": size + b';a="\r\n"\r\n' + _BODY + b"\r\n" + _END,
        "line feed behind the data": size + b"\r\n" + _BODY + b"\n" + _END,
        "nothing behind the data": size + b"\r\n" + _BODY + _END,
        "other bytes behind the data": size + b"\r\n" + _BODY + b"XX" + _END,
        "line feed as the last line": _CHUNK + b"0\r\n\n",
        "length in a trailer": _CHUNK + b"0\r\nContent-Length: 3\r\n\r\n",
        "coding in a trailer": _CHUNK + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "folded trailer": _CHUNK + b"0\r\nX: a\r\n b\r\n\r\n",
    }
    for name, body in bodies.items():
        yield SmugglingCase(f"chunks: {name}", _post(_CHUNKED, body))
    yield SmugglingCase("upload: other bytes behind the data", _upload(_PART_CHUNK[:-2] + b"XX" + _END))
    yield SmugglingCase("upload: 0x before a later size", _upload(_PART_CHUNK + b"0x0\r\n\r\n"))
    yield SmugglingCase("upload: length in a trailer", _upload(_PART_CHUNK + b"0\r\nContent-Length: 3\r\n\r\n"))


def _lines() -> Iterator[SmugglingCase]:
    """Request lines that differ from their plain form."""
    lines = {
        "two spaces before the target": b"GET  /v1/models HTTP/1.1\r\n",
        "two spaces behind the target": b"GET /v1/models  HTTP/1.1\r\n",
        "tabs": b"GET\t/v1/models\tHTTP/1.1\r\n",
        "leading space": b" GET /v1/models HTTP/1.1\r\n",
        "leading line feed": b"\nGET /v1/models HTTP/1.1\r\n",
        "leading return": b"\rGET /v1/models HTTP/1.1\r\n",
        "two empty lines before it": b"\r\n\r\nGET /v1/models HTTP/1.1\r\n",
        "line feed at its end": b"GET /v1/models HTTP/1.1\n",
        "space at its end": b"GET /v1/models HTTP/1.1 \r\n",
        "space in the method": b"GE T /v1/models HTTP/1.1\r\n",
        "lower case method": b"get /v1/models HTTP/1.1\r\n",
        "unknown method": b"XGET /v1/models HTTP/1.1\r\n",
        "NUL in the target": b"GET /v1/models\x00 HTTP/1.1\r\n",
        "return in the target": b"GET /v1/models\r HTTP/1.1\r\n",
        "fragment": b"GET /v1/models#/v1/files HTTP/1.1\r\n",
        "bytes beyond ASCII": b"GET /v1/models\xff HTTP/1.1\r\n",
        "no version": b"GET /v1/models\r\n",
        "HTTP/0.9": b"GET /v1/models HTTP/0.9\r\n",
        "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\n",
        "HTTP/2.0": b"GET /v1/models HTTP/2.0\r\n",
        "another protocol": b"GET /v1/models RTSP/1.0\r\n",
        "lower case protocol": b"GET /v1/models http/1.1\r\n",
        "no slash": b"GET v1/models HTTP/1.1\r\n",
        "host and port": b"GET relay.test:443 HTTP/1.1\r\n",
        "absolute, of another scheme": b"GET ftp://relay.test/v1/models HTTP/1.1\r\n",
        "absolute, with a user": b"GET http://user@relay.test/v1/models HTTP/1.1\r\n",
        "absolute, without a path": b"GET http://relay.test HTTP/1.1\r\n",
        "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
    }
    for name, line in lines.items():
        yield SmugglingCase(f"line: {name}", _get(line))
    yield SmugglingCase("line: tunnel", _get(b"CONNECT relay.test:443 HTTP/1.1\r\n"), status=REFUSED)


def _headers() -> Iterator[SmugglingCase]:
    """Header sections that end or begin where others see something else."""
    sections = {
        "folded": _HOST + _KEY + b"X: a\r\n b\r\n",
        "folded by a tab": _HOST + _KEY + b"X: a\r\n\tb\r\n",
        "bare line feed": _HOST + _KEY + b"X: a\nY: b\r\n",
        "bare return": _HOST + _KEY + b"X: a\rY: b\r\n",
        "NUL in a value": _HOST + _KEY + b"X: a\x00b\r\n",
        "NUL in a name": _HOST + _KEY + b"X\x00: a\r\n",
        "control character": _HOST + _KEY + b"X: a\x01b\r\n",
        "space before a colon": _HOST + _KEY + b"X : a\r\n",
        "no colon": _HOST + _KEY + b"X\r\n",
        "no name": _HOST + _KEY + b": a\r\n",
        "space before the first": b" X: a\r\n" + _HOST + _KEY,
        "no host": _KEY,
        "two hosts": _HOST + b"Host: other.test\r\n" + _KEY,
        "the same host twice": _HOST + _HOST + _KEY,
    }
    for name, headers in sections.items():
        yield SmugglingCase(f"headers: {name}", _get(headers=headers))
    empty_line = b"GET /v1/models HTTP/1.1\r\n" + _HOST + _KEY + b"\n" + SMUGGLED
    yield SmugglingCase("headers: line feed as the empty line", empty_line)


def _upgrades() -> Iterator[SmugglingCase]:
    """Requests for another protocol; what follows may be in it."""
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    yield SmugglingCase("upgrade: h2c", _get(headers=_HOST + _KEY + h2c), 200, MODELS)
    yield SmugglingCase("upgrade: h2c with a body", _post(h2c + _LENGTH, _BODY))
    yield SmugglingCase("upgrade: h2c with chunks", _post(h2c + _CHUNKED, _CHUNK + _END))
    socket = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    yield SmugglingCase("upgrade: socket with a body", _post(socket + _LENGTH, _BODY))


def _unambiguous() -> Iterator[SmugglingCase]:
    """What looks odd and has one meaning only: it passes, alone."""
    close = b"Connection: close\r\n"
    passes = {
        "chunked in upper case": (b"Transfer-Encoding: CHUNKED\r\n", _CHUNK + _END),
        "chunked behind a tab": (b"Transfer-Encoding:\tchunked\r\n", _CHUNK + _END),
        "extension": (_CHUNKED, _CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + _END),
        "size with zeros before it": (_CHUNKED, b"000" + _CHUNK + b"000\r\n\r\n"),
        "trailer": (_CHUNKED, _CHUNK + b"0\r\nX-Relay-Key: other\r\nContent-Type: text/plain\r\n\r\n"),
        "length with zeros before it": (b"Content-Length: 00%d\r\n" % len(_BODY), _BODY),
        "hop by hop length": (b"Connection: Content-Length\r\n" + _LENGTH, _BODY),
        "underscores": (b"Transfer_Encoding: chunked\r\nContent_Length: 3\r\n" + _LENGTH, _BODY),
    }
    for name, (headers, body) in passes.items():
        yield SmugglingCase(f"passes: {name}", _post(close + headers, body), 200, RESPONSES, _BODY)
    empty = b"\r\nGET /v1/models HTTP/1.1\r\n"
    yield SmugglingCase("passes: one empty line before it", _get(empty, _HOST + _KEY + close), 200, MODELS)
    absolute = b"GET http://other.test/v1/models HTTP/1.1\r\n"
    yield SmugglingCase("passes: absolute target", _get(absolute, _HOST + _KEY + close), 200, MODELS)
    body = b"Content-Length: %d\r\n" % len(SMUGGLED)
    hidden = _get(headers=_HOST + _KEY + close + body)
    yield SmugglingCase("passes: a request in the body of a request without one", hidden, 200, MODELS)
    behind = _get(headers=_HOST + _KEY, after=b"GET  /v1/batches HTTP/1.1\r\n" + _HOST + _KEY + b"\r\n")
    yield SmugglingCase("passes: behind it one that does not", behind, 200, MODELS)
    two = _get(headers=_HOST + _KEY, after=SMUGGLED.replace(b"Host: relay.test\r\n", b""))
    yield SmugglingCase("passes: behind it one without a host", two, 200, MODELS)


SMUGGLING_CASES = (
    *_lengths(),
    *_codings(),
    *_chunks(),
    *_lines(),
    *_headers(),
    *_upgrades(),
    *_unambiguous(),
)
