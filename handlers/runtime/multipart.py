"""
Writes `multipart/form-data` piece by piece, in constant memory: how files from elsewhere go upstream.

Not for reading it: bodies of clients pass through unread.
"""

import re
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from handlers.runtime.exceptions import InternalError

# Types come from clients and from other servers: nothing in them may end the line. RFC 2045, parameters included.
_MEDIA_TYPE = re.compile(r"[!-.0-~]+/[ !-~]+")
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True, slots=True)
class FilePart:
    """
    One file of a body.

    Args:
        field_name: The form's field.
        file_name: As it is, in any script.
        length: Of `content` in bytes; `None` when nobody knows it yet.
        content: The whole, or its pieces, which can be read once.
    """

    field_name: str
    file_name: str
    media_type: str
    length: int | None
    content: bytes | AsyncIterator[bytes] = field(repr=False)


class MultipartBody:
    """
    A body of text fields and files, in this order.

    Names are escaped as browsers do it; values stay as they are, line breaks included.

    Args:
        fields: Names and values; a name may stand more than once.
        files: Parts whose content is read when the body is, one after the other.

    Raises:
        ValueError: A media type is none.

    Source: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data, RFC 7578
    """

    def __init__(self, fields: Iterable[tuple[str, str]], files: Sequence[FilePart]) -> None:
        # 128 random bits: no content can be prepared to hold the boundary, so none is searched for it.
        boundary = f"relay-{secrets.token_hex(16)}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._delimiter = f"--{boundary}\r\n"
        self._fields = b"".join(self._text_part(name, value) for name, value in fields)
        self._files = [(self._file_head(part), part) for part in files]
        self._end = f"--{boundary}--\r\n".encode()

    @property
    def length(self) -> int | None:
        """Of the whole body in bytes; `None` when that of a file is not known."""
        total = len(self._fields) + len(self._end)
        for head, part in self._files:
            length = _length(part)
            if length is None:
                return None
            total += len(head) + length + len(b"\r\n")
        return total

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """
        The body's pieces, once.

        Raises:
            InternalError: A file has more or fewer bytes than its `length` says (500).
        """
        head = self._fields
        for file_head, part in self._files:
            yield head + file_head
            async for piece in _counted(part):
                yield piece
            head = b"\r\n"
        yield head + self._end

    def _text_part(self, name: str, value: str) -> bytes:
        head = f'{self._delimiter}Content-Disposition: form-data; name="{name.translate(_ESCAPES)}"\r\n\r\n'
        return f"{head}{value}\r\n".encode()

    def _file_head(self, part: FilePart) -> bytes:
        if not _MEDIA_TYPE.fullmatch(part.media_type):
            raise ValueError("a media type must be a type and a subtype in printable ASCII")
        name, file_name = part.field_name.translate(_ESCAPES), part.file_name.translate(_ESCAPES)
        return (
            f'{self._delimiter}Content-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
            f"Content-Type: {part.media_type}\r\n\r\n"
        ).encode()


def _length(part: FilePart) -> int | None:
    return len(part.content) if part.length is None and isinstance(part.content, bytes) else part.length


async def _counted(part: FilePart) -> AsyncIterator[bytes]:
    """The pieces of a file, held against its length before each goes out."""
    left = _length(part)
    async for piece in _pieces(part.content):
        if left is not None:
            left -= len(piece)
            if left < 0:
                raise _wrong_length()
        if piece:
            yield piece
    if left:
        raise _wrong_length()


async def _pieces(content: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for piece in content:
        yield piece


def _wrong_length() -> InternalError:
    error = InternalError()  # what a caller is told is the table's text
    error.add_note("a file of a multipart body does not have the length that was given with it")
    return error
