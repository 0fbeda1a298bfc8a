"""One request over ASGI by hand, for what a client library cannot do: leaving early, and seeing each message."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from handlers.simulated_upstream import SimulatedUpstream


class Exchange:
    """
    One request in progress.

    Args:
        body: Pieces of the request's body, one message each.
    """

    def __init__(
        self,
        upstream: SimulatedUpstream,
        method: str,
        target: str,
        *,
        body: tuple[bytes, ...] = (b"",),
        headers: tuple[tuple[bytes, bytes], ...] = ((b"authorization", b"Bearer sk-made-up"),),
    ) -> None:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": list(headers),
        }
        self.sent: list[MutableMapping[str, Any]] = []
        self._pieces = list(body)
        self._left = asyncio.Event()
        self.task = asyncio.ensure_future(upstream(scope, self._receive, self._send))

    def leave(self) -> None:
        """Close the client's side."""
        self._left.set()

    @property
    def messages(self) -> list[bytes]:
        """The body messages sent so far that carry something."""
        return [message["body"] for message in self.sent if message.get("body")]

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


async def until(condition: Any) -> None:
    """Let other tasks run until a condition holds, at most two seconds."""
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)
