"""
Fetches files by link and sends them upstream as multipart, as the relay's wrappers do.

Runs as a process of its own where its memory is measured: `python -m tests.support.remote_file_sender UPSTREAM CA_FILE`
takes a link per line on standard input and answers with a line of JSON.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from handlers.runtime.messages import Reply
from handlers.runtime.multipart import FilePart, MultipartBody
from handlers.runtime.remote_files import RemoteFiles, read_references
from handlers.runtime.remote_hosts import DEFAULT_HOSTS
from handlers.runtime.settings import Settings
from handlers.runtime.upstream import Upstream

STOP_TIMEOUT_SECONDS = 10.0
MAX_BYTES = 512 * 2**20
LOOPBACK = "127.0.0.1"


async def loopback_resolver(host: str, port: int) -> list[str]:
    """Take every host for a server of the test."""
    del host, port
    return [LOOPBACK]


def loopback_files(ca_file: Path, **options: Any) -> RemoteFiles:
    """Fetches from file servers of the test and from nobody else."""
    values = {"max_bytes": MAX_BYTES, "timeout_seconds": 60.0, "resolver": loopback_resolver, **options}
    return RemoteFiles(DEFAULT_HOSTS, [f"{LOOPBACK}/32"], ca_file=ca_file, **values)


def loopback_upstream(url: str) -> Upstream:
    """The relay's own client before a simulated upstream."""
    return Upstream(Settings.model_validate({"OPENAI_API_KEY": "sk-made-up", "OPENAI_BASE_URL": f"{url}/v1"}))


async def send_remote_file(files: RemoteFiles, upstream: Upstream, link: str, **options: Any) -> Reply:
    """Fetch a file and hand it to `createFile` while it comes; the reply is read."""
    (reference,) = read_references([{"name": "large.bin", "download_link": link}])
    async with files.open(reference, **options) as file:
        part = FilePart("file", file.name, file.media_type, file.length, file.pieces)
        body = MultipartBody([("purpose", "user_data")], [part])
        headers = [(b"content-type", body.content_type.encode())]
        if body.length is not None:
            headers.append((b"content-length", str(body.length).encode()))
        reply = await upstream.send("POST", "/v1/files", headers=headers, content=aiter(body))
        if not isinstance(reply.body, bytes):
            reply.body = b"".join([piece async for piece in reply.body])
        return reply


@contextmanager
def sender_process(upstream_url: str, ca_file: Path) -> Iterator["Sender"]:
    """Run this module until the block ends."""
    command = [sys.executable, "-m", "tests.support.remote_file_sender", upstream_url, str(ca_file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Sender(process)
    finally:
        try:
            process.communicate(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


class Sender:
    """A running sender."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def send(self, link: str) -> dict[str, Any]:
        """Let it send the file behind a link; answers the upstream's `File` object."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{link}\n")
        self._process.stdin.flush()
        value: dict[str, Any] = json.loads(self._process.stdout.readline())
        return value


async def _serve(upstream_url: str, ca_file: Path) -> None:
    files = loopback_files(ca_file)
    loop = asyncio.get_running_loop()
    async with loopback_upstream(upstream_url) as upstream:
        while link := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            reply = await send_remote_file(files, upstream, link)
            assert isinstance(reply.body, bytes)
            sys.stdout.write(f"{reply.body.decode()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], Path(sys.argv[2])))
