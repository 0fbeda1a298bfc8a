"""Images that are none: the first bytes of a kind, and then whatever fills them up."""

import base64
import random
from collections.abc import Iterable
from typing import Any

MAGIC = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/webp": b"RIFF\x10\x00\x00\x00WEBP",
}


def image(media_type: str, size: int = 1000, seed: int = 0) -> bytes:
    """Bytes that begin like an image."""
    magic = MAGIC[media_type]
    return magic + random.Random(seed).randbytes(size - len(magic))


def images_answer(images: Iterable[bytes], **more: Any) -> dict[str, Any]:
    """What the upstream answers with these images."""
    data = [{"b64_json": base64.b64encode(content).decode()} for content in images]
    return {"created": 1_790_000_000, "data": data, **more}
