"""Clients that ask without a pause over kept connections, and what has failed for them."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.raw_clients import RawReply, connected, exchange

JOIN_SECONDS = 30.0
REPLY_SECONDS = 20.0
RETURN_SECONDS = 0.05
APART_SECONDS = 0.02  # connections that come all at once are all taken by the worker that wakes first


@dataclass(frozen=True)
class Failure:
    """
    One request that was sent and not answered well.

    Args:
        port: Of the client's side of the connection.
    """

    port: int
    kind: str


class Load:
    """
    So many clients in a thread, for as long as the block lasts.

    A refused connection is no failure: nothing was sent. Nor is a kept one that has ended before a request was sent.

    Args:
        request: What each of them sends, time and again.
    """

    def __init__(self, url: str, request: bytes, clients: int) -> None:
        self.answered = 0
        self.failures: list[Failure] = []
        self._url = url
        self._request = request
        self._clients = clients
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            self.failures.append(Failure(0, "a client hangs"))

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number * APART_SECONDS) for number in range(self._clients)))

    async def _client(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        while not self._stopped.is_set():
            try:
                reader, writer = await connected(self._url)
            except OSError:
                await asyncio.sleep(RETURN_SECONDS)
                continue
            try:
                again = True
                while again and not self._stopped.is_set() and not reader.at_eof():
                    again = await self._ask(reader, writer)
            finally:
                writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once; whether the connection takes another request."""
        port = int(writer.get_extra_info("sockname")[1])
        reply = RawReply()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(REPLY_SECONDS):
                await exchange(reader, writer, self._request, reply)
        if reply.status == 200 and reply.complete:
            self.answered += 1
            return reply.header("connection") != "close"
        kind = str(reply.status or "no reply")
        if reply.status and not reply.complete:
            kind += " broken off"
        self.failures.append(Failure(port, kind))
        return False
