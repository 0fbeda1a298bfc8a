"""A service that speaks S3, in a process of its own on loopback: the server of the library `moto`."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from obstore.store import from_url

HOST = "127.0.0.1"
BUCKET = "relay-artifacts"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
CALL_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class S3Server:
    """
    A running service with an empty bucket.

    Args:
        environment: The `AWS_…` variables that lead to it.
    """

    url: str
    environment: Mapping[str, str]

    def names(self, prefix: str = "") -> list[str]:
        """Keys of all objects below a prefix, without it."""
        listing = self._ask(f"?list-type=2&prefix={prefix}")
        return [key.removeprefix(prefix) for key in re.findall(r"<Key>([^<]*)</Key>", listing)]

    def unfinished_uploads(self) -> int:
        """Multipart uploads that nobody has completed or given up."""
        return self._ask("?uploads").count("<Upload>")

    def delete(self, name: str) -> None:
        """Delete an object behind the relay's back; the variables of `environment` must be set."""
        from_url(f"s3://{BUCKET}", client_options={"allow_http": True}).delete(name)

    def _ask(self, query: str) -> str:
        return httpx.get(f"{self.url}/{BUCKET}{query}", timeout=CALL_TIMEOUT_SECONDS).raise_for_status().text


@contextmanager
def running_s3_server(folder: Path) -> Iterator[S3Server]:
    """
    Run the service until the block ends.

    Args:
        folder: Where its output goes.
    """
    output = folder / "s3.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", HOST, "-p", "0"], stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            url = _wait_until_ready(process, output)
            httpx.put(f"{url}/{BUCKET}", timeout=CALL_TIMEOUT_SECONDS).raise_for_status()
            yield S3Server(
                url,
                {
                    "AWS_ENDPOINT_URL": url,
                    "AWS_REGION": "us-east-1",
                    "AWS_ACCESS_KEY_ID": "made-up",
                    "AWS_SECRET_ACCESS_KEY": "made-up-as-well",
                },
            )
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(rf"http://{re.escape(HOST)}:[0-9]+", output.read_text(encoding="utf-8"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"the S3 service did not start:\n{output.read_text(encoding='utf-8')}")
