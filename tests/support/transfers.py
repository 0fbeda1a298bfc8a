"""
Large bodies through the relay, made and read piece by piece, and the relay's memory meanwhile.

Used by the tests and by `scripts/measure`.
"""

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psutil

from tests.support.servers import RelayProcess

MIB = 2**20
GROWTH_LIMIT_MIB = 32  # of the relay, however large a body is
PIECE_BYTES = MIB
TIMEOUT_SECONDS = 30.0  # without a byte; a hang fails
SAMPLE_SECONDS = 0.01
BOUNDARY = "large-body"

_HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
).encode()
_TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
_PATTERN = bytes(range(256)) * (PIECE_BYTES // 256)  # what the simulated upstream's generated files hold


@dataclass(frozen=True)
class Transfer:
    """
    One body that went through the relay.

    Args:
        size: Bytes of the body.
        sha256: Of the body, in hexadecimal digits, as its sender or receiver computed it.
        reply: The decoded JSON reply to an upload.
    """

    status: int
    size: int
    sha256: str
    reply: Any = None


def upload(relay: RelayProcess, size: int) -> Transfer:
    """Send a file of so many bytes as `createFile` takes it; the digest is that of the whole multipart body."""
    digest = hashlib.sha256()
    length = len(_HEAD) + size + len(_TAIL)

    def body() -> Iterator[bytes]:
        for piece in (_HEAD, *_pieces(size), _TAIL):
            digest.update(piece)
            yield piece

    with _Exchange(relay) as exchange:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(length)}
        response = exchange.ask("POST", "/v1/files", headers, body())
        return Transfer(response.status, length, digest.hexdigest(), json.loads(response.read()))


def download(relay: RelayProcess, size: int) -> Transfer:
    """Read a file of so many bytes that the simulated upstream generates; the digest is that of what came."""
    digest = hashlib.sha256()
    received = 0
    with _Exchange(relay) as exchange:
        response = exchange.ask("GET", f"/v1/files/file-size-{size}/content", {}, None)
        while piece := response.read(PIECE_BYTES):
            digest.update(piece)
            received += len(piece)
        return Transfer(response.status, received, digest.hexdigest())


def expected_sha256(size: int) -> str:
    """Digest of a generated file."""
    digest = hashlib.sha256()
    for piece in _pieces(size):
        digest.update(piece)
    return digest.hexdigest()


class PeakMemory:
    """
    The growth of a process's resident memory while the block runs, sampled every `SAMPLE_SECONDS`.

    Args:
        pid: Of the process.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.before_bytes = self._rss()
        self.peak_bytes = self.before_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def growth_mib(self) -> float:
        """The peak above what it was before, in MiB."""
        return (self.peak_bytes - self.before_bytes) / MIB

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._rss())

    def _rss(self) -> int:
        return int(self._process.memory_info().rss)


class _Exchange:
    """One connection for one request."""

    def __init__(self, relay: RelayProcess) -> None:
        parts = urlsplit(relay.url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)
        self._headers = relay.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: Iterator[bytes] | None
    ) -> http.client.HTTPResponse:
        """Send a request and read the head of its reply."""
        self._connection.request(method, path, body=body, headers={**self._headers, **headers})
        return self._connection.getresponse()


def _pieces(size: int) -> Iterator[bytes]:
    whole, rest = divmod(size, PIECE_BYTES)
    for _ in range(whole):
        yield _PATTERN
    if rest:
        yield _PATTERN[:rest]
