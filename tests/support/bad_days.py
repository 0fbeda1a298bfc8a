"""What goes wrong on purpose: an upstream that speaks raw bytes, an address that refuses, a relay with a defect."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.servers import HOST

ROOT = Path(__file__).parents[2]
# Runs in the relay's process before anything else. The handler fails with the request in its hands, as a defect would.
_DEFECT = """
import handlers.relay

async def retrieve_canonical_health(request):
    value = request.query.decode()
    raise RuntimeError("a defect made for a test")

handlers.relay.retrieve_canonical_health = retrieve_canonical_health
"""
DEFECTIVE_PATH = "/v1/health"


@dataclass(frozen=True)
class Script:
    """
    What the scripted upstream does with one request after having read its head.

    Args:
        pieces: Sent one after the other, `interval_seconds` apart.
        then_wait: Keep the connection open and silent until the peer leaves; else close it at once.
        then_go_on: Read the next request on the same connection.
    """

    pieces: Sequence[bytes] = ()
    interval_seconds: float = 0.0
    then_wait: bool = False
    then_go_on: bool = False


@dataclass
class ScriptedUpstream:
    """
    An upstream on loopback that answers raw bytes.

    Args:
        scripts: One per request, in order; the last one is used from then on.
        heads: The head of every request that came.
    """

    scripts: list[Script] = field(default_factory=lambda: [Script()])
    heads: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(0.1)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def play(self, *scripts: Script) -> None:
        """Forget what came and use these scripts from now on."""
        self.heads.clear()
        self.scripts = list(scripts)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.1)
            while (head := self._read_request(connection)) is not None:
                self.heads.append(head)
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                for piece in script.pieces:
                    connection.sendall(piece)
                    self._stopped.wait(script.interval_seconds)
                if script.then_wait:
                    self._receive(connection)
                if not script.then_go_on:
                    return

    def _read_request(self, connection: socket.socket) -> bytes | None:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._receive(connection)
            if not piece:
                return None
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        announced = re.search(rb"(?i)content-length: *([0-9]+)", head)
        while announced and len(body) < int(announced[1]):
            body += self._receive(connection)
        return head

    def _receive(self, connection: socket.socket) -> bytes:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                return connection.recv(65_536)
        return b""


@contextlib.contextmanager
def refusing_address() -> Iterator[str]:
    """A URL on loopback at which connections are refused for as long as the block lasts."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # bound, so that nobody else gets it; never listening
        yield f"http://{HOST}:{taken.getsockname()[1]}"


def defect_environment(folder: Path) -> dict[str, str]:
    """
    Settings that give a relay process a defect: its operation at `DEFECTIVE_PATH` fails.

    Args:
        folder: Where the module that Python loads at start is put.
    """
    (folder / "sitecustomize.py").write_text(_DEFECT, encoding="utf-8")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}
