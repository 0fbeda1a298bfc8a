"""
A listener of its own for scrapers that hold no key: `/metrics` and nothing else.

Off unless RELAY_METRICS_PORT is set, and on loopback unless RELAY_METRICS_HOST says otherwise.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope, Send

from handlers.runtime.exceptions import StartupError
from handlers.runtime.metrics import Metrics
from handlers.runtime.server import Server

PATH = "/metrics"


class MetricsPort:
    """
    Serves the numbers of one relay; workers that are forked after `bind` share the address.

    Args:
        host: The interface.
        port: Never 0: who scrapes must know it.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        self._server = Server(_Page(metrics), host, port, shutdown_timeout_seconds=1, signals=False)
        self.bound = False

    def bind(self) -> str:
        """
        Take the address.

        Returns:
            Where the numbers are.

        Raises:
            StartupError: The address is taken or not this machine's.
        """
        try:
            url = self._server.bind()
        except StartupError as error:
            raise StartupError(
                str(error).replace("RELAY_HOST and RELAY_PORT", "RELAY_METRICS_HOST and RELAY_METRICS_PORT")
            ) from None
        self.bound = True
        return f"{url}{PATH}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        async with self._server.running():
            yield


class _Page:
    """The app behind the port."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        found = scope["path"] == PATH and scope["method"] in {"GET", "HEAD"}
        body, content_type = b"Not found: GET /metrics is all there is.\n", "text/plain; charset=utf-8"
        if found:
            body = await self._metrics.text()
            from handlers.runtime.metrics_text import CONTENT_TYPE  # imported by now, by the thread that wrote the text

            content_type = CONTENT_TYPE
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})
