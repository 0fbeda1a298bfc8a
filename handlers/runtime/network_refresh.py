"""
Fetches the networks that ChatGPT's requests come from and keeps them in a file: `relay networks refresh`.

Everything that comes is checked before the file is replaced at once. Not for a running relay: it reads the file.
"""

import asyncio
import contextlib
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from handlers.runtime.exceptions import StartupError
from handlers.runtime.networks import MAX_FILE_BYTES, parse_networks

# GPT Actions, apps and connectors: https://developers.openai.com/api/docs/guides/ip-addresses
PUBLISHED_URL = "https://openai.com/chatgpt-connectors.json"
STEP_TIMEOUT_SECONDS = 10.0
TOTAL_TIMEOUT_SECONDS = 30.0
MAX_REDIRECTS = 3
FILE_MODE = 0o644  # no secret; the relay may run as another user than whoever refreshes


class RefreshFailed(StartupError):
    """The networks could not be fetched or kept; the file is as it was."""


def refresh_networks(url: str, path: Path) -> int:
    """
    Fetch the published networks and put them into a file.

    Args:
        url: https; redirects are followed on the same host only.

    Returns:
        How many networks there are.

    Raises:
        RefreshFailed: They cannot be fetched, are not what is published, or the file cannot be written.
    """
    try:
        text = asyncio.run(_fetch(url))
        count = len(parse_networks(text))
        _replace(path, text)
    except ValueError as error:
        raise RefreshFailed(f"{url}: {error}; nothing was written.") from None
    except TimeoutError:
        raise RefreshFailed(
            f"{url}: must answer within {TOTAL_TIMEOUT_SECONDS:.0f} seconds; nothing was written."
        ) from None
    except httpx.HTTPError as error:
        raise RefreshFailed(f"{url}: could not be fetched ({type(error).__name__}); nothing was written.") from None
    except OSError as error:
        raise RefreshFailed(f"{path}: cannot be written ({error.strerror}).") from None
    return count


async def _fetch(url: str) -> bytes:
    host = _https_host(url)
    async with (
        asyncio.timeout(TOTAL_TIMEOUT_SECONDS),
        httpx.AsyncClient(verify=ssl.create_default_context(), timeout=STEP_TIMEOUT_SECONDS) as client,
    ):
        for _ in range(MAX_REDIRECTS + 1):
            async with client.stream("GET", url, headers={"Accept": "application/json"}) as reply:
                if reply.next_request is None:
                    return await _content(reply)
                url = str(reply.next_request.url)
            if _https_host(url) != host:
                raise ValueError("must not lead to another host")
    raise ValueError(f"must not lead on more than {MAX_REDIRECTS} times")


def _https_host(url: str) -> tuple[str, int]:
    wrong = "must be an https URL without credentials"
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError(wrong)
    return parts.hostname, port


async def _content(reply: httpx.Response) -> bytes:
    if reply.status_code != 200:
        raise ValueError(f"answers {reply.status_code}")
    content = b""
    async for piece in reply.aiter_bytes():
        content += piece
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"must have at most {MAX_FILE_BYTES} bytes")
    return content


def _replace(path: Path, content: bytes) -> None:
    """Write beside the file, then rename: whoever reads it sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), FILE_MODE)  # whatever the caller's umask says
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
