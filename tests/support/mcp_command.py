"""
`relay mcp` as a process: with the official client at its input and output, with bare lines, or refusing to start.

What the command says beside the protocol is checked here for every run: one line to standard error, and no key in it.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.support.servers import RelayProcess

COMMAND = [sys.executable, "-m", "handlers.cli", "mcp"]
TIMEOUT_SECONDS = 30.0  # a hang must fail


def environment(url: str, key: str, **more: str) -> dict[str, str]:
    """What the settings of an assistant hold for the command."""
    return {"RELAY_MCP_URL": url, "RELAY_MCP_KEY": key, **more}


@asynccontextmanager
async def assistant(
    folder: Path, variables: Mapping[str, str], mode: str = "auto", arguments: tuple[str, ...] = ()
) -> AsyncIterator[Client]:
    """
    The official client in front of the command; no key may ever show in what the command says to people.

    Args:
        folder: Where the command's standard error goes.
        variables: Environment of the command.
        mode: The client's era.
    """
    said = folder / f"stderr-{secrets.token_hex(4)}"
    parameters = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *arguments], env=dict(variables))
    with said.open("w", encoding="utf-8") as errors:
        async with Client(
            stdio_client(parameters, errlog=errors), mode=mode, cache=None, read_timeout_seconds=TIMEOUT_SECONDS
        ) as client:
            yield client
    lines = said.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("relay: connected to ")] == []
    key = variables.get("RELAY_MCP_KEY")
    assert not key or key not in "\n".join(lines)


class Started:
    """
    The command in a process of its own, driven by lines, after the handshake.

    Args:
        url: Of the relay.
        key: For it.
    """

    def __init__(self, url: str, key: str) -> None:
        self._key = key
        self.process = subprocess.Popen(
            COMMAND,
            env={**os.environ, **environment(url, key)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.input: IO[bytes] = self.process.stdin
        self.output: IO[bytes] = self.process.stdout
        self.complaints: IO[bytes] = self.process.stderr
        client = {"name": "a test", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.send({"id": 1, "method": "initialize", "params": params})
        assert json.loads(self.output.readline())["id"] == 1
        self.send({"method": "notifications/initialized"})

    def send(self, message: dict[str, Any]) -> None:
        """Write a message."""
        self.input.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.input.flush()

    def call(self, name: str, arguments: dict[str, Any]) -> None:
        """Ask for a tool."""
        self.send({"id": 2, "method": "tools/call", "params": {"name": name, "arguments": arguments}})

    def end(self) -> tuple[int, float, list[Any]]:
        """Wait for the end: exit code, seconds, and the messages that nobody has read; nothing else may be there."""
        began = time.monotonic()
        code = self.process.wait(TIMEOUT_SECONDS)
        seconds = time.monotonic() - began
        said = self.complaints.read().decode()
        left = self.output.read()
        assert said.startswith("relay: connected to ")
        assert said.count("\n") == 1
        assert self._key not in said
        assert self._key.encode() not in left
        return code, seconds, [json.loads(line) for line in left.splitlines(keepends=True) if line.endswith(b"\n")]


@contextmanager
def started(relay: RelayProcess) -> Iterator[Started]:
    """Run the command until the block ends."""
    command = Started(relay.url, relay.key)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()
        for stream in (command.input, command.output, command.complaints):
            with contextlib.suppress(BrokenPipeError):  # what was not written any more
                stream.close()


def refusal(*arguments: str, **variables: str) -> str:
    """What the command says when it cannot start: one line, exit code 2, nothing on standard output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    ended = subprocess.run(
        [*COMMAND, *arguments],
        env={**inherited, **variables},
        input="",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("relay: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    for value in (variables.get("RELAY_MCP_KEY"), variables.get("RELAY_MCP_URL")):
        assert not value or value.startswith("http") or value not in ended.stderr
    return ended.stderr
