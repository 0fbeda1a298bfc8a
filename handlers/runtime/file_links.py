"""
Files of a reply to an assistant: kept in the artifact store, shown as links.

Not for: how files are kept and links are signed (`handlers.runtime.artifacts`).
"""

from collections.abc import AsyncIterator
from typing import Any

from handlers.runtime.artifact_links import origin_of
from handlers.runtime.messages import Request


async def keep_file(
    request: Request, name: str, media_type: str, content: bytes | AsyncIterator[bytes]
) -> dict[str, Any]:
    """
    Keep a file for the assistant that asks.

    Args:
        request: Where the link leads when the relay has not been told its own address.
        content: The whole, or its pieces.

    Returns:
        What stands for the file in the contract's replies: link, name, type, length and end.

    Raises:
        FileTooLarge: The file exceeds the limit for one (413).
        ArtifactStoreFull: There is no room (503).
    """
    kept = await request.services.artifacts.save(name, media_type, content, base_url=origin_of(request))
    return {
        "url": kept.url,
        "name": kept.name,
        "mime_type": kept.media_type,
        "bytes": kept.bytes,
        "expires_at": kept.expires_at,
    }
