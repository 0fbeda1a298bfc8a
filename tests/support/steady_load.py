"""Clients that ask one after the other, without a pause, while something happens to the relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.servers import RelayProcess

BODY = {"model": "m", "input": "x"}
TIMEOUT_SECONDS = 20.0  # a hang fails


@dataclass
class SteadyLoad:
    """
    What has come of the requests so far.

    Args:
        answered: With status 200.
        failed: What else came of a request that had a connection.
        unconnected: How many attempts to connect were refused; nothing was asked then.
    """

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    unconnected: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, more: int) -> None:
        """Wait until so many more have been answered."""
        goal = self.answered + more
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while self.answered < goal:
                await asyncio.sleep(0.005)

    def stop(self) -> None:
        """Let each client end behind its present request."""
        self._stop.set()

    async def ask(self, relay: RelayProcess, *, until_gone: bool) -> None:
        """Be one client: keep a connection while the relay does, and connect anew when it does not."""
        async with httpx.AsyncClient(base_url=relay.url, headers=relay.headers, timeout=TIMEOUT_SECONDS) as client:
            while not self._stop.is_set():
                try:
                    reply = await client.post("/v1/responses", json=BODY)
                except httpx.ConnectError as error:
                    self.unconnected += 1
                    if until_gone:
                        return
                    self.failed.append(repr(error))
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                else:
                    if reply.status_code == 200 and reply.json()["object"] == "response":
                        self.answered += 1
                    else:
                        self.failed.append(f"{reply.status_code} {reply.text}")


@asynccontextmanager
async def steady_load(relay: RelayProcess, clients: int, *, until_gone: bool = False) -> AsyncIterator[SteadyLoad]:
    """
    Let so many clients ask while the block runs; behind it all have ended.

    Args:
        until_gone: A client ends by itself when nobody listens any more; otherwise that is a failure.
    """
    load = SteadyLoad()
    tasks = [asyncio.create_task(load.ask(relay, until_gone=until_gone)) for _ in range(clients)]
    try:
        yield load
    finally:
        if not until_gone:
            load.stop()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await asyncio.gather(*tasks)
