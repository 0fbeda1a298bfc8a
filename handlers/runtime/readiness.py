"""
Whether the relay can take requests, and what it knows about those that it depends on.

Probes are answered from memory. What lies elsewhere is looked at in the background, only when somebody asks and not
more often than `EVERY_SECONDS`; no call of the API is made for that, so that probes cost nothing and make no storm.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit

import httpx

from handlers.runtime.admission import Admission
from handlers.runtime.circuit import Circuit, CircuitState
from handlers.runtime.exceptions import RelayError, StartupError

EVERY_SECONDS = 15.0
LOOK_TIMEOUT_SECONDS = 5.0


class State(StrEnum):
    """What a check has found."""

    OK = "ok"
    FAILING = "failing"
    UNKNOWN = "unknown"  # nobody has looked yet
    UNUSED = "unused"  # nothing of the kind is configured
    DRAINING = "draining"


class Readiness:
    """
    The checks of one worker; outside its block (`running`) it only answers from memory.

    Args:
        look_at_store: Raises when the store cannot be used; `None` where none is configured.
        upstream_url: Where a connection is tried.
    """

    def __init__(
        self,
        admission: Admission,
        circuit: Circuit,
        look_at_store: Callable[[], Awaitable[None]] | None,
        upstream_url: str,
    ) -> None:
        self._admission = admission
        self._circuit = circuit
        # The start has opened the store, or there would be nobody to ask.
        self._store = _Check(look_at_store, State.OK) if look_at_store is not None else None
        self._upstream = _Check(_Reach(upstream_url).look, State.UNKNOWN)
        self._running = False

    def checks(self) -> Mapping[str, State]:
        """What is known, by check."""
        upstream = self._upstream.state if self._circuit.state is CircuitState.CLOSED else State.FAILING
        return {
            "contract": State.OK,  # without it there would be no relay
            "drain": State.DRAINING if self._admission.draining else State.OK,
            "store": self._store.state if self._store is not None else State.UNUSED,
            "upstream": upstream,
        }

    def ready(self) -> bool:
        """
        Whether requests should come here.

        An upstream that fails is no reason: all replicas would be taken out at once, and their clients get nothing at
        all where they now get an answer that says what is wrong.
        """
        checks = self.checks()
        return checks["drain"] is State.OK and checks["store"] is not State.FAILING

    def look(self) -> None:
        """Look again in the background at what was looked at long ago."""
        if self._running:
            for check in (self._store, self._upstream):
                if check is not None:
                    check.refresh()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part in a running loop."""
        self._running = True
        try:
            yield
        finally:
            self._running = False
            for check in (self._store, self._upstream):
                if check is not None:
                    await check.stop()


class _Check:
    """One thing that is looked at, at most every `EVERY_SECONDS`."""

    def __init__(self, look: Callable[[], Awaitable[None]], state: State) -> None:
        self._look = look
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self.state = state

    def refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._due and (self._task is None or self._task.done()):
            self._due = now + EVERY_SECONDS
            self._task = asyncio.create_task(self._find_out())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _find_out(self) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                await self._look()
        except (OSError, TimeoutError, RelayError, StartupError):  # `ssl.SSLError` is an OSError
            self.state = State.FAILING
        else:
            self.state = State.OK


class _Reach:
    """Opens a connection and closes it again, without a word of HTTP."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._encrypted = parts.scheme == "https"
        self._tls: ssl.SSLContext | None = None

    async def look(self) -> None:
        if self._encrypted and self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)  # reads all the certificates to trust
        _, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
