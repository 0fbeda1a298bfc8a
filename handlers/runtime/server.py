"""Runs ASGI apps on uvicorn: the relay alone (`relay serve`), or several servers in one loop (`relay demo`, tests)."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.runtime.connection import new_request_id
from handlers.runtime.errors import error_to_reply
from handlers.runtime.exceptions import MalformedRequest, StartupError

READY_POLL_SECONDS = 0.01


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the relay's error body for what is not HTTP and so never reaches an app."""

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and close."""
        reply = error_to_reply(MalformedRequest())
        body = cast("bytes", reply.body)
        request_id = new_request_id().encode()
        headers = [
            *reply.headers,
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id),
            (b"x-relay-request-id", request_id),
        ]
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(header) for header in headers), b"", body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


class Server(uvicorn.Server):
    """
    One app on one address.

    Args:
        app: Any ASGI application.
        port: 0 picks a free one; `url` tells which.
        shutdown_timeout_seconds: How long running requests may take after the end was asked for.
        signals: Whether SIGINT and SIGTERM end it; only one server of a process may take them.
    """

    def __init__(
        self, app: Any, host: str, port: int, *, shutdown_timeout_seconds: int = 30, signals: bool = True
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=HttpProtocol,
                ws="none",
                lifespan="on",
                access_log=False,  # the relay writes its own line
                server_header=False,
                # Longer than load balancers keep idle connections (60 s), so that none sends into a closing one.
                timeout_keep_alive=75,
                proxy_headers=False,
                log_config=None,
                timeout_graceful_shutdown=shutdown_timeout_seconds,
            )
        )
        self._sockets: list[socket.socket] = []
        self._signals = signals

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """
        Let SIGINT and SIGTERM end the server, or leave them to another one.

        uvicorn's own way raises the signal again after the end, which shows a traceback for a plain Ctrl-C.
        """
        if not self._signals:
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def bind(self) -> str:
        """
        Take the address.

        Returns:
            The server's URL.

        Raises:
            StartupError: The address is taken or not this machine's.
        """
        host, port = self.config.host, self.config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Naming TCP is what lets asyncio switch Nagle's algorithm off, which would hold replies back for 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(self.config.backlog)
        except OSError as error:
            listener.close()
            raise StartupError(
                f"cannot listen on {host} port {port}: {error.strerror}. Set RELAY_HOST and RELAY_PORT."
            ) from None
        listener.setblocking(False)
        self._sockets.append(listener)
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{listener.getsockname()[1]}"

    async def run_until_stopped(self) -> None:
        """
        Serve until a signal or `stop`; the address must have been taken with `bind`.

        Raises:
            StartupError: The app failed to start.
        """
        await self.serve(sockets=self._sockets)
        if not self.started:
            raise StartupError("the server could not start; see the lines above.")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Serve in the background while the block runs; yields the task that ends when the server has stopped."""
        task = asyncio.create_task(self.serve(sockets=self._sockets))
        while not self.started and not task.done():  # noqa: ASYNC110 - uvicorn only sets a flag
            await asyncio.sleep(READY_POLL_SECONDS)
        try:
            if task.done():
                await task
                raise StartupError("the server could not start; see the lines above.")
            yield task
        finally:
            self.stop()
            await task

    def stop(self) -> None:
        """Ask for the end: no new requests, running ones are finished within the limit."""
        self.should_exit = True
