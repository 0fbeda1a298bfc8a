"""
Files that the body of a wrapper brings along, by link or as Base64, as parts of the multipart body that goes upstream.

Not for: fetching (`handlers.runtime.remote_files`).
"""

import binascii
import mimetypes
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from handlers.runtime.exceptions import FileTooLarge, InvalidBody
from handlers.runtime.file_names import UNSPECIFIC, plain_name
from handlers.runtime.multipart import FilePart
from handlers.runtime.remote_files import RemoteFile
from handlers.runtime.remote_hosts import FILE_FIELD

BASE64_FIELD = "content_base64"
# 87,384 characters as Base64: with the rest of a body just within the 100,000 that ChatGPT sends.
MAX_BASE64_BYTES = 64 * 1024

_TYPES = mimetypes.MimeTypes()  # Python's own table, the same on every machine


def brings_links(body: Mapping[str, Any], inline_fields: Collection[str]) -> bool:
    """
    Tell which of the two ways a body takes.

    Args:
        inline_fields: All that a file in the body itself needs.

    Returns:
        True for links, False for Base64.

    Raises:
        InvalidBody: It takes neither way, or both, or one in part (400).
    """
    if FILE_FIELD in body and not any(name in body for name in inline_fields):
        return True
    if FILE_FIELD not in body and all(name in body for name in inline_fields):
        return False
    fields = " and ".join(f"`{name}`" for name in inline_fields)
    raise InvalidBody(f"The body must hold either `{FILE_FIELD}` or {fields}, and not both.")


def remote_part(field_name: str, file: RemoteFile) -> FilePart:
    """A file that is being fetched; it is read when the body is."""
    return FilePart(field_name, file.name, file.media_type, file.length, file.pieces)


def inline_part(field_name: str, file_name: str, text: str) -> FilePart:
    """
    A file that stands in the body as Base64.

    Raises:
        InvalidBody: It is not Base64 (400).
        FileTooLarge: It has more than `MAX_BASE64_BYTES` (413).
    """
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise InvalidBody(
            f"`{BASE64_FIELD}` must be Base64 of the standard alphabet, padded, in one line.", param=BASE64_FIELD
        ) from None
    if len(content) > MAX_BASE64_BYTES:
        raise FileTooLarge(
            f"`{BASE64_FIELD}` must hold at most {MAX_BASE64_BYTES} bytes; name larger files in `{FILE_FIELD}`.",
            param=BASE64_FIELD,
        )
    name = plain_name(file_name)
    media_type, coding = _TYPES.guess_type(f"file{Path(name).suffix}")
    return FilePart(field_name, name, media_type if media_type and not coding else UNSPECIFIC, None, content)
