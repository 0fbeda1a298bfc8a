"""
Images as an assistant is shown them: links instead of Base64.

Not for: what an image is drawn from (`handlers.image_wrappers`).
"""

import binascii
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.file_links import keep_file
from handlers.runtime.file_names import UNSPECIFIC
from handlers.runtime.messages import Request
from handlers.runtime.shortening import shorten_text

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")  # what upstream takes in
MAX_IMAGE_BYTES = 50 * 10**6  # of one image that is sent; upstream's document says 50 MB

# What upstream gives out; by magic bytes, since what was asked for is not always what comes.
_KINDS: tuple[tuple[str, str, Callable[[bytes], bool]], ...] = (
    ("image/png", "png", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", "jpg", lambda head: head.startswith(b"\xff\xd8\xff")),
    ("image/webp", "webp", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
)
_HEAD_BYTES = 12
_HEAD_CHARACTERS = 16  # as Base64
_PIECE_CHARACTERS = 4 * 2**18  # of Base64, a multiple of four: 768 KiB of image
# A prompt may have 32,000 characters; four of them beside the links would not fit, and the links must.
_PROMPT_CHARACTERS = 4_000
_URL = re.compile(r"https://[!-~]{1,4000}")  # signed ones of cloud storage have some 500 characters
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")


def image_type(head: bytes) -> tuple[str, str]:
    """
    Tell an image by its first bytes.

    Returns:
        Media type and the ending of a file name; the latter is empty when nobody knows the former.
    """
    return next(((kind, ending) for kind, ending, fits in _KINDS if fits(head)), (UNSPECIFIC, ""))


async def image_links(request: Request, answer: dict[str, Any]) -> dict[str, Any]:
    """
    Turn an answer of the upstream into `ImageLinks`.

    Args:
        answer: Its images are taken out of it one after the other, so that their text is gone when the next is kept.

    Raises:
        UpstreamProtocolError: There is no image in it, or something else than one (502).
        ArtifactStoreFull: There is no room (503).
    """
    items = answer.pop("data", None)
    if not isinstance(items, list) or not items:
        raise _unreadable()
    created = answer.get("created")
    links: dict[str, Any] = {"created": created if type(created) is int else int(time.time()), "data": []}
    items.reverse()
    while items:
        links["data"].append(await _link(request, items.pop(), len(links["data"]) + 1))
    links["how"] = "Show each `url` to the user now, as a Markdown image; the links end soon."
    usage = answer.get("usage")
    if isinstance(usage, dict):
        links["usage"] = {name: usage[name] for name in _TOKENS if type(usage.get(name)) is int}
    return links


async def _link(request: Request, item: Any, number: int) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise _unreadable()
    prompt = item.get("revised_prompt")
    revised = {"revised_prompt": shorten_text(prompt, _PROMPT_CHARACTERS)} if isinstance(prompt, str) else {}
    text = item.pop("b64_json", None)
    if isinstance(text, str) and text:
        media_type, ending = image_type(_decoded(text[:_HEAD_CHARACTERS])[:_HEAD_BYTES])
        name = f"image-{number}.{ending}" if ending else f"image-{number}"
        return {**await keep_file(request, name, media_type, _content(text)), **revised}
    url = item.get("url")
    if isinstance(url, str) and _URL.fullmatch(url):
        # The image lies with the upstream's storage; what it is and when it ends is not said.
        return {"url": url, "name": f"image-{number}", **revised}
    raise _unreadable()


async def _content(text: str) -> AsyncIterator[bytes]:
    for start in range(0, len(text), _PIECE_CHARACTERS):
        yield _decoded(text[start : start + _PIECE_CHARACTERS])


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise _unreadable() from None


def _unreadable() -> UpstreamProtocolError:
    return UpstreamProtocolError("The upstream answered no image that can be read; the call may have worked.")
