"""
LibreChat's importer and executor of OpenAPI documents, run by Node.js against a relay.

Needs Node.js and what `npm ci` installs in `tests/importers`; `scripts/test` sees to both.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.documents import ROOT

FOLDER = ROOT / "tests" / "importers"
PACKAGE = "librechat-data-provider"
HINT = (
    "These tests need Node.js 18 or newer and the importer itself. Run ./scripts/test integration as root on Debian, "
    "which installs both, or install Node.js with npm and run: npm ci --prefix tests/importers"
)
_TIMEOUT_SECONDS = 240


@dataclass(frozen=True, slots=True)
class Called:
    """
    The reply to one call.

    Args:
        status: 0 when there was no reply; `body` then says why.
        body: Decoded when it was JSON.
    """

    status: int
    media_type: str
    body: Any


@dataclass(frozen=True, slots=True)
class Imported:
    """
    What the importer made of a document.

    Args:
        message: What it says of the document.
        server_url: The server that the document names.
        domain: What it says of that server's host.
        operations: In its order: name, method, path, whether it is consequential, and the tool for the model.
        calls: operationId to reply.
    """

    message: str
    server_url: str
    domain: Mapping[str, Any]
    operations: list[Mapping[str, Any]]
    calls: Mapping[str, Called]


def import_and_call(relay_url: str, key: str, calls: Mapping[str, Any], folder: Path) -> Imported:
    """
    Import the document that a relay serves, and call its operations.

    Args:
        key: A relay key.
        calls: operationId to arguments.
        folder: Where the arguments are written for Node.js.
    """
    node = shutil.which("node")
    assert node is not None, HINT
    assert (FOLDER / "node_modules" / PACKAGE).is_dir(), HINT
    file = folder / "calls.json"
    file.write_text(json.dumps(calls), encoding="utf-8")
    # The relay is on this machine; no proxy leads there.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ended = subprocess.run(
        [node, str(FOLDER / "librechat.mjs"), relay_url, str(file)],
        env={**environment, "RELAY_IMPORT_KEY": key},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = json.loads(ended.stdout)
    return Imported(
        message=said["message"],
        server_url=said["serverUrl"],
        domain=said["domain"],
        operations=said["operations"],
        calls={call["name"]: Called(call["status"], call["type"], call["body"]) for call in said["calls"]},
    )
