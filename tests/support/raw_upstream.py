"""
An upstream on loopback that answers its first request with any bytes, and every later one with its own name.

For answers that are no proper HTTP: what matters is what the request after such an answer gets.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Self

from tests.support.servers import HOST

OWN_ANSWER = b'{"answer": "its own"}'
_OWN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(OWN_ANSWER),
    OWN_ANSWER,
)
_INTERVAL_SECONDS = 0.05  # so that two pieces do not arrive as one
_STOP_SECONDS = 5.0


class RawUpstream:
    """
    Runs until the block ends.

    Args:
        tls: Speak TLS with this.
        speaks_first: Send an answer before any request, and close.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, speaks_first: bool = False) -> None:
        self._tls = tls
        self._speaks_first = speaks_first
        self._first: Sequence[bytes] | None = None
        self._then_close = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._plays = 0
        self.requests = 0
        self.connections = 0  # that carried a request since the last `play`
        self.left = 0  # how many of these the other side has ended

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def play(self, *pieces: bytes, then_close: bool = False) -> None:
        """Forget what came; answer the next request with these, then close the connection or keep it."""
        with self._lock:
            self._first, self._then_close = pieces, then_close
            self._plays += 1
            self.requests = self.connections = self.left = 0

    def _accept(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.ExitStack() as open_sockets, contextlib.suppress(OSError):
            connection = open_sockets.enter_context(plain)
            plain.settimeout(_STOP_SECONDS)
            if self._tls is not None:
                connection = open_sockets.enter_context(self._tls.wrap_socket(plain, server_side=True))
            connection.settimeout(0.1)
            if self._speaks_first:
                connection.sendall(_OWN)
                return
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        play = 0  # the last one that this connection had a part in
        while self._read_request(connection):
            with self._lock:
                self.connections += play != self._plays
                self.requests += 1
                play = self._plays
                pieces, self._first = self._first, None
            for number, piece in enumerate((_OWN,) if pieces is None else pieces):
                if number:
                    self._stopped.wait(_INTERVAL_SECONDS)
                connection.sendall(piece)
            if pieces is not None and self._then_close:
                return
        with self._lock:
            self.left += play == self._plays

    def _read_request(self, connection: socket.socket) -> bool:
        received = b""
        while not (b"\r\n\r\n" in received and received.endswith((b"}", b"\r\n\r\n"))):
            try:
                piece = connection.recv(65_536)
            except TimeoutError:
                if self._stopped.is_set():
                    return False
                continue
            except ConnectionError:
                piece = b""
            if not piece:
                return False
            received += piece
        return True
