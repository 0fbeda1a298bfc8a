"""
The MCP Inspector's command line, run by the Node.js that came with it against one server.

Needs Node.js with npm and what `npm ci` installs in `tests/inspector`; `scripts/test` sees to both.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.documents import ROOT

FOLDER = ROOT / "tests" / "inspector"
HINT = (
    "These tests need Node.js with npm and the MCP Inspector itself. Run ./scripts/test integration as root on Debian, "
    "which installs both, or install Node.js with npm and run: npm ci --prefix tests/inspector"
)
# Exit codes of the Inspector: the server's program ended, the key was refused, the tool's answer is an error.
CLOSED, NO_ACCESS, TOOL_ERROR = 1, 3, 5
_PROGRAM = (
    FOLDER / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
)
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Inspected:
    """
    What one run of the Inspector left.

    Args:
        exit_code: 0 when the method was answered, and a tool without an error.
        result: The server's answer; empty when there is none.
        printed: All that it and the server's program printed.
    """

    exit_code: int
    result: Mapping[str, Any]
    printed: str


class Inspector:
    """
    The Inspector and one server; each call of a method is a process of its own, and several may run at a time.

    Args:
        folder: Its home and configuration, which holds the key: no argument does.
        server: An entry of its configuration, from `over_http` or `over_stdio`.
        era: The protocol to speak: `legacy`, where a client says hello first, or `modern`.
    """

    def __init__(self, folder: Path, server: Mapping[str, Any], era: str = "legacy") -> None:
        self._home = folder
        configuration = folder / "inspector.json"
        configuration.touch(0o600)
        configuration.write_text(json.dumps({"mcpServers": {"relay": server}}), encoding="utf-8")
        self._options = ["--config", str(configuration), "--protocol-era", era, "--format", "json"]
        self._options.append("--stored-auth-only")  # a key that is refused must not open a browser to sign in

    def list_tools(self) -> Inspected:
        """List the tools; exits with 6 when a schema would be refused by some client."""
        return self._run("--method", "tools/list", "--strict")

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Inspected:
        """Call a tool."""
        as_json = json.dumps(arguments)
        return self._run("--method", "tools/call", "--tool-name", name, "--tool-args-json", as_json)

    def _run(self, *arguments: str) -> Inspected:
        node = next((FOLDER / "node_modules").glob("node-*/bin/node"), None)
        assert node is not None, HINT
        assert _PROGRAM.is_file(), HINT
        ended = subprocess.run(
            [str(node), str(_PROGRAM), "--cli", *self._options, *arguments],
            # Nothing else is inherited: the relay is on this machine, and no proxy leads there.
            env={"HOME": str(self._home), "PATH": os.environ["PATH"], "MCP_INSPECTOR_SECRET_STORE": "memory"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        return Inspected(
            exit_code=ended.returncode,
            result=json.loads(ended.stdout)["result"] if ended.stdout else {},
            printed=ended.stdout + ended.stderr,
        )


def over_http(relay_url: str, key: str) -> dict[str, Any]:
    """A relay's own endpoint."""
    return {"type": "streamable-http", "url": f"{relay_url}/mcp", "headers": {"Authorization": f"Bearer {key}"}}


def over_stdio(relay_url: str, key: str) -> dict[str, Any]:
    """`relay mcp` in front of a relay."""
    return {
        "type": "stdio",
        "command": sys.executable,
        "args": ["-m", "handlers.cli", "mcp"],
        "env": {"RELAY_MCP_URL": f"{relay_url}/mcp", "RELAY_MCP_KEY": key},
    }
