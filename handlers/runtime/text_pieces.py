"""
Cuts a piece out of a file of text that is read in bytes: never a broken character, never more than a reply can carry.

Not for: fetching the bytes, or telling anybody how to go on.
"""

import codecs
from dataclasses import dataclass

from handlers.runtime.budget import page_text
from handlers.runtime.exceptions import NotText

# To be read beyond the limit, so that a piece ends before the bytes do wherever something follows: the rest of a
# character at its start, one at its end, and a byte more.
MARGIN_BYTES = 8
_LONGEST_CHARACTER_BYTES = 4


@dataclass(frozen=True, slots=True)
class TextPiece:
    """
    A piece of a file.

    Args:
        offset: Where it begins, in bytes of the file.
        next_offset: Where the next one begins; `None` when nothing follows.
    """

    text: str
    offset: int
    next_offset: int | None


def cut_text(raw: bytes, offset: int, limit_bytes: int, room_characters: int) -> TextPiece:
    """
    Cut a piece of text.

    Args:
        raw: Bytes of the file from `offset` on: `MARGIN_BYTES` more than the limit, or fewer, which then are the last.
        offset: 0, where a piece before ended, or anywhere: the piece then begins with the next whole character. A byte
            order mark at the start of the file is left out.
        limit_bytes: Of the piece; one whole character it always is.
        room_characters: The length of the piece as JSON, escaped, with its quotes.

    Raises:
        NotText: There are bytes in it that no text in UTF-8 has (400).
    """
    start = _first_character(raw, offset)
    text = _decode(raw, start, start + limit_bytes)
    if not text:
        text = _decode(raw, start, start + _LONGEST_CHARACTER_BYTES)[:1]
    page, _ = page_text(text, 0, room_characters)
    end = start + len(page.encode())
    return TextPiece(page, offset + start, None if end == len(raw) else offset + end)


def _first_character(raw: bytes, offset: int) -> int:
    if offset == 0:
        return len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0
    inside = raw[: _LONGEST_CHARACTER_BYTES - 1]
    return next((place for place, byte in enumerate(inside) if byte & 0xC0 != 0x80), len(inside))


def _decode(raw: bytes, start: int, end: int) -> str:
    """The whole characters between two places."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(raw[start:end], final=end >= len(raw))
    except UnicodeDecodeError:
        raise NotText from None
    if "\0" in text:
        raise NotText
    return text
