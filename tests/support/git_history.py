"""A real git repository in a temporary folder, with an author of its own and nobody's configuration."""

import os
import subprocess
from pathlib import Path

_TIMEOUT_SECONDS = 60


def git_environment() -> dict[str, str]:
    """This process's environment without its git settings, and with an author."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    people = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in _AUTHOR.items()}
    return {**kept, **people, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


_AUTHOR = {"NAME": "Tess Ter", "EMAIL": "tess@example.com"}


class History:
    """
    A repository.

    Args:
        folder: Becomes its checkout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run git in the checkout and return what it prints."""
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=self.folder,
            env=git_environment(),
            capture_output=True,
            check=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything in the checkout and return the revision."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str) -> None:
        """Begin a branch at a revision; what is not committed is thrown away."""
        self.git("checkout", "--quiet", "--force", "-B", name, start)
