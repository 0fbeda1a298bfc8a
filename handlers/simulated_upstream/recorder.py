"""
Remembers what the simulated upstream was sent, so that tests can prove what reached it and what did not.

Bounded; holds the raw headers including credentials, therefore only for made-up keys.
"""

import base64
import hashlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_REQUESTS = 10_000
BODY_START_BYTES = 65_536
MAX_TEXTS = 100


@dataclass(slots=True)
class RecordedRequest:
    """
    One request as it came over the wire.

    Args:
        path: Still percent-encoded, without the query.
        headers: Name and value as received, in order, repetitions included.
        operation_id: `None` when no served operation fits.
        body_start: The first `BODY_START_BYTES` of the body.
        arrived_at: Monotonic seconds; the other two times likewise.
        finished_at: When the reply was complete or given up; `None` while it is in progress.
        disconnected_at: When the client was seen to be gone before the reply was complete.
        status: Status of the reply once its headers were sent.
    """

    sequence: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    operation_id: str | None = None
    body_size: int = 0
    body_start: bytes = b""
    arrived_at: float = 0.0
    finished_at: float | None = None
    disconnected_at: float | None = None
    status: int | None = None
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def body_sha256(self) -> str:
        """SHA-256 of the body read so far, in hexadecimal digits."""
        return str(self._digest.hexdigest())

    def header(self, name: str) -> str | None:
        """First value of a header, `None` when it was not sent; the name in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def add_body(self, piece: bytes) -> None:
        """Take note of the next piece of the body."""
        self.body_size += len(piece)
        self._digest.update(piece)
        missing = BODY_START_BYTES - len(self.body_start)
        if missing > 0:
            self.body_start += piece[:missing]

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values; `body_start` in base64."""
        return {
            "sequence": self.sequence,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": [list(pair) for pair in self.headers],
            "operation_id": self.operation_id,
            "body_size": self.body_size,
            "body_sha256": self.body_sha256,
            "body_start": base64.b64encode(self.body_start).decode(),
            "arrived_at": self.arrived_at,
            "finished_at": self.finished_at,
            "disconnected_at": self.disconnected_at,
            "status": self.status,
        }


@dataclass(slots=True)
class RecordedSocket:
    """
    One socket: its handshake, what came over it, and how it ended.

    Args:
        request: The handshake, recorded among the requests as well.
        sizes: Of the client's messages, in order: characters of a text, bytes of a binary one.
        texts: The texts among them, while they are few.
        sent: How many messages of a flood have been taken.
        close_code: The one that came; 1006 when the client vanished, `None` while it is open or when it ended here.
        ended_at: Monotonic seconds; `None` while it is open.
    """

    request: RecordedRequest
    subprotocols: list[str]
    sizes: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sent: int = 0
    close_code: int | None = None
    close_reason: str = ""
    ended_at: float | None = None

    @property
    def authorization(self) -> str | None:
        """The `Authorization` header of the handshake."""
        return self.request.header("authorization")

    def add(self, message: str | bytes) -> None:
        """Take note of the client's next message."""
        self.sizes.append(len(message))
        if isinstance(message, str) and len(self.texts) < MAX_TEXTS:
            self.texts.append(message[:BODY_START_BYTES])

    def end(self, code: int | None, reason: str) -> None:
        """Take note of the end; the first word counts."""
        if self.ended_at is None:
            self.close_code, self.close_reason, self.ended_at = code, reason, time.monotonic()


class Recorder:
    """Keeps the last `MAX_REQUESTS` requests and counts all of them; sockets likewise, beside their handshakes."""

    def __init__(self) -> None:
        self._requests: deque[RecordedRequest] = deque(maxlen=MAX_REQUESTS)
        self._sockets: deque[RecordedSocket] = deque(maxlen=MAX_REQUESTS)
        self._count = 0

    @property
    def sockets(self) -> list[RecordedSocket]:
        """The kept sockets, oldest first, refused ones among them."""
        return list(self._sockets)

    def start_socket(self, request: RecordedRequest, subprotocols: Sequence[str]) -> RecordedSocket:
        """Record a handshake whose request has been recorded."""
        record = RecordedSocket(request, list(subprotocols))
        self._sockets.append(record)
        return record

    @property
    def requests(self) -> list[RecordedRequest]:
        """The kept requests, oldest first; those still in progress are among them."""
        return list(self._requests)

    @property
    def count(self) -> int:
        """How many requests came since the start or the last `clear`."""
        return self._count

    def clear(self) -> None:
        """Forget every request and count from zero."""
        self._requests.clear()
        self._sockets.clear()
        self._count = 0

    def start(self, scope: Mapping[str, Any]) -> RecordedRequest:
        """Record the arrival of a request, given its ASGI scope."""
        self._count += 1
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        record = RecordedRequest(
            sequence=self._count,
            method=scope["method"],
            path=raw_path.partition(b"?")[0].decode("latin-1"),
            query=scope.get("query_string", b"").decode("latin-1"),
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
            arrived_at=time.monotonic(),
        )
        self._requests.append(record)
        return record
