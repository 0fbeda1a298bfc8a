"""Which of the project's own commands a shell text calls, and whether they exist. Reads `scripts/`, runs nothing."""

import os
import re

from codegen.cli import app
from tests.support.documents import ROOT

COMMANDS = {command.name for command in app.registered_commands}
SCRIPTS = {path.name for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK)}


def unknown_calls(shell: str) -> list[str]:
    """Scripts and commands of `contract` that a shell text calls and that do not exist or cannot be run."""
    scripts = re.findall(r"(?<![\w/.-])(?:\./)?scripts/([a-z_.]+[a-z])", shell)
    commands = re.findall(r"\.venv/bin/contract ([a-z]+)", shell)
    called = [name for name in scripts if not name.endswith(".lock")]  # those are read
    return [f"scripts/{name} cannot be run" for name in called if name not in SCRIPTS] + [
        f"contract {name} is no command" for name in commands if name not in COMMANDS
    ]
