"""Runs ASGI apps on uvicorn: the relay alone (`relay serve`), or several servers in one loop (`relay demo`, tests)."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final, cast

import uvicorn

from handlers.runtime.exceptions import StartupError
from handlers.runtime.http_protocol import DEFAULT_CLIENT_LIMITS, ClientLimits, HttpProtocol
from handlers.runtime.socket_protocol import DEFAULT_SOCKET_LIMITS, SocketLimits, SocketProtocol

READY_POLL_SECONDS = 0.01
TICKS_PER_CHECK: Final = 5  # of 0.1 s each: how often slow clients are looked for


class Server(uvicorn.Server):
    """
    One app on one address.

    Args:
        app: Any ASGI application.
        port: 0 picks a free one; `url` tells which.
        shutdown_timeout_seconds: How long running requests may take after the end was asked for.
        signals: Whether SIGINT and SIGTERM end it; only one server of a process may take them.
        sockets: What every WebSocket keeps to.
        clients: What every client's connection keeps to.
        on_drain: Called when the end begins.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        shutdown_timeout_seconds: int = 30,
        signals: bool = True,
        sockets: SocketLimits = DEFAULT_SOCKET_LIMITS,
        clients: ClientLimits = DEFAULT_CLIENT_LIMITS,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=cast("type[HttpProtocol]", partial(HttpProtocol, limits=clients)),
                ws=SocketProtocol,
                ws_max_size=sockets.max_message_bytes,
                ws_ping_interval=sockets.ping_interval_seconds,
                ws_ping_timeout=sockets.ping_timeout_seconds,
                ws_per_message_deflate=False,  # audio does not get smaller, and each socket would cost 100 KB more
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
        self._clients = clients
        self._on_drain = on_drain
        self._beat: Callable[[], None] = lambda: None

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

    async def run_until_stopped(self, beat: Callable[[], None] = lambda: None) -> None:
        """
        Serve until a signal or `stop`; the address must have been taken with `bind`.

        Args:
            beat: Called twice a second for as long as it serves.

        Raises:
            StartupError: The app failed to start.
        """
        self._beat = beat
        await self.serve(sockets=self._sockets)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Serve in the background while the block runs; yields the task that ends when the server has stopped."""
        task = asyncio.create_task(self.serve(sockets=self._sockets))
        while not self.started and not task.done():  # noqa: ASYNC110 - uvicorn only sets a flag
            await asyncio.sleep(READY_POLL_SECONDS)
        try:
            if task.done():
                await task
            yield task
        finally:
            self.stop()
            await task

    def stop(self) -> None:
        """Ask for the end: no new requests, running ones are finished within the limit."""
        self.should_exit = True

    def close_listeners(self) -> None:
        """Give the address up in this process; a process that was forked from it may still listen."""
        for listener in self._sockets:
            listener.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Start the app and listen.

        Raises:
            StartupError: The app failed to start.
        """
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's way to say so
            raise StartupError("the server could not start; see the lines above.") from None

    async def on_tick(self, counter: int) -> bool:
        """Look for slow clients as well."""
        if counter % TICKS_PER_CHECK == 0:
            self._beat()
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.check_progress(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening without losing a client that has just connected, finish what runs, and end the app."""
        self._on_drain()
        waiting = _accept_waiting(self._sockets)
        for server in self.servers:
            server.close()
        self.close_listeners()
        loop = asyncio.get_running_loop()
        for client in waiting:
            with contextlib.suppress(OSError):  # gone already
                await loop.connect_accepted_socket(self._protocol, client)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return HttpProtocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            limits=self._clients,
        )


def allow_many_files() -> None:
    """Let this process have as many open connections as it may; the usual soft limit of 1,024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _accept_waiting(listeners: list[socket.socket]) -> list[socket.socket]:
    """The connections that the kernel has made and nobody has taken yet; closing their listener would break them."""
    waiting = []
    for listener in listeners:
        with contextlib.suppress(OSError):  # `BlockingIOError`: no more
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                waiting.append(client)
    return waiting
