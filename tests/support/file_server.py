"""
A file server on loopback that speaks TLS and does what a test tells it, good or bad.

Its certificate is made by the command `openssl`, signs itself and is thrown away with the folder it lies in.
"""

import contextlib
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TIMEOUT_SECONDS = 30.0  # of a client that neither reads nor leaves
STOP_SECONDS = 5.0
NAMES = (
    "DNS:files.oaiusercontent.com",
    "DNS:other.oaiusercontent.com",
    "IP:127.0.0.1",
)
_MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """One request as it came: target and headers, names in lower case."""

    method: str
    target: str
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """The first value of a header (name in lower case)."""
        return next((value for key, value in self.headers if key == name), None)


class Exchange:
    """
    The server's side of one request.

    Args:
        stopped: Set when the server ends; what waits for ever waits for this.
    """

    def __init__(self, stream: socket.socket, asked: Asked, stopped: threading.Event) -> None:
        self.asked = asked
        self.stopped = stopped
        self._stream = stream

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a reply."""
        lines = [f"HTTP/1.1 {status} Made up", *(f"{name}: {value}" for name, value in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode("utf-8"))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._stream.sendall(data)

    def wait_until_left(self) -> None:
        """Return when the client has closed the connection."""
        while self._stream.recv(_MAX_HEAD_BYTES):
            pass


Answer = Callable[[Exchange], None]


@dataclass
class Certificate:
    """A key and a certificate for `NAMES`, each in its file; who trusts the latter trusts the server."""

    key: Path
    chain: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate that is good for two days."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "these tests need the command `openssl`"
    made = Certificate(folder / "key.pem", folder / "certificate.pem")
    subject = ["-subj", "/CN=a throw-away file server", "-addext", f"subjectAltName={','.join(NAMES)}"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = [openssl, "req", "-x509", *kind, *subject, "-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    return made


class FileServer:
    """
    Answers requests with what stands under their path in `answers`; anything else with 404.

    Args:
        certificate: Without one nothing is answered, and connections are only counted.
        host: An address of loopback.
        port: 0 picks a free one.
    """

    def __init__(self, certificate: Certificate | None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[Asked] = []
        self.connections = 0
        self.open_connections = 0
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate.chain, certificate.key)
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with outer._counting:
                    outer.connections += 1
                    outer.open_connections += 1
                with contextlib.suppress(OSError):  # the client left, or does not trust the certificate
                    outer._serve(self.request)
                with outer._counting:
                    outer.open_connections -= 1

        class Listener(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True
            allow_reuse_address = True

        self._listener = Listener((host, port), Handler)
        self.port: int = self._listener.server_address[1]
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(STOP_SECONDS)

    def link(self, path: str, host: str = "files.oaiusercontent.com") -> str:
        """A link to this server by one of its names."""
        return f"https://{host}:{self.port}{path}"

    def forget(self) -> None:
        """Answer nothing and have seen nobody."""
        self.answers.clear()
        self.requests.clear()
        self.connections = 0

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(TIMEOUT_SECONDS)
        if self._tls is None:
            return
        with self._tls.wrap_socket(raw, server_side=True) as stream:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
                piece = stream.recv(_MAX_HEAD_BYTES)
                if not piece:
                    return
                head += piece
            asked = _read_head(head)
            self.requests.append(asked)
            path = asked.target.partition("?")[0]
            self.answers.get(path, _not_found)(Exchange(stream, asked, self._stopped))


def whole(
    pieces: Iterable[bytes],
    *,
    length: int | None = None,
    media_type: str = "text/plain",
    status: int = 200,
    leaves: bool = False,
    **more: str,
) -> Answer:
    """
    Answer with a file.

    Args:
        length: What `Content-Length` says, true or not; without it the file comes in chunks.
        leaves: Close the connection, instead of keeping it until the client does.
        more: Further headers, `_` for `-`.
    """
    headers = {"Content-Type": media_type, **{name.replace("_", "-"): value for name, value in more.items()}}

    def answer(exchange: Exchange) -> None:
        if length is not None:
            exchange.start(status, {**headers, "Content-Length": str(length)})
            for piece in pieces:
                exchange.send(piece)
        else:
            exchange.start(status, {**headers, "Transfer-Encoding": "chunked"})
            for piece in pieces:
                exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            exchange.send(b"0\r\n\r\n")
        if not leaves:
            exchange.wait_until_left()

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    """Answer with another place."""
    return whole([], length=0, status=status, Location=location)


def stalled(begin: bytes | None = None, *, length: int = 2**20) -> Answer:
    """Answer nothing at all, or the beginning of a file and then nothing, until the client leaves."""

    def answer(exchange: Exchange) -> None:
        if begin is not None:
            exchange.start(200, {"Content-Type": "text/plain", "Content-Length": str(length)})
            exchange.send(begin)
        exchange.wait_until_left()

    return answer


def _not_found(exchange: Exchange) -> None:
    whole([], length=0, status=404)(exchange)


def _read_head(head: bytes) -> Asked:
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Asked(method, target, [(name.strip().lower(), value.strip()) for name, _, value in pairs])
