"""
A Git repository with the project's scripts; the tools that they call are doubles that note how they were called.

Not for: the tools themselves; each has its own tests. Writes below the folder that it is given.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.documents import ROOT

TIMEOUT_SECONDS = 60
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "somebody@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
_IGNORED = ".venv/\ndoubles/\n"
_DOUBLE = """#!/usr/bin/env bash
call="$*"
printf '%s\\n' "${{call//$'\\n'/ }}" >>"$DOUBLES/{name}.calls"
{body}
"""


@dataclass(frozen=True, slots=True)
class ScriptCheckout:
    """
    A checkout on its branch `main`.

    Attributes:
        root: Folder of the repository; `doubles` in it goes before everything else on the PATH.
    """

    root: Path

    @property
    def doubles(self) -> Path:
        """Where doubles stand and note their calls."""
        return self.root / "doubles"

    def double(self, name: str, body: str) -> None:
        """
        Put a double in the place of a tool.

        Args:
            name: Of a program on the PATH, or a path in the checkout.
            body: Bash that answers for it.
        """
        path = self.root / name if "/" in name else self.doubles / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_DOUBLE.format(name=path.name, body=body), encoding="utf-8")
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """Arguments of each call of a double."""
        path = self.doubles / f"{name}.calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def git(self, *arguments: str) -> str:
        """Run Git and return what it prints."""
        return self._run(shutil.which("git") or "git", *arguments, check=True).stdout.strip()

    def commit(self, files: Mapping[str, str]) -> str:
        """Write files and commit them; returns the commit."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change.")
        return self.git("rev-parse", "HEAD")

    def pushed(self, commit: str = "HEAD") -> None:
        """Let `origin/main` be a commit."""
        self.git("update-ref", "refs/remotes/origin/main", commit)

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the project's scripts in this checkout."""
        return self._run(str(self.root / "scripts" / name), *arguments)

    def shell(self, program: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a shell text in a folder, with a step's environment and the doubles on the PATH."""
        return self._run(shutil.which("bash") or "bash", "-c", program, folder=folder, environment=environment)

    def _run(
        self,
        *command: str,
        check: bool = False,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.doubles), os.environ["PATH"]])
        return subprocess.run(
            command,
            cwd=folder or self.root,
            env={**os.environ, **_ENVIRONMENT, **(environment or {}), "PATH": path, "DOUBLES": str(self.doubles)},
            capture_output=True,
            text=True,
            check=check,
            timeout=TIMEOUT_SECONDS,
        )


def script_checkout(folder: Path) -> ScriptCheckout:
    """Make a checkout whose `contract` prints its arguments and passes; its set-up does nothing."""
    checkout = ScriptCheckout(folder / "checkout")
    checkout.doubles.mkdir(parents=True)
    checkout.git("init", "--quiet", "--initial-branch", "main")
    shutil.copytree(ROOT / "scripts", checkout.root / "scripts", ignore=shutil.ignore_patterns("*.lock"))
    checkout.double("scripts/setup", "true")
    checkout.double(".venv/bin/contract", 'echo "contract $*"')
    checkout.double(".venv/bin/python", f'exec "{sys.executable}" "$@"')
    checkout.commit({".gitignore": _IGNORED})
    checkout.pushed()
    return checkout
