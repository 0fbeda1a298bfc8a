"""Large files through a subject, up and down: throughput, and how much its memory grows meanwhile."""

from collections.abc import Mapping
from typing import Any

from tests.bench.client_process import run_client
from tests.bench.subjects import DOWNLOAD, UPLOAD, Started
from tests.bench.transfer_client import TransferFigures
from tests.support.raw_http import raw_request

SIZE_BYTES = 64 * 2**20
UPLOAD_PATH = "/v1/files"
DOWNLOAD_PATH = "/v1/files/file-bench64MB/content"
REPETITIONS = 5
WARMING_BYTES = 1024
TIMEOUT_SECONDS = 120.0

_BOUNDARY = "large-file"
_HEAD = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
)
_TAIL = f"\r\n--{_BOUNDARY}--\r\n"


def measure_upload(
    started: Started, *, size_bytes: int = SIZE_BYTES, repetitions: int = REPETITIONS
) -> TransferFigures:
    """
    Send a file, as `createFile` takes it, several times; a small one before, which does not count.

    Raises:
        ClientFailed: It was refused, or the reply broke off.
    """
    warming = _upload(started, WARMING_BYTES)
    return _measured(started, _upload(started, size_bytes), warming, size_bytes, repetitions)


def measure_download(
    started: Started, *, size_bytes: int = SIZE_BYTES, repetitions: int = REPETITIONS
) -> TransferFigures:
    """
    Read a file several times from an upstream that has one of that size.

    Raises:
        ClientFailed: It was refused, broke off, or has another size.
    """
    path = started.paths.get(DOWNLOAD, DOWNLOAD_PATH)
    head = raw_request("GET", path, started.headers.items()).decode("latin-1")
    plan = _transfer("GET", head, 0, "", size_bytes)
    return _measured(started, plan, None, size_bytes, repetitions)


def _upload(started: Started, size_bytes: int) -> dict[str, Any]:
    headers: Mapping[str, str] = {
        **started.headers,
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(_HEAD) + size_bytes + len(_TAIL)),
    }
    head = raw_request("POST", started.paths.get(UPLOAD, UPLOAD_PATH), headers.items()).decode("latin-1")
    return _transfer("POST", head + _HEAD, size_bytes, _TAIL, None)


def _transfer(method: str, head: str, sent_bytes: int, tail: str, received_bytes: int | None) -> dict[str, Any]:
    return {
        "method": method,
        "head": head,
        "sent_bytes": sent_bytes,
        "tail": tail,
        "received_bytes": received_bytes,
    }


def _measured(
    started: Started, plan: dict[str, Any], warming: dict[str, Any] | None, size_bytes: int, repetitions: int
) -> TransferFigures:
    whole = {
        "url": started.url,
        "pid": started.pid,
        "size": size_bytes,
        "repetitions": repetitions,
        "warming": warming,
        "transfer": plan,
    }
    return TransferFigures(**run_client("tests.bench.transfer_client", whole, TIMEOUT_SECONDS))
