"""
A real nginx on loopback with the configuration of `docs/deployment/nginx.conf`, before a relay.

Needs Debian's package `nginx-light`, or the program `nginx` on the PATH.
"""

import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.documents import ROOT
from tests.support.file_server import make_certificate

HOST = "127.0.0.1"
PACKAGE_HINT = (
    "nginx is missing: it must be on the PATH. "
    "Run ./scripts/test as root, or: sudo apt-get update && sudo apt-get install --no-install-recommends nginx-light"
)
EXAMPLE = ROOT / "docs" / "deployment" / "nginx.conf"
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
# What Debian's own nginx.conf does around files in conf.d, as far as they need it; everything below one folder.
_AROUND = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr emerg;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    access_log {folder}/access.log;
    include {folder}/relay.conf;
}}
"""


def find_nginx() -> str:
    """
    The program.

    Raises:
        AssertionError: With what to install.
    """
    found = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    assert found is not None, PACKAGE_HINT
    return found


class Nginx:
    """
    A server that runs while the block does.

    Args:
        folder: For its configuration, certificate and logs.
        relay_url: What it stands in front of.
        example: The text of its configuration.

    Raises:
        AssertionError: The example lacks a line that has to be this machine's, or nginx does not start with it.
    """

    def __init__(self, folder: Path, relay_url: str, example: str) -> None:
        self._program = find_nginx()
        self.folder = folder
        certificate = make_certificate(folder)
        with socket.socket() as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        self.url = f"https://{HOST}:{port}"
        # Of this machine and this run; all else is used as it stands.
        for theirs, ours in {
            "server 127.0.0.1:8080;": f"server {urlsplit(relay_url).netloc};",
            "listen 443 ssl;": f"listen {HOST}:{port} ssl;",
            "    listen [::]:443 ssl;\n": "",
            "/etc/ssl/relay/fullchain.pem": str(certificate.chain),
            "/etc/ssl/relay/privkey.pem": str(certificate.key),
            "/var/log/nginx/relay.error.log": f"{folder}/error.log",
        }.items():
            assert example.count(theirs) == 1, f"{theirs!r} must stand once in {EXAMPLE.name}"
            example = example.replace(theirs, ours)
        (folder / "relay.conf").write_text(example, encoding="utf-8")
        user = "user root;" if os.geteuid() == 0 else ""  # others may not look into folders of pytest
        self._configuration = folder / "nginx.conf"
        self._configuration.write_text(_AROUND.format(folder=folder, user=user), encoding="utf-8")
        self.trust = ssl.create_default_context(cafile=str(certificate.chain))

    def __enter__(self) -> Self:
        command = [self._program, "-p", str(self.folder), "-c", str(self._configuration)]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False, timeout=_START_SECONDS)
        assert tested.returncode == 0, tested.stderr
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not self._listens():
            assert self._process.poll() is None, "nginx has ended"
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        parts = urlsplit(self.url)
        try:
            socket.create_connection((str(parts.hostname), int(parts.port or 443)), 1).close()
        except OSError:
            return False
        return True
