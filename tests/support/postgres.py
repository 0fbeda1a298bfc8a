"""
A real PostgreSQL server for tests: a private cluster in a temporary folder, on a free port of loopback.

Needs Debian's package `postgresql`, or the programs of the same names on the PATH.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
PACKAGE_HINT = (
    "PostgreSQL is missing: `initdb`, `postgres` and `pg_isready` must be in /usr/lib/postgresql/*/bin or on the PATH. "
    "Run ./scripts/test as root, or: sudo apt-get update && sudo apt-get install --no-install-recommends postgresql"
)
_DEBIAN = Path("/usr/lib/postgresql")
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_UNPRIVILEGED = "postgres"  # the server refuses to run as root; Debian's package makes this user


def find_programs(debian: Path = _DEBIAN) -> Path:
    """
    The folder with the server's programs, the newest version first.

    Raises:
        AssertionError: With what to install.
    """
    versions = sorted((path for path in debian.glob("*") if path.name.isdigit()), key=lambda path: -int(path.name))
    folders = [version / "bin" for version in versions]
    on_path = shutil.which("postgres")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).is_file() for name in ("initdb", "postgres", "pg_isready")):
            return folder
    raise AssertionError(PACKAGE_HINT)


class Postgres:
    """
    A server that runs while the block does.

    Its data is of no worth, so nothing waits for the disk.
    """

    def __init__(self) -> None:
        self._programs = find_programs()
        # Not a folder of pytest: those are closed to other users.
        self._folder = Path(tempfile.mkdtemp(prefix="relay-postgres-"))
        self._data = self._folder / "data"
        self._password = secrets.token_hex(16)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._make_cluster()
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def url(self) -> str:
        """As `RELAY_STORE_URL` takes it."""
        return f"postgresql+asyncpg://relay:{self._password}@{HOST}:{self._port}/postgres"

    def start(self) -> None:
        """Start; after `stop` on the same port and the same data."""
        self._port = self._port or _free_port()
        log = (self._folder / "log").open("ab")
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": str(self._folder),
            "fsync": "off",
            "max_connections": "100",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._data), "-p", str(self._port), *options),
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and all of its connections."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def _make_cluster(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if os.geteuid() == 0:
            for path in (self._folder, password_file):
                shutil.chown(path, _UNPRIVILEGED, _group())
        made = subprocess.run(
            self._command(
                *("initdb", "--pgdata", str(self._data), "--username", "relay", "--pwfile", str(password_file)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self._folder,
        )
        assert made.returncode == 0, f"initdb failed: {made.stderr[-2000:]}"

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() != 0:
            return command
        user = ["setpriv", "--reuid", _UNPRIVILEGED, "--regid", str(_group()), "--clear-groups"]
        return [*user, *command]

    def _ready(self) -> bool:
        command = [str(self._programs / "pg_isready"), "--quiet", "--host", HOST, "--port", str(self._port)]
        return subprocess.run(command, timeout=10, check=False).returncode == 0

    def _end(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _group() -> int:
    try:
        return pwd.getpwnam(_UNPRIVILEGED).pw_gid
    except KeyError:
        raise AssertionError(PACKAGE_HINT) from None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
