"""A relay in a thread of the test process, which can be looked into, and an upstream that holds answers back."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping

import psutil
from starlette.types import Receive, Scope, Send

from handlers.runtime.app import create_app, create_services
from handlers.runtime.settings import Settings
from tests.support.servers import ServerThread

DEADLINE_SECONDS = 60.0  # a hang fails, however slow the machine is


class WatchedRelay:
    """
    A relay in a thread; `server` runs it.

    Args:
        settings: As in the environment.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._app = create_app(create_services(Settings.model_validate(dict(settings))))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.server = ServerThread(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the relay."""
        self._loop = asyncio.get_running_loop()
        await self._app(scope, receive, send)

    @property
    def url(self) -> str:
        """Without a path."""
        return self.server.url

    def tasks(self) -> int:
        """How many tasks there are in its loop, the one that counts left out."""

        async def counted() -> int:
            return len(asyncio.all_tasks()) - 1

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(counted(), self._loop).result(DEADLINE_SECONDS)

    def clients(self) -> int:
        """How many connections of clients of this process it holds."""
        return connections(self.url)


class UpstreamOfTexts:
    """
    An upstream that answers each path with the same text.

    Args:
        texts: Path to JSON.
        held_back: Paths that are answered when `open` has been called.
        silent: Paths that never are.
    """

    def __init__(
        self, texts: Mapping[str, bytes], held_back: frozenset[str] = frozenset(), silent: frozenset[str] = frozenset()
    ) -> None:
        self._texts = texts
        self._held_back = held_back
        self._silent = silent
        self._opened = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.arrived: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.left: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hear that the client has left."""
        self._loop = asyncio.get_running_loop()
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        path: str = scope["path"]
        self.arrived[path] += 1
        try:
            if await self._may_answer(path, receive):
                headers = [(b"content-type", b"application/json")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": self._texts[path]})
            else:
                self.left[path] += 1
        finally:
            self.ended[path] += 1

    def open(self) -> None:
        """Answer what was held back, from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._opened.set)

    async def _may_answer(self, path: str, receive: Receive) -> bool:
        if path not in self._held_back | self._silent:
            return True
        gone = asyncio.create_task(_gone(receive))
        turn = asyncio.create_task(asyncio.Event().wait() if path in self._silent else self._opened.wait())
        await asyncio.wait([gone, turn], return_when=asyncio.FIRST_COMPLETED)
        for task in (gone, turn):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
            return False
        return True


def connections(url: str) -> int:
    """Established connections of this process to a server of this process."""
    port = int(url.rpartition(":")[2])
    found = psutil.Process().net_connections(kind="tcp")
    return sum(bool(c.raddr) and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in found)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
