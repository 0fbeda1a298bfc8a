"""HTTP byte by byte over one real connection: what ordinary clients would correct, hide or not send at all."""

import http.client
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10.0  # a hang fails
CHUNK_BYTES = 65_536

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class RawReply:
    """
    One reply as it came over the wire.

    Args:
        headers: Names in lower case, repetitions included.
        complete: Whether the body ended as its framing announces; a client must not trust it otherwise.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool

    def header(self, name: str) -> str | None:
        """First value of a header (name in lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class RawConnection:
    """
    One connection to a server.

    Args:
        url: Scheme, host and port.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((str(parts.hostname), int(parts.port or 80)), TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def read_until(self, end: bytes) -> bytes:
        """Read byte by byte up to and including `end`, or to the end of the connection."""
        received = b""
        while not received.endswith(end):
            piece = self._socket.recv(1)
            if not piece:
                break
            received += piece
        return received

    def reply(self, method: str = "GET") -> RawReply:
        """Read one reply to a request with the given method."""
        response = http.client.HTTPResponse(self._socket, method=method)
        response.begin()
        complete = True
        try:
            body = response.read()
        except http.client.IncompleteRead as error:
            body, complete = error.partial, False
        except ConnectionResetError:
            body, complete = b"", False
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        return RawReply(response.status, headers, body, complete)

    def send_head(self, method: str, target: str, headers: Headers = ()) -> None:
        """Send a request without its body."""
        self.send(raw_request(method, target, headers))

    def exchange(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> RawReply:
        """Send one request and read its reply."""
        self.send(raw_request(method, target, headers, body))
        return self.reply(method)


def raw_request(method: str, target: str, headers: Headers = (), body: bytes | None = None) -> bytes:
    """
    The bytes of a request.

    Args:
        target: Put into the request line as it is.
        body: `Content-Length` is added for it.
    """
    lines = [f"{method} {target} HTTP/1.1", "Host: relay.test", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(pieces: Iterable[bytes]) -> bytes:
    """Pieces in the form of `Transfer-Encoding: chunked`, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
