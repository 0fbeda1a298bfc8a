"""Part of a content, as `Range` asks for it. Several ranges and ranges from the end are answered with the whole."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from handlers.simulated_upstream.content import Content

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class PartOfContent:
    """
    The bytes of a content between two places.

    Args:
        start: The first byte.
        end: The one after the last.
    """

    whole: Content
    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start

    @property
    def header(self) -> str:
        """The value of `Content-Range`."""
        return f"bytes {self.start}-{self.end - 1}/{self.whole.size}"

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the start."""
        place = 0
        for piece in self.whole.pieces():
            part = piece[max(self.start - place, 0) : max(self.end - place, 0)]
            if part:
                yield part
            place += len(piece)
            if place >= self.end:
                return


def part_of(content: Content, header: str | None) -> PartOfContent | None:
    """
    Cut out what a request asks for.

    Args:
        header: Its `Range`.

    Returns:
        The part, empty when it would begin behind the end; `None` where the whole is to be answered.
    """
    found = _RANGE.fullmatch(header) if header is not None else None
    if found is None or (found[2] and int(found[2]) < int(found[1])):
        return None
    start = min(int(found[1]), content.size)
    return PartOfContent(content, start, min(int(found[2]) + 1, content.size) if found[2] else content.size)
