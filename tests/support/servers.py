"""Real servers for tests: the simulated upstream in a thread, the relay in a process of its own, both on loopback."""

import asyncio
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.server import Server
from handlers.simulated_upstream import SimulatedUpstream

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 10.0
# Recognisable on purpose: the canary tests look for them in everything that the relay says.
RELAY_KEY = "rk_canary-relay-" + secrets.token_hex(16)
UPSTREAM_KEY = "sk-canary-upstream-" + secrets.token_hex(16)
# What every relay of this process has printed and logged, one file each, in the order of their starts.
OUTPUTS: list[Path] = []


class ServerThread:
    """
    An ASGI app served by uvicorn in a thread of the test process.

    Args:
        app: Any ASGI application.
    """

    def __init__(self, app: Any) -> None:
        self._server = Server(app, HOST, 0, signals=False, shutdown_timeout_seconds=1)
        self.url = self._server.bind()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.run_until_stopped()), daemon=True)

    def __enter__(self) -> "ServerThread":
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise AssertionError("the server did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._thread.join(STOP_TIMEOUT_SECONDS)


@dataclass
class RelayProcess:
    """
    A running `relay serve`.

    Args:
        url: Without `/v1`.
        key: One that opens everything but operator operations.
        output: File with all that it prints and logs.
    """

    url: str
    key: str
    process: subprocess.Popen[bytes]
    output: Path
    started_seconds: float
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Process id of the relay."""
        return self.process.pid

    @property
    def base_url(self) -> str:
        """What an SDK takes as `base_url`."""
        return f"{self.url}/v1"

    def printed(self) -> str:
        """Everything that it has printed and logged so far."""
        return self.output.read_text(encoding="utf-8")


@contextmanager
def running_relay(
    folder: Path, upstream_url: str, environment: Mapping[str, str] | None = None
) -> Iterator[RelayProcess]:
    """
    Run `relay serve` in a process of its own until the block ends.

    Args:
        folder: Where its output goes.
        upstream_url: Without `/v1`.
        environment: Further settings, or other values for the usual ones.
    """
    output = folder / f"relay-{secrets.token_hex(4)}.log"
    OUTPUTS.append(output)
    settings = {
        "OPENAI_API_KEY": UPSTREAM_KEY,
        "OPENAI_BASE_URL": f"{upstream_url}/v1",
        "RELAY_KEY": RELAY_KEY,
        "RELAY_PORT": "0",
        "RELAY_SHUTDOWN_TIMEOUT_SECONDS": "2",
        "RELAY_FILE_HOSTS": HOST,  # and no private network: no test asks a name server, none fetches unless it says so
        **(environment or {}),
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "OPENAI_"))}
    began = time.monotonic()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "handlers.cli", "serve"],
            env={**inherited, **settings, "PYTHONUNBUFFERED": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            url = _wait_until_ready(process, output, began)
            yield RelayProcess(
                url=url,
                key=settings["RELAY_KEY"],
                process=process,
                output=output,
                started_seconds=time.monotonic() - began,
                headers={"Authorization": f"Bearer {settings['RELAY_KEY']}"},
            )
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def simulated_upstream(**options: Any) -> SimulatedUpstream:
    """A simulated upstream of the rendered contract."""
    return SimulatedUpstream(load_contract(GENERATED, FULL), **options)


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path, began: float) -> str:
    while time.monotonic() - began < START_TIMEOUT_SECONDS:
        found = re.search(r"^relay +(http://\S+)", output.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            try:
                httpx.get(f"{found[1]}/livez", timeout=START_TIMEOUT_SECONDS).raise_for_status()
            except httpx.TransportError:
                pass
            else:
                return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(f"the relay did not start:\n{output.read_text(encoding='utf-8')}")
