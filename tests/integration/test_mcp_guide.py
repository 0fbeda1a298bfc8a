"""
The commands of `docs/mcp.md` in front of a real relay: each prints what the guide shows.

Not for: the guide's words and links (`tests/test_guides.py`).
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codegen.contract import Scope
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.documents import ROOT
from tests.support.inspector import FOLDER, HINT
from tests.support.key_files import make_key, write_keys
from tests.support.servers import ServerThread, running_relay

pytestmark = pytest.mark.integration

GUIDE = (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"^```bash\n(?P<command>(?:(?!```)[\s\S])*?)^```\n\n```text\n(?P<output>(?:(?!```)[\s\S])*)^```$", re.MULTILINE
)
EXAMPLES = [(found["command"], found["output"]) for found in EXAMPLE.finditer(GUIDE)]
# The guide names an address and an issuer; nothing is fetched from either.
SETTINGS = {
    "RELAY_PUBLIC_URL": "https://relay.example.com",
    "RELAY_OAUTH_ISSUER": "https://login.example.com",
    "RELAY_OAUTH_JWKS_URL": "https://login.example.com/keys",
}
# What is new with each call or release.
_ID = re.compile(r"\b(req|rly)_[0-9a-f]+")
_VERSION = re.compile(r'("version": ?)"[0-9.]+"')
_TIMEOUT_SECONDS = 60


@pytest.fixture(scope="module")
def environment(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the reader has: the address, a key for assistants, and the usual programs with `npx` among them."""
    folder = tmp_path_factory.mktemp("guide")
    key = make_key("team-assistant", Scope.ACTIONS, Scope.PROXY)
    write_keys(folder / "keys.yaml", [key])
    programs = [str(_npx(folder)), str(FOLDER / "node_modules" / ".bin"), str(Path(sys.executable).parent)]
    with running_relay(folder, upstream_server.url, {**SETTINGS, "RELAY_KEY_FILE": str(folder / "keys.yaml")}) as relay:
        yield {
            "RELAY": relay.url,
            "KEY": key.text,
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
            "HOME": str(folder),
            "MCP_INSPECTOR_SECRET_STORE": "memory",
        }


def test_the_guide_shows_what_its_commands_print() -> None:
    """No command that asks the relay stands there without its output."""
    commands = re.findall(r"^```bash\n([^`]*\$RELAY[^`]*)^```$", GUIDE, re.MULTILINE)
    assert commands
    assert commands == [command for command, _ in EXAMPLES]


@pytest.mark.parametrize(("command", "output"), EXAMPLES)
def test_a_command_prints_what_the_guide_shows(
    command: str, output: str, environment: dict[str, str], upstream: SimulatedUpstream
) -> None:
    """Copied into a shell, the command prints the guide's output, but for ids and the version."""
    del upstream
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],  # noqa: S607 - as the reader would
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert lasting(ended.stdout) == lasting(output)


def lasting(printed: str) -> str:
    """What stays the same from one call to the next."""
    text = _VERSION.sub(r'\1"…"', _ID.sub(r"\1_…", printed))
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _npx(folder: Path) -> Path:
    """A folder with an `npx` that fetches nothing: the Inspector is installed."""
    assert (FOLDER / "node_modules" / ".bin" / "mcp-inspector").exists(), HINT
    programs = folder / "programs"
    programs.mkdir()
    npx = programs / "npx"
    npx.write_text('#!/bin/sh\n[ "$1" = @modelcontextprotocol/inspector ] && shift && exec mcp-inspector "$@"\n')
    npx.chmod(0o755)
    return programs
