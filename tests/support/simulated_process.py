"""The simulated upstream in a process of its own, so that its work and its memory are not those of a long test."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from handlers.runtime.server import Server
from handlers.simulated_upstream.control import CONTROL_PREFIX
from tests.support.servers import HOST, STOP_TIMEOUT_SECONDS, simulated_upstream

FORGET_SECONDS = 5.0


@contextmanager
def simulated_process(**fault: Any) -> Iterator[str]:
    """
    Run it until the block ends; yields its URL.

    Args:
        fault: One that hits every request of its operation.
    """
    command = [sys.executable, "-m", "tests.support.simulated_process"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the simulated upstream did not start"
        if fault:
            httpx.post(f"{url}{CONTROL_PREFIX}faults", json=fault).raise_for_status()
        yield url
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


async def _serve() -> None:
    upstream = simulated_upstream()
    server = Server(upstream, HOST, 0, shutdown_timeout_seconds=1)
    sys.stdout.write(f"{server.bind()}\n")
    sys.stdout.flush()
    async with server.running() as ended:
        while not ended.done():
            await asyncio.wait({ended}, timeout=FORGET_SECONDS)
            upstream.recorder.clear()  # else it would keep the beginnings of thousands of bodies


if __name__ == "__main__":
    asyncio.run(_serve())
