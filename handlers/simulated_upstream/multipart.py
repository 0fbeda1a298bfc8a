"""
Reads request bodies: JSON in memory up to a limit, multipart while it streams in, anything else unread.

File parts go to the spool as they arrive, so memory stays constant for bodies of any size.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from handlers.simulated_upstream.content import Content, Spool, SpoolWriter
from handlers.simulated_upstream.errors import BadRequest, BodyTooLarge

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_FIELD_BYTES = 1024 * 1024  # all text fields of one multipart body together


@dataclass(frozen=True)
class FilePart:
    """One file of a multipart body."""

    name: str
    filename: str
    media_type: str
    content: Content


@dataclass
class RequestBody:
    """
    What a request carries.

    Args:
        fields: A JSON object, or the text fields of a multipart body; a name sent more than once or with `[]` holds a
            list, a name with `[key]` an object.
        files: File parts in order.
        present: Whether there was any body at all.
        multipart: Whether it came in parts.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    files: list[FilePart] = field(default_factory=list)
    present: bool = False
    multipart: bool = False


async def read_body(pieces: AsyncIterator[bytes], content_type: str, spool: Spool) -> RequestBody:
    """
    Read a request's body to its end.

    Args:
        content_type: The request's header, empty when absent.

    Raises:
        BadRequest: Not JSON, not a JSON object, or not multipart (400).
        BodyTooLarge: JSON or text fields beyond their limit (413); the body is still read to its end.
    """
    media_type, options = parse_options_header(content_type)
    if media_type == b"multipart/form-data":
        return await _read_multipart(pieces, options.get(b"boundary", b""), spool)
    if media_type in {b"application/json", b""}:
        return await _read_json(pieces)
    size = 0
    async for piece in pieces:
        size += len(piece)
    return RequestBody(present=size > 0)


def require_parts(body: RequestBody, names: Iterable[str]) -> None:
    """
    Hold a multipart body against the parts that it must have.

    Raises:
        BadRequest: One is missing (400).
    """
    sent = {*body.fields, *(part.name.partition("[")[0] for part in body.files)}
    for name in names:
        if name not in sent:
            raise BadRequest(f"Missing required parameter: '{name}'.", param=name)


async def _read_json(pieces: AsyncIterator[bytes]) -> RequestBody:
    data = bytearray()
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size <= MAX_JSON_BYTES:
            data += piece
    if size > MAX_JSON_BYTES:
        raise BodyTooLarge("The JSON body is too large.")
    if not data:
        return RequestBody()
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadRequest("We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise BadRequest("The JSON body must be an object.")
    return RequestBody(fields=value, present=True)


async def _read_multipart(pieces: AsyncIterator[bytes], boundary: bytes, spool: Spool) -> RequestBody:
    parts = _Parts(spool)
    parser = MultipartParser(boundary, parts.callbacks()) if boundary else None
    failure: Exception | None = None if parser else BadRequest("The multipart boundary is missing.")
    try:
        async for piece in pieces:
            if failure is None and parser is not None:
                try:
                    parser.write(piece)
                except (MultipartParseError, BodyTooLarge, BadRequest) as error:
                    failure = error
        if failure is None and not parts.ended:
            failure = BadRequest("The multipart body ends too early.")
        if isinstance(failure, MultipartParseError):
            raise BadRequest("We could not parse the multipart body of your request.") from None
        if failure is not None:
            raise failure
    finally:
        parts.abandon()
    return parts.body


class _Parts:
    """Receives the parser's callbacks and builds the `RequestBody`."""

    def __init__(self, spool: Spool) -> None:
        self.body = RequestBody(present=True, multipart=True)
        self.ended = False
        self._spool = spool
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._name = ""
        self._filename: str | None = None
        self._writer: SpoolWriter | None = None
        self._text = bytearray()
        self._text_bytes = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def abandon(self) -> None:
        """Throw away a file part that never ended."""
        if self._writer is not None:
            self._writer.abandon()

    def _begin(self) -> None:
        self._headers = {}
        self._header_name = self._header_value = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise BadRequest("A part of the multipart body has no name.")
        self._name = options[b"name"].decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._filename = None if filename is None else filename.decode("utf-8", "replace")
        self._writer = None if filename is None else self._spool.writer()
        self._text.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._writer is not None:
            self._writer.write(data[start:end])
            return
        self._text_bytes += end - start
        if self._text_bytes > MAX_FIELD_BYTES:
            raise BodyTooLarge("The text fields of the multipart body are too large.")
        self._text += data[start:end]

    def _end(self) -> None:
        if self._writer is not None:
            media_type = self._headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
            content = self._writer.finish()
            self._writer = None
            self.body.files.append(FilePart(self._name, self._filename or "", media_type, content))
        else:
            add_field(self.body.fields, self._name, self._text.decode("utf-8", "replace"))

    def _finish(self) -> None:
        self.ended = True


def add_field(fields: dict[str, Any], name: str, value: str) -> None:
    """Add a text field: `a` twice and `a[]` make a list, `a[key]` makes an object."""
    base, bracket, rest = name.partition("[")
    key = rest.rstrip("]")
    known = fields.get(base)
    if bracket and key:
        fields[base] = {**known, key: value} if isinstance(known, dict) else {key: value}
    elif bracket or known is not None:
        fields[base] = [*(known if isinstance(known, list) else [] if known is None else [known]), value]
    else:
        fields[base] = value
