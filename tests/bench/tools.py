"""
Installs what the benchmark runs beside the project: Debian's programs, and others' gateways in folders of their own.

Nothing of it enters the project's own environment or its locks.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

INSTALL_SECONDS = 900.0  # LiteLLM brings 750 MB
_STAMP = ".installed"
# Debian starts a server when it is installed; where systemd would, it is told not to, until the next boot.
_SERVICES = {"nginx-light": "nginx.service"}
_SYSTEMD = Path("/run/systemd/system")


class CannotInstall(Exception):
    """Something is not to be had here; the message is the reason in one sentence, fit for the page."""


class Tools:
    """
    What is installed.

    Args:
        folder: Of the environments and packages; what is there and asked for again stays.
        say: Tells people what takes so long.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say

    def debian(self, program: str, package: str) -> str:
        """
        See that a program is there, from Debian's package where it is missing.

        Returns:
            Its path.

        Raises:
            CannotInstall: Not on Debian, not as root, or Debian's servers do not answer.
        """
        found = find_program(program)
        if found is not None:
            return found
        if find_program("apt-get") is None:
            raise CannotInstall(f"`{program}` is missing: install it with this system's package manager.")
        if os.geteuid() != 0:
            install = f"sudo apt-get update && sudo apt-get install --no-install-recommends {package}"
            raise CannotInstall(f"`{program}` is missing: run `{install}`.")
        self._say(f"installing Debian's {package}")
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._log(package)
        log.unlink(missing_ok=True)
        if package in _SERVICES and _SYSTEMD.is_dir():
            self._run(["systemctl", "mask", "--runtime", _SERVICES[package]], log, package)
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        self._run([*apt, "update"], log, package, quiet)
        self._run([*apt, "install", "--yes", "--no-install-recommends", package], log, package, quiet)
        found = find_program(program)
        if found is None:
            raise CannotInstall(f"Debian's {package} has no program `{program}`.")
        return found

    def venv(self, name: str, requirements: Sequence[str]) -> Path:
        """
        See that a Python environment is there; it is made anew when its requirements have changed.

        Args:
            name: Of its folder.
            requirements: With exact versions.

        Returns:
            Its interpreter.

        Raises:
            CannotInstall: pip fails, or Python cannot make environments.
        """
        folder = self._folder / name
        python = folder / "bin" / "python"
        # Scripts and links hold the paths of the folder and of the interpreter that made it.
        state = "\n".join([*requirements, sys.version, sys.base_prefix, str(folder)])
        with self._making(folder, state) as stale:
            if stale:
                log = self._log(name)
                self._run([sys.executable, "-m", "venv", str(folder)], log, name)
                pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
                self._run([*pip, *requirements], log, name)
        return python

    def npm(self, name: str, packages: Mapping[str, str]) -> Path:
        """
        See that packages from npm are there; they are installed anew when they have changed.

        Args:
            name: Of their folder.
            packages: Name to exact version, of those that others of them need, too. No install script is run.

        Returns:
            The folder that holds their `node_modules`.

        Raises:
            CannotInstall: npm fails, or Node.js is not to be had.
        """
        self.debian("node", "nodejs")
        npm = self.debian("npm", "npm")
        folder = self._folder / name
        state = json.dumps(dict(packages), sort_keys=True)
        with self._making(folder, state) as stale:
            if stale:
                folder.mkdir()
                # Also for what they need themselves: one of a package, and no other beside it.
                wanted = {"private": True, "dependencies": dict(packages), "overrides": dict(packages)}
                (folder / "package.json").write_text(json.dumps(wanted), encoding="utf-8")
                options = ["--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
                self._run([npm, "install", *options], self._log(name), name, cwd=folder)
        return folder

    @contextmanager
    def _making(self, folder: Path, state: str) -> Iterator[bool]:
        """
        Hold a folder's lock, as another benchmark of the same checkout may want the folder, too.

        Yields whether it has to be made. Then nothing is left of what was there, be it outdated or broken off; and it
        counts as made once the block has ended well.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{folder.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stamp = folder / _STAMP
            stale = not (stamp.is_file() and stamp.read_text(encoding="utf-8") == state)
            if stale:
                self._say(f"installing {folder.name}; this can take minutes")
                if folder.exists():
                    shutil.rmtree(folder)
                self._log(folder.name).unlink(missing_ok=True)
            yield stale
            if stale:
                stamp.write_text(state, encoding="utf-8")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _run(
        self,
        command: Sequence[str],
        log: Path,
        what: str,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        tool = Path(command[0]).name if "-m" not in command else command[command.index("-m") + 1]
        where = f"what it said is in {self._folder.name}/{log.name}"
        try:
            with log.open("ab") as sink:
                subprocess.run(
                    command,
                    env=environment,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    timeout=INSTALL_SECONDS,
                    check=True,
                )
        except subprocess.CalledProcessError as error:
            ended = f"{tool} ended with {error.returncode}"
            raise CannotInstall(f"{what} could not be installed: {ended}, and {where}.") from None
        except subprocess.TimeoutExpired:
            ended = f"{tool} took more than {INSTALL_SECONDS / 60:.0f} minutes"
            raise CannotInstall(f"{what} could not be installed: {ended}, and {where}.") from None
        except OSError as error:
            raise CannotInstall(f"{what} could not be installed: {tool}: {error.strerror}.") from None


def find_program(name: str) -> str | None:
    """Where a program is, also among those for administrators, which a user's PATH may lack."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
